"""A failed program is paired with the solution nearest to it."""

from difflib import SequenceMatcher

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coderl.training.losses import CrossEntropyExample
from coderl.training.repair import nearest_text, repair_pairs
from coderl.training.settings import OptimConfig, WarmStartConfig
from coderl.training.warm_start import warm_start


def test_similarity_by_hand():
    """`abcd` and `abxd` share a, b, d: 2 * 3 / 8."""
    assert nearest_text("abcd", ["zzzz", "abxd"]) == ("abxd", 0.75)


def test_each_failed_program_gets_its_nearest_solution():
    solutions = ["n = int(input())\nprint(n + 1)\n", "import sys\nfor line in sys.stdin:\n    print(int(line) + 1)\n"]
    failed = ["n = int(input())\nprint(n - 1)\n", "import sys\nfor line in sys.stdin:\n    print(line + 1)\n"]
    pairs = repair_pairs(failed, solutions)
    assert [(p.failed_index, p.solution) for p in pairs] == [(0, solutions[0]), (1, solutions[1])]
    assert all(p.similarity > 0.9 for p in pairs)


def test_no_solutions_give_no_pairs():
    assert repair_pairs(["abc"], []) == []


texts = st.text(alphabet="ab\n", max_size=8)


@given(texts, st.lists(texts, min_size=1, max_size=5))
def test_the_short_cuts_never_miss_the_nearest(text, candidates):
    expected = max(SequenceMatcher(None, candidate, text, autojunk=False).ratio() for candidate in candidates)
    found = nearest_text(text, candidates)
    assert found is not None
    assert found[1] == expected


def test_it_learns_to_answer_a_failed_program_with_its_solution(tiny):
    """The prompt holds the failed program; two of them have two different solutions."""
    examples = [CrossEntropyExample((30, 2), (40, 41, 2)), CrossEntropyExample((31, 2), (50, 51, 2))]
    config = WarmStartConfig(optim=OptimConfig(learning_rate=1e-2, batch_size=2, num_steps=40))
    steps = list(warm_start(tiny(), examples, config))
    assert steps[-1].loss < 0.3 * steps[0].loss
    assert steps[-1].loss == pytest.approx(steps[-1].metrics["ce_loss"])
