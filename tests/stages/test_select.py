"""Which actor a run keeps."""

import pytest

from coderl import records
from coderl.recipe import SelectionConfig
from coderl.stages.select import SELECTION, Selection, choose


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


def test_rounds_are_judged_kept_and_ended_after_a_drop(tmp_path):
    """Four problems of two programs: shares of 3/8, 5/8, 5/8 and 4/8, the last a drop of 0.125."""
    drawn = [("warm-start", (2, 1, 0, 0)), ("round-00", (2, 2, 1, 0)), ("round-01", (2, 1, 2, 0))]
    selection, seen = Selection(SelectionConfig(max_drop=0.1)), []
    for name, passed in [*drawn, ("round-02", (2, 2, 0, 0))]:
        selection.judge(name, f"actor of {name}", rates(*(number / 2 for number in passed)))
        seen.append((selection.actors[selection.kept], selection.has_dropped))
    # Round 0 leads the last by 0, 0, 0.5, 0: mean 0.125, standard error 0.125: not clear, but a drop.
    names = ("warm-start", "round-00", "round-01", "round-01")
    assert seen == [(f"actor of {name}", name == "round-01" and at == 3) for at, name in enumerate(names)]
    assert selection.line() == "validation: 50.0% of programs pass; kept so far: round-01: a drop, the rounds end"
    selection.write(tmp_path / SELECTION)
    assert records.read_json(tmp_path / SELECTION) == {
        "pass_rates": {"warm-start": 0.375, "round-00": 0.625, "round-01": 0.625, "round-02": 0.5},
        "kept": "round-01",
    }
