"""Equal budgets and anytime curves, added up by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from coderl import tables
from coderl.critic_sampling import anytime
from coderl.critic_sampling.anytime import METRICS, Arm, as_candidates
from coderl.critic_sampling.candidates import NOT_IN_TABLES, Candidate, Fork
from coderl.critic_sampling.ranking import RANKED, Ranking
from coderl.evaluation.counts import CLOCKS, JUDGED
from coderl.stages.search_report import arm_of, budgets_of, candidates_of
from coderl.types import Outcome, Program, ProgramKind, Verdict

PASS, FAIL = Outcome.PASSED_TEST, Outcome.FAILED_TEST
SAMPLE, REPAIRED, REFINED = ProgramKind.SAMPLE, ProgramKind.REPAIRED, ProgramKind.REFINED
BRANCHED = ProgramKind.BRANCHED


def candidate(index, num_tokens, passes, kind=SAMPLE, parent=None, prefix=0, value=None, problem="p"):
    program = Program(problem, index, f"code {index}", kind, tokens=(1,) * 10)
    round = {SAMPLE: 0, REPAIRED: 1, REFINED: 2, BRANCHED: 1}[kind]
    return Candidate(program, round, parent, prefix, Verdict(PASS if passes else FAIL), value, num_tokens)


TRIED = [
    candidate(0, 10, False),
    candidate(1, 20, True, value=0.9),
    candidate(2, 30, True, value=0.2),
    candidate(3, 36, True, REFINED, 2, 4, value=0.3),
]
RIGHT = {TRIED[2].program.key, TRIED[3].program.key}
BEHAVIOURS = {TRIED[1].program.key: ("a",), TRIED[2].program.key: ("b",), TRIED[3].program.key: ("b",)}


def arm(**candidates):
    """Return what was tried for each problem; those of the third and fourth place are right, and behave alike."""
    return Arm(candidates, RIGHT, BEHAVIOURS)


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
    assert [METRICS[name](arm(p=TRIED), found) for name in METRICS] == pytest.approx(expected)


def test_budgets_are_those_that_both_sides_have_spent_problem_by_problem():
    short, long = arm(p=TRIED[:2], q=TRIED), arm(p=TRIED, q=TRIED[:3], r=TRIED)
    assert anytime.common_budgets(short, long) == {"p": 20, "q": 30}
    assert anytime.score(arm(p=TRIED, q=TRIED), {"p": 20, "q": 30}, anytime.any_correct) == {"p": 0.0, "q": 1.0}


def test_a_curve_is_the_mean_over_problems():
    found = anytime.curve(arm(p=TRIED, q=TRIED[:1]), [10, 30, 36], anytime.any_correct)
    assert found == [(10.0, 0.0), (30.0, 0.5), (36.0, 0.5)]


def test_contributions_name_the_kind_that_solved_a_problem_first():
    """p is solved by a sample, q by a repair, r never; of the two refined programs one keeps 4 of its parent's 10."""
    q = [candidate(0, 10, False, problem="q"), candidate(1, 20, True, REPAIRED, 0, problem="q")]
    r = [candidate(0, 10, True, problem="r"), candidate(1, 20, True, REFINED, 0, 0, problem="r")]
    found = anytime.contributions(Arm({"p": TRIED, "q": q, "r": r}, {*RIGHT, q[1].program.key}))
    assert {k: v for k, v in found.items() if k.startswith(("solved", "num"))} == {
        "num_problems": 3, "solved_by_sample": 1, "solved_by_repaired": 1, "solved_by_refined": 0,
        "solved_by_branched": 0, "num_branched": 0,
        "num_sample": 5, "num_repaired": 1, "num_refined": 2,
    }  # fmt: skip
    assert (found["prefix_kept_share"], found["mean_prefix_share"]) == (0.5, pytest.approx(0.2))
    assert found["correct_share_refined"] == 0.5


def test_a_branching_search_that_has_found_something_is_not_held_against_plain_samples():
    """Both have drawn 20 tokens of q; p was found after 20, and plain samples have their 36 there."""
    fork = Fork(-1.0, 1, 2, "+", "-")
    found = [candidate(0, 10, False), replace(candidate(1, 20, True, BRANCHED, 0, 4), fork=fork)]
    missed = [candidate(0, 20, False, problem="q")]
    searched, plain = arm(p=found, q=missed), arm(p=TRIED, q=TRIED)
    assert budgets_of(searched, plain) == {"p": 36, "q": 20}
    assert budgets_of(arm(p=found[:1], q=missed), plain) == {"p": 10, "q": 20}


def test_plain_samples_are_a_search_that_ended_with_its_first_round():
    """Tokens add up in the order of the samples; the greedy program is none of them."""
    drawn = [
        Program("p", 1, "b", tokens=(1, 2)),
        Program("p", 0, "a", tokens=(1, 2, 3)),
        Program("p", 0, "g", ProgramKind.BASELINE, tokens=(1,)),
    ]
    found = as_candidates(drawn, {drawn[0].key: Verdict(PASS)})["p"]
    assert [(c.program.code, c.num_tokens_so_far, c.passes) for c in found] == [("a", 3, False), ("b", 5, True)]


def test_an_arm_is_read_from_the_stages_of_its_programs(tmp_path: Path):
    """Of two candidates the first passes the examples, is right and has a value; nothing is known of the second."""
    programs = [Program("p", 0, "a", tokens=(1, 2, 3)), Program("p", 1, "b", tokens=(1, 2))]
    rows = [Candidate(p, 0, None, 0, None, None, spent) for p, spent in zip(programs, (3, 5), strict=True)]
    tables.PartedTable(tmp_path / "candidates", Candidate, without=NOT_IN_TABLES).write(0, rows)
    ranked = [(programs[0].key, Ranking(0, PASS, 0, 1, 0.7))]
    tables.PartedTable(tmp_path / "rank" / "rankings", RANKED).write(0, ranked)
    judged = [(programs[0].key, Verdict(PASS, isolation="strong"))]
    tables.PartedTable(tmp_path / "execute" / "verdicts", JUDGED, without=CLOCKS).write(0, judged)
    found = arm_of(candidates_of(tmp_path), tmp_path / "execute", tmp_path / "rank")
    assert [(c.num_tokens_so_far, c.passes, c.program_value) for c in found.candidates["p"]] == [
        (3, True, 0.7),
        (5, False, None),
    ]
    assert found.correct == {programs[0].key}
    assert found.behaviours == {programs[0].key: ("0",)}
