"""A judge that learns within problems, on pairs made by hand."""

from math import exp, log

import numpy as np
import pytest

from coderl.critic_sampling.candidates import Candidate, Fork
from coderl.critic_sampling.judge import FEATURES, choose, features, fit
from coderl.types import Outcome, Program, ProgramKind, Verdict


def candidate(index, code, score=None):
    fork = None if score is None else Fork(score, 1, 1, "a", "b")
    return Candidate(Program("p", index, code, ProgramKind.BRANCHED), 0, None, 0, Verdict(Outcome.PASSED_TEST), None,
                     fork=fork)  # fmt: skip


def test_the_features_by_hand():
    """Of three the last two behave alike, so their class has two thirds; the second is twice as long as the first."""
    drawn = [candidate(0, "ab"), candidate(3, "abcd", -1.5), candidate(7, "xy", -2.0)]
    behaviours = {drawn[1].program.key: ("7",), drawn[2].program.key: ("7",)}
    assert features(drawn, behaviours) == pytest.approx(
        np.array([[0, 0, 1 / 3, 0], [log(2), -1.5, 2 / 3, log(2)], [log(3), -2.0, 2 / 3, 0]])
    )


def row(**values):
    return [values.get(name, 0.0) for name in FEATURES]


def test_one_pair_by_hand():
    """One feature that is 1 of the right and 0 of the wrong: the minimum is where 1 / (1 + e^w) = decay w."""
    x = np.array([row(score=1.0), row(score=0.0)])
    weights = fit([(x, np.array([True, False]))], decay=0.1)
    assert 1 / (1 + exp(weights[1])) == pytest.approx(0.1 * weights[1], rel=1e-6)
    assert weights[[0, 2, 3]] == pytest.approx(0)


def test_every_problem_weighs_the_same_however_many_pairs_it_has():
    """A problem of nine pairs and one of one pair disagree about one feature: neither wins."""
    many = np.array([row(score=1.0)] * 3 + [row(score=0.0)] * 3)
    few = np.array([row(score=0.0), row(score=1.0)])
    weights = fit([(many, np.array([True] * 3 + [False] * 3)), (few, np.array([True, False]))])
    assert weights == pytest.approx(np.zeros(len(FEATURES)), abs=1e-9)


def test_what_tells_problems_apart_teaches_nothing():
    """All of one problem are right and all of another wrong, and a feature says so: there is no pair."""
    right, wrong = np.array([row(score=1.0)] * 2), np.array([row(score=-1.0)] * 2)
    weights = fit([(right, np.array([True, True])), (wrong, np.array([False, False]))])
    assert not weights.any()
    assert choose(weights, right) == 0


def test_the_highest_score_is_chosen():
    assert choose(np.array([0, 1.0, 0, 0]), np.array([row(score=-1), row(score=2), row(score=2)])) == 1
