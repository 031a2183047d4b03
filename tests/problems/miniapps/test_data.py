"""MiniAPPS: its meanings, its programs, its words and its splits agree."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from coderl.problems.examples import extract as example_tests
from coderl.problems.miniapps import data as miniapps
from coderl.problems.miniapps.data import MiniAppsConfig
from coderl.problems.miniapps.grammar import DOMAINS, LISTS, TEXT, Operation, Reduction
from coderl.problems.miniapps.pipeline import (
    Given,
    Pipeline,
    Step,
    answer,
    near_misses,
    program,
    without_a_step,
)
from coderl.types import (
    CallTest,
    InputError,
    LabelledProblem,
    StdinTest,
    UnitTest,
)

SMALL = MiniAppsConfig(num_solved=120, num_unsolved=80, num_validation=40, num_test=60)


@pytest.fixture(scope="module")
def problems() -> dict[str, list[LabelledProblem]]:
    return miniapps.generate(SMALL)


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Pipeline, list[Given]]]:
    """Pipelines as for training, with the inputs of their hidden tests."""
    return list(miniapps._pipelines(SMALL, "train", 400, Random(5), set()))


def passes(code: str, test: UnitTest, fn_name: str | None) -> bool:
    """Run a program of our own grammar in this process (never one of a model)."""
    namespace: dict[str, Any] = {}
    if isinstance(test, CallTest):
        exec(code, namespace)
        assert fn_name is not None
        return namespace[fn_name](*json.loads(json.dumps(test.args))) == test.expected
    assert isinstance(test, StdinTest)
    lines, printed = iter(test.stdin.splitlines()), io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {"input": lambda: next(lines)})
    return printed.getvalue() == test.stdout


def part(name: str) -> Operation | Reduction:
    return next(p for d in DOMAINS for p in (*d.operations, *d.reductions) if p.name == name)


def meaning(name: str, values: Any, k: Any = None) -> Any:
    return part(name).apply(values, k)


# ---------------------------------------------------------------------------------------------------------- grammar


@pytest.mark.parametrize(
    ("name", "values", "k", "expected"),
    [
        ("keep_even", [3, 4, -2, 0, -1], None, [4, -2, 0]),
        ("keep_odd", [3, 4, -2, 0, -1], None, [3, -1]),
        ("keep_greater", [1, 2, 3], 2, [3]),
        ("keep_less", [1, 2, 3], 2, [1]),
        ("keep_multiple", [-3, 4, 6], 3, [-3, 6]),
        ("drop_value", [1, 2, 1], 1, [2]),
        ("remainder", [-1, 7], 5, [4, 2]),
        ("absolute", [-4, 4], None, [4, 4]),
        ("distinct", [2, 1, 2, 1], None, [2, 1]),
        ("running_sums", [2, -1, 5], None, [2, 1, 6]),
        ("differences", [2, -1, 5], None, [-3, 6]),
        ("drop", [1], 2, []),
        ("drop_last", [1, 2, 3], 2, [1]),
        ("drop_last", [1], 2, []),
        ("odd_places", [1, 2, 3], None, [1, 3]),
        ("average", [-1, -2], None, -2),
        ("distinct_text", "abAa", None, "abA"),
        ("double", "ab", None, "aabb"),
        ("palindrome", "aba", None, "YES"),
        ("palindrome", "ab", None, "NO"),
    ],
)
def test_meaning_by_hand(name: str, values: Any, k: Any, expected: Any) -> None:
    """The meanings, on which every expected output rests, match answers worked out by hand."""
    assert meaning(name, values, k) == expected


def test_every_style_of_every_part_computes_its_meaning() -> None:
    """The statements and expressions of the grammar do what its meanings say, in each style, on random values."""
    rng = Random(0)
    for domain in DOMAINS:
        for p in (*domain.operations, *domain.reductions):
            for _ in range(30):
                k = rng.choice(p.constants) if p.constants else None
                values = miniapps._ordinary(domain.sources[0], rng)
                if isinstance(p, Reduction) and not p.is_defined(values, k):
                    continue
                for code in p.code:
                    scope = {domain.variable: list(values) if isinstance(values, list) else values}
                    text = code.format(k=k)
                    found = eval(text, scope) if isinstance(p, Reduction) else exec(text, scope)
                    assert (found if isinstance(p, Reduction) else scope[domain.variable]) == p.apply(values, k), text


def test_default_is_the_answer_where_nothing_is_left() -> None:
    """[1, 3] has no even number, so the largest even number is the default; [1, 4] has one."""
    steps = (Step(part("keep_even")),)
    pipeline = Pipeline(LISTS, LISTS.sources[0], steps, Step(part("largest")), default="NONE")
    assert answer(pipeline, Given([1, 3])) == "NONE"
    assert answer(pipeline, Given([1, 4])) == 4
    assert program(pipeline, "functional").endswith('print(max(a, default="NONE"))\n')


def test_k_from_the_input_reaches_meaning_and_program() -> None:
    """With k read from the input, 'greater than k' follows the input: [1, 2, 3] with k = 1 leaves 2 + 3."""
    pipeline = Pipeline(
        LISTS, LISTS.sources[0], (Step(part("keep_greater"), reads_k=True),), Step(part("sum")), 0, fn_name="solve"
    )
    assert answer(pipeline, Given([1, 2, 3], 1)) == 5
    assert program(pipeline, "comprehension").startswith("def solve(a, k):\n    a = [x for x in a if x > k]\n")


# ---------------------------------------------------------------------------------------------------------- problems


def test_every_reference_program_passes_every_test(drawn: list[tuple[Pipeline, list[Given]]]) -> None:
    """Programs in all styles agree with the interpreter of the grammar on hidden inputs of 400 problems."""
    for pipeline, inputs in drawn:
        for style in ("comprehension", "functional", "loop"):
            code = program(pipeline, style)
            for given in inputs:
                assert passes(code, miniapps.unit_test(pipeline, given), pipeline.fn_name), (code, given)


def test_solutions_pass_example_and_hidden_tests(problems: dict[str, list[LabelledProblem]]) -> None:
    """What a problem shows and what it hides agree with each of its solutions."""
    for labelled in (p for split in problems.values() for p in split):
        for code in labelled.solutions:
            tests = (*labelled.problem.example_tests, *labelled.hidden_tests)
            assert all(passes(code, test, labelled.problem.fn_name) for test in tests)


def test_extractor_recovers_the_example_tests(problems: dict[str, list[LabelledProblem]]) -> None:
    """The tests read out of a statement are those the generator put into it, both for programs and for functions."""
    for labelled in (p for split in problems.values() for p in split):
        found = example_tests.extract(labelled.problem.description, fn_name=labelled.problem.fn_name)
        assert found == labelled.problem.example_tests


def test_hidden_tests_tell_near_misses_from_solutions(drawn: list[tuple[Pipeline, list[Given]]]) -> None:
    """Of wrong pipelines (a step omitted, swapped, replaced or off by one) under 2% pass all hidden tests."""
    rng, wrong, passed = Random(1), 0, 0
    for pipeline, inputs in drawn:
        fresh = [
            Given(miniapps._ordinary(pipeline.source, rng), miniapps._any_k(pipeline, rng)) for _ in range(150)
        ] + inputs
        for other in (*without_a_step(pipeline), *near_misses(pipeline, rng)):
            if any(answer(other, given) != answer(pipeline, given) for given in fresh):
                wrong += 1
                passed += all(answer(other, given) == answer(pipeline, given) for given in inputs)
    assert wrong > 1500
    assert passed / wrong < 0.02


def test_splits_share_no_operation_sequence_and_no_problem() -> None:
    """Held-out sequences occur nowhere in training, and no problem occurs twice anywhere."""
    sequences, identities = {}, Counter()
    for split in ("train", "validation", "test"):
        pipelines = [p for p, _ in miniapps._pipelines(SMALL, split, 150, Random(3), set())]
        sequences[split] = {p.composition for p in pipelines}
        identities.update(p.identity for p in pipelines)
    assert not sequences["train"] & sequences["validation"]
    assert not sequences["train"] & sequences["test"]
    assert not sequences["validation"] & sequences["test"]
    assert max(identities.values()) == 1


def test_no_description_occurs_twice(problems: dict[str, list[LabelledProblem]]) -> None:
    """Nor does a statement, without its examples, occur twice with the same way of asking."""
    texts = Counter(p.problem.description for split in problems.values() for p in split)
    assert max(texts.values()) == 1


def test_solved_problems_use_every_operation_and_reduction() -> None:
    """Whatever a test problem asks for, some solved training problem shows how to do."""
    names = {name for pipeline, _ in miniapps._solved_pipelines(SMALL) for name in pipeline.composition}
    assert names == {p.name for d in (LISTS, TEXT) for p in (*d.operations, *d.reductions)}


def test_counts_order_and_difficulty(problems: dict[str, list[LabelledProblem]]) -> None:
    """Solved problems come first, every problem has at least 10 hidden tests and an example that is not among them."""
    assert {split: len(members) for split, members in problems.items()} == {"train": 200, "validation": 40, "test": 60}
    assert [bool(p.solutions) for p in problems["train"]] == [True] * 120 + [False] * 80
    for labelled in (p for split in problems.values() for p in split):
        assert len(set(map(repr, labelled.hidden_tests))) == len(labelled.hidden_tests) >= 10
        assert labelled.problem.example_tests
        assert not set(map(repr, labelled.problem.example_tests)) & set(map(repr, labelled.hidden_tests))
    assert {p.problem.difficulty for p in problems["test"]} == {"introductory", "interview", "competition"}


def test_test_split_does_not_depend_on_the_size_of_training(problems: dict[str, list[LabelledProblem]]) -> None:
    """More training problems leave the test problems as they are, so that figures stay comparable."""
    other = miniapps.generate(SMALL.model_copy(update={"num_solved": 20, "num_unsolved": 5}))
    assert other["test"] == problems["test"]


def test_same_problems_in_another_process() -> None:
    """The problems depend on the seed alone, not on the order of sets in a process."""
    script = (
        "import hashlib; from coderl.problems.miniapps import data as m;"
        "d = m.generate(m.MiniAppsConfig(num_solved=60, num_unsolved=20, num_validation=10, num_test=10));"
        "print(hashlib.sha256(repr(d).encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": s}, capture_output=True, check=True
        ).stdout
        for s in ("1", "2")
    }
    assert len(found) == 1


def test_more_problems_than_the_grammar_has_are_refused() -> None:
    """Asking for too many introductory text problems ends in one clear line, not in an endless search."""
    config = MiniAppsConfig(
        num_solved=0, num_unsolved=0, num_validation=3000, num_test=0, text_share=1, difficulty_weights=(1, 0, 0)
    )
    with pytest.raises(InputError, match="ask for fewer"):
        miniapps.generate(config)


def test_unknown_setting_is_refused() -> None:
    """A misspelt field is an error."""
    with pytest.raises(ValidationError):
        MiniAppsConfig(num_sovled=3)  # pyright: ignore[reportCallIssue]


# ----------------------------------------------------------------------------------------------------------- folders


def test_write_makes_apps_folders(tmp_path: Path) -> None:
    """The folders hold question, tests, metadata, and solutions and starter code where there are any."""
    config = MiniAppsConfig(num_solved=20, num_unsolved=5, num_validation=5, num_test=5)
    miniapps.write(tmp_path / "out", config)
    train = sorted((tmp_path / "out" / "train").iterdir())
    assert [folder.name for folder in train] == [f"{i:04d}" for i in range(25)]
    labelled = miniapps.generate(config)["train"]
    for folder, expected in zip(train, labelled, strict=True):
        tests = json.loads((folder / "input_output.json").read_text())
        assert (folder / "question.txt").read_text() == expected.problem.description
        assert json.loads((folder / "metadata.json").read_text())["difficulty"] == expected.problem.difficulty
        assert tests.get("fn_name") == expected.problem.fn_name
        assert len(tests["inputs"]) == len(tests["outputs"]) == len(expected.hidden_tests)
        assert (folder / "solutions.json").exists() == bool(expected.solutions)
        assert (folder / "starter_code.py").exists() == bool(expected.problem.fn_name)


def test_write_refuses_a_folder_with_other_things(tmp_path: Path) -> None:
    """A non-empty folder is left as it is."""
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not an empty folder"):
        miniapps.write(tmp_path, SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
