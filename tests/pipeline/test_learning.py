"""From judged samples to what the actor trains on."""

import pytest

from coderl.pipeline.config import ReturnsConfig
from coderl.pipeline.learning import _group_examples
from coderl.pipeline.tables import Verdict
from coderl.types import Outcome, Program, ProgramKind


def judged(*drawn):
    """Return programs of one problem with their verdicts, from (tokens, outcome) pairs."""
    pairs = []
    for index, (tokens, outcome) in enumerate(drawn):
        program = Program("p", index, "", ProgramKind.SAMPLE, tokens)
        pairs.append((program, Verdict("p", program.kind, index, outcome, None, "", None, (), "", None)))
    return pairs


@pytest.mark.parametrize(("count_copies", "expected"), [(True, 2.0), (False, 1.0)])
def test_a_program_drawn_twice_counts_twice_or_once(count_copies, expected):
    """Both ways its gradient costs one row: r = 1 a copy, no baseline, failures filtered to 0."""
    group = judged(((7, 8), Outcome.PASSED_TEST), ((7, 8), Outcome.PASSED_TEST), ((9,), Outcome.FAILED_TEST))
    config = ReturnsConfig(baseline="none", spread="uniform", filter="positive_only", count_copies=count_copies)
    found = {e.program: e.token_returns for e in _group_examples(group, {}, None, (1,), config)}
    assert found == {(7, 8): (expected, expected), (9,): (0.0,)}
