"""Advantages, targets and running records against numbers worked by hand."""

import math

import pytest

from coderl.rl.advantages import Record, explained_variance, gae, lambda_targets


def test_gae_by_hand():
    """V = 0.5, 0.6, 0.2; r = 1. d_1 = 0.1, d_2 = 1 - 0.6 = 0.4; with decay 0.5 A_2 = 0.4, A_1 = 0.1 + 0.2."""
    assert gae([0.5, 0.6, 0.2], 1.0, decay=0.5) == pytest.approx([0.3, 0.4])


def test_gae_at_decay_one_is_the_return_minus_the_value_before():
    values = [0.3, 0.9, 0.1, 0.7, 0.0]
    assert gae(values, -0.6, decay=1.0) == pytest.approx([-0.6 - v for v in values[:4]])


def test_gae_at_decay_zero_is_what_each_token_changed():
    assert gae([0.5, 0.6, 0.2], 1.0, decay=0.0) == pytest.approx([0.1, 0.4])


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.95, 1.0])
def test_gae_is_the_sum_of_its_definition(decay):
    values, final = [0.2, 0.5, 0.4, 0.9, 0.8], 0.25
    deltas = [b - a for a, b in zip(values, [*values[1:4], final], strict=False)]
    brute = [sum(decay**k * deltas[t + k] for k in range(len(deltas) - t)) for t in range(len(deltas))]
    assert gae(values, final, decay=decay) == pytest.approx(brute)


def test_targets_at_decay_one_are_the_outcome():
    assert lambda_targets([(0.9, 0.1)] * 4, (0.0, 1.0), decay=1.0) == [(0.0, 1.0)] * 4


def test_targets_by_hand():
    """T = 3, decay 0.5: G_3 = G_2 = (0, 1); G_1 = 0.5 p_2 + 0.5 G_2; G_0 = 0.5 p_1 + 0.5 G_1."""
    probs = [(0.5, 0.5), (0.6, 0.4), (0.2, 0.8), (0.9, 0.1)]
    found = lambda_targets(probs, (0.0, 1.0), decay=0.5)
    assert found[3] == found[2] == (0.0, 1.0)
    assert found[1] == pytest.approx((0.1, 0.9))
    assert found[0] == pytest.approx((0.35, 0.65))


def test_explained_variance():
    """Returns 0, 1 vary by 0.25; residuals -0.25, 0.25 by 0.0625."""
    assert explained_variance([0.25, 0.75], [0.0, 1.0]) == pytest.approx(0.75)
    assert explained_variance([0.5, 0.5], [0.0, 1.0]) == 0
    assert math.isnan(explained_variance([0.1, 0.2], [1.0, 1.0]))


def test_a_record_forgets():
    """Four programs, one right; then, remembered by half, four of which all are right: (2 * 0.25 + 4) / 6."""
    first = Record().after([True, False, False, False], [1.0, 0.0, 0.0, 0.0], memory=0.5)
    assert (first.weight, first.pass_rate, first.mean_return) == (4, 0.25, 0.25)
    second = first.after([True] * 4, [0.5] * 4, memory=0.5)
    assert (second.weight, second.pass_rate) == (6, pytest.approx(0.75))
    assert second.mean_return == pytest.approx((2 * 0.25 + 4 * 0.5) / 6)


def test_an_unseen_problem_is_the_most_uncertain():
    """Unseen: p = 1/2. Eight failures: p = 0.5 / 9, so sqrt(p (1 - p)) = sqrt(8.5 * 0.5) / 9."""
    failed = Record(8.0, 0.0, 0.0)
    assert Record().uncertainty == 0.5
    assert failed.uncertainty == pytest.approx(math.sqrt(8.5 * 0.5) / 9)
    assert Record(8.0, 1.0, 1.0).uncertainty == pytest.approx(failed.uncertainty)
    assert Record(8.0, 0.5, 0.5).uncertainty == pytest.approx(0.5)
