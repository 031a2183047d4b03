"""Equal budgets and anytime curves, added up by hand."""

from pathlib import Path

import pytest

from coderl import records
from coderl.critic_sampling import anytime
from coderl.critic_sampling.anytime import METRICS, Attempt
from coderl.critic_sampling.candidates import CandidateRow
from coderl.stages.search_report import of_samples, of_search
from coderl.stages.tables import Ranked, VerdictRow
from coderl.types import (
    Outcome,
    Program,
    ProgramKind,
    Verdict,
)

PASS, FAIL = Outcome.PASSED_TEST, Outcome.FAILED_TEST
SAMPLE, REPAIRED, REFINED = ProgramKind.SAMPLE, ProgramKind.REPAIRED, ProgramKind.REFINED


def attempt(index, num_tokens, passes, right, kind=SAMPLE, parent=None, prefix=0, value=None, behaviour=()):
    program = Program("p", index, f"code {index}", kind, tokens=(1,) * 10)
    round = {SAMPLE: 0, REPAIRED: 1, REFINED: 2}[kind]
    outcome = PASS if passes else FAIL
    return Attempt(program, round, parent, prefix, num_tokens, outcome, right, value, behaviour)


TRIED = [
    attempt(0, 10, False, False),
    attempt(1, 20, True, False, value=0.9, behaviour=("a",)),
    attempt(2, 30, True, True, value=0.2, behaviour=("b",)),
    attempt(3, 36, True, True, REFINED, 2, 4, value=0.3, behaviour=("b",)),
]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (9, [0, 0, 0, 0, 0]),
        (20, [0, 0, 0, 0, 0]),  # one passes the examples, and it is wrong
        (30, [1, 1 / 2, 0, 1, 1]),  # of two that pass one is right; the critic prefers the wrong one
        (36, [1, 2 / 3, 1, 1, 1]),  # two behave alike, and that is the larger class
    ],
)
def test_each_metric_of_what_a_budget_holds(budget, expected):
    found = anytime.within(TRIED, budget)
    assert [METRICS[name](found) for name in METRICS] == pytest.approx(expected)


def test_budgets_are_those_that_both_sides_have_spent_problem_by_problem():
    short = {"p": TRIED[:2], "q": TRIED}
    assert anytime.common_budgets(short, {"p": TRIED, "q": TRIED[:3], "r": TRIED}) == {"p": 20, "q": 30}
    assert anytime.score({"p": TRIED, "q": TRIED}, {"p": 20, "q": 30}, anytime.any_correct) == {"p": 0.0, "q": 1.0}


def test_a_curve_is_the_mean_over_problems():
    found = anytime.curve({"p": TRIED, "q": TRIED[:1]}, [10, 30, 36], anytime.any_correct)
    assert found == [(10.0, 0.0), (30.0, 0.5), (36.0, 0.5)]


def test_contributions_name_the_kind_that_solved_a_problem_first():
    """p is solved by a sample, q by a repair, r never; of the two refined programs one keeps 4 of its parent's 10."""
    attempts = {
        "p": TRIED,
        "q": [attempt(0, 10, False, False), attempt(1, 20, True, True, REPAIRED, 0)],
        "r": [attempt(0, 10, True, False), attempt(1, 20, True, False, REFINED, 0, 0)],
    }
    for name, tried in attempts.items():
        attempts[name] = [
            Attempt(Program(name, a.program.index, "", a.program.kind, a.program.tokens), *[
                getattr(a, f) for f in Attempt.__slots__[1:]
            ])
            for a in tried
        ]  # fmt: skip
    found = anytime.contributions(attempts)
    assert {k: v for k, v in found.items() if k.startswith(("solved", "num"))} == {
        "num_problems": 3, "solved_by_sample": 1, "solved_by_repaired": 1, "solved_by_refined": 0,
        "num_sample": 5, "num_repaired": 1, "num_refined": 2,
    }  # fmt: skip
    assert (found["prefix_kept_share"], found["mean_prefix_share"]) == (0.5, pytest.approx(0.2))
    assert found["correct_share_refined"] == 0.5


def test_searches_and_samples_are_read_from_their_stages(tmp_path: Path):
    """Of two samples of 3 and 2 tokens the first passes the examples and is right; the second has no verdict."""
    rows = [Program("p", 0, "a", tokens=(1, 2, 3)), Program("p", 1, "b", tokens=(1, 2))]
    records.PartedTable(tmp_path / "programs", Program).write(0, [*rows, Program("p", 0, "g", ProgramKind.BASELINE)])
    ranked = [
        Ranked("p", SAMPLE, 1, 0, FAIL, None, 1, None),
        Ranked("p", SAMPLE, 0, 1, PASS, 0, 1, 0.7),
    ]
    records.PartedTable(tmp_path / "rank" / "rankings", Ranked).write(0, ranked)
    verdicts = {("p", "sample", 0): VerdictRow.of(rows[0], Verdict(PASS))}
    found = of_samples(tmp_path, verdicts, tmp_path / "rank")["p"]
    assert [(a.num_tokens, a.passes, a.is_correct, a.behaviour) for a in found] == [
        (3, True, True, ("0",)),
        (5, False, False, ()),
    ]
    candidates = [
        CandidateRow("p", i, r.code, SAMPLE, r.tokens, 0, None, 0, PASS, None, 0.5, True, spent, 1)
        for i, (r, spent) in enumerate(zip(rows, (3, 5), strict=True))
    ]
    records.PartedTable(tmp_path / "candidates", CandidateRow).write(0, candidates)
    searched = of_search(tmp_path, verdicts, tmp_path / "rank")["p"]
    assert [(a.num_tokens, a.passes, a.is_correct, a.program_value) for a in searched] == [
        (3, True, True, 0.7),
        (5, True, False, None),
    ]
    assert [a.program_value for a in of_search(tmp_path, verdicts)["p"]] == [0.5, 0.5]
