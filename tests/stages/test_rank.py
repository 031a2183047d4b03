"""The order of submission as a stage: it resumes, and reads no hidden test."""

from pathlib import Path

import pytest

from coderl import tables
from coderl.critic_sampling.ranking import RANKED, rankings
from coderl.evaluation.counts import JUDGED
from coderl.execution import ExecutionConfig
from coderl.stages import rank as stage
from coderl.stages.console import Reporter
from coderl.types import (
    LabelledProblem,
    Outcome,
    Problem,
    Program,
    ProgramKind,
    StdinTest,
    Verdict,
)

PROBLEMS = [
    Problem("a", "Print the largest.", example_tests=(StdinTest("1 3\n", "3\n"),)),
    Problem("b", "No example."),
]
LARGEST, LAST, SUM = (f"print({of}(map(int, input().split())))" for of in ("max", "(lambda x: list(x)[-1])", "sum"))
SORTED = "print(sorted(map(int, input().split()))[-1])"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Two programs that are the largest, one that is the last number, a wrong one, and one of another problem."""
    rows = [Program("a", i, code) for i, code in enumerate((LAST, LARGEST, SUM, SORTED))]
    rows += [Program("b", 0, "print(1)"), Program("a", 0, SUM, ProgramKind.BASELINE)]
    tables.PartedTable(tmp_path / "sample" / "programs", Program).write(0, rows)
    return tmp_path / "sample"


@pytest.fixture(autouse=True)
def _a_problem_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "CHUNK_SIZE", 1)


def rank(out: Path, programs: Path, problems: list[Problem]) -> list:
    """Return (key, ranking) rows."""
    how = {"num_inputs": 6, "execution": ExecutionConfig(num_workers=1)}
    stage.rank(out, programs=programs, problems=problems, reporter=Reporter(quiet=True), **how)
    return list(tables.read_table(out / "rankings", RANKED))


def test_programs_that_behave_alike_come_first(programs: Path, tmp_path: Path):
    """Of the three that pass the example, two do the same elsewhere too; the shorter of these is first."""
    found = rank(tmp_path / "rank", programs, PROBLEMS)
    assert [key.index for key, _ in found if key.problem_id == "a"] == [1, 0, 3, 2]
    assert [row.class_size for key, row in found if key.problem_id == "a"] == [2, 1, 2, 1]
    assert [(row.example_outcome, row.place) for key, row in found if key.problem_id == "b"] == [(None, 0)]
    outcomes = (Outcome.FAILED_TEST, Outcome.PASSED_TEST, Outcome.FAILED_TEST, Outcome.PASSED_TEST)
    verdicts = [(Program("a", i, "").key, Verdict(u)) for i, u in enumerate(outcomes)]
    tables.PartedTable(tmp_path / "execute" / "verdicts", JUDGED).write(0, verdicts)
    assert rankings(tmp_path / "rank", tmp_path / "execute", ["c", "b", "a"]) == {
        "c": [], "b": [], "a": [(True, True), (True, False), (True, True), (False, False)]
    }  # fmt: skip


def test_a_killed_ranking_goes_on_and_gives_the_same(programs: Path, tmp_path: Path):
    whole = rank(tmp_path / "whole", programs, PROBLEMS)
    rank(tmp_path / "killed", programs, PROBLEMS)
    (tmp_path / "killed" / "rankings" / "part-000001.parquet").unlink()
    assert rank(tmp_path / "killed", programs, PROBLEMS) == whole


def test_problems_with_hidden_tests_are_a_type_error(programs: Path, tmp_path: Path):
    with pytest.raises(TypeError):
        rank(tmp_path / "rank", programs, [LabelledProblem(PROBLEMS[0])])  # type: ignore[list-item]
