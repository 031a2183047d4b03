"""Which actor a run keeps."""

import pytest

from coderl.recipe import RunConfig
from coderl.stages import select as selection
from coderl.stages.console import Reporter
from coderl.stages.select import Selection, choose
from coderl.stages.tables import VerdictRow
from coderl.types import (
    LabelledProblem,
    Outcome,
    Problem,
    Program,
    ProgramKind,
    StdinTest,
)


def rates(*values):
    """Return the rates of problems 0, 1, ..."""
    return {str(i): float(value) for i, value in enumerate(values)}


@pytest.mark.parametrize(
    ("warm", "first", "second", "kept"),
    [
        # Lead of the first: 1, 0, 0, 0: mean 0.25, standard error 0.5 / 2 = 0.25; not more, so the later one.
        (rates(0, 0, 0, 0), rates(1, 1, 0, 0), rates(0, 1, 0, 0), "second"),
        # Lead 1, 1, 0, 0: mean 0.5, standard deviation root(1/3), its error 0.289: clear.
        (rates(0, 0, 0, 0), rates(1, 1, 1, 0), rates(0, 0, 1, 0), "first"),
        # What counts is the difference of each problem: 0.01 everywhere has no spread, and is clear.
        (rates(0, 0, 0, 0), rates(0.01, 0.51, 1, 0.21), rates(0, 0.5, 0.99, 0.2), "first"),
        (rates(0, 0, 0, 0), rates(0, 1, 0, 0), rates(1, 1, 0, 0), "second"),
        (rates(0, 0, 0, 0), rates(0, 1, 0, 0), rates(0, 1, 0, 0), "second"),
        # A lead that is not clear is none over the warm start: it stays.
        (rates(1, 0, 0, 0), rates(0, 0, 0, 0), rates(0, 0, 0, 0), "warm"),
        (rates(1, 0, 0, 0), rates(0, 1, 0, 0), rates(0, 0, 0, 0), "warm"),
        # A problem without a verdict for one of the two says nothing about them.
        (rates(0, 0, 0), rates(1, 0, 0, 1), rates(1, 0, 0), "second"),
    ],
)
def test_the_last_that_is_not_clearly_worse_than_the_best_is_kept(warm, first, second, kept):
    assert choose({"warm": warm, "first": first, "second": second}) == kept
    assert choose({"warm": warm}) == "warm"


def test_rounds_are_judged_kept_and_ended_after_a_drop(tmp_path, monkeypatch):
    """Four problems of two programs: shares of 3/8, 5/8, 5/8 and 4/8, the last a drop of 0.125."""
    drawn = iter([(2, 1, 0, 0), (2, 2, 1, 0), (2, 1, 2, 0), (2, 2, 0, 0)])
    tables: dict[str, list] = {}

    def execute(out, **options):
        tables["rows"] = [(str(p), i, i < passed) for p, passed in enumerate(next(drawn)) for i in range(2)]

    def programs(folder):
        return [Program(p, i, "") for p, i, _ in tables["rows"]]

    def verdicts(folder):
        outcomes = {True: Outcome.PASSED_TEST, False: Outcome.FAILED_TEST}
        return {
            (p, "sample", i): VerdictRow(p, ProgramKind.SAMPLE, i, outcomes[passed], None, "", None, (), "", None)
            for p, i, passed in tables["rows"]
        }

    monkeypatch.setattr(selection.stages, "sample", lambda *args, **options: None)
    monkeypatch.setattr(selection.stages, "execute", execute)
    monkeypatch.setattr(selection, "programs_of", programs)
    monkeypatch.setattr(selection, "verdicts_of", verdicts)
    problems = [LabelledProblem(Problem(str(i), "Print 1."), hidden_tests=(StdinTest("", "1"),)) for i in range(4)]
    config = RunConfig.model_validate({"rounds": {"selection": {"max_drop": 0.1}}})
    judge = Selection(config, tmp_path, problems, Reporter(quiet=True))
    seen = []
    for actor, folder in [("warm", tmp_path), *[(f"actor {i}", tmp_path / f"round-{i:02d}") for i in range(3)]]:
        judge.judge(actor, folder / "validate")
        seen.append((judge.kept, judge.has_dropped))
    # Round 0 leads the last by 0, 0, 0.5, 0: mean 0.125, standard error 0.125: not clear, but a drop.
    assert seen == [("warm", False), ("actor 0", False), ("actor 1", False), ("actor 1", True)]
    written = selection.records.read_json(tmp_path / selection.SELECTION)
    assert written == {
        "pass_rates": {"warm-start": 0.375, "round-00": 0.625, "round-01": 0.625, "round-02": 0.5},
        "kept": "round-01",
    }


def test_without_selection_nothing_is_judged(tmp_path):
    off = Selection(RunConfig.model_validate({"rounds": {"selection": None}}), tmp_path, [], Reporter(quiet=True))
    off.judge("anything", tmp_path / "validate")
    assert (off.kept, off.has_dropped) == (None, False)
