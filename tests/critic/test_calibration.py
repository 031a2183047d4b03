"""Accuracy, AUROC and calibration error, by hand and by brute force."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coderl.critic import calibration
from coderl.types import Outcome, Score


def brute_auroc(scores, positives):
    pairs = [
        (p, n)
        for p, a in zip(scores, positives, strict=True)
        if a
        for n, b in zip(scores, positives, strict=True)
        if not b
    ]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs) if pairs else math.nan


def test_auroc_by_hand():
    """Positives 0.9 and 0.4 against negatives 0.5 and 0.4: of four pairs 2 won, 1 lost, 1 tied."""
    assert calibration.auroc([0.9, 0.4, 0.5, 0.4], [True, True, False, False]) == (2 + 0.5) / 4


@given(st.lists(st.tuples(st.integers(0, 4).map(float), st.booleans()), max_size=30))
def test_auroc_by_brute_force(rows):
    scores, positives = [s for s, _ in rows], [p for _, p in rows]
    found, expected = calibration.auroc(scores, positives), brute_auroc(scores, positives)
    assert found == pytest.approx(expected, nan_ok=True)


def test_auroc_without_both_kinds_is_nan():
    assert math.isnan(calibration.auroc([0.1, 0.2], [True, True]))
    assert math.isnan(calibration.auroc([], []))


def test_accuracy_and_majority():
    probs = [(0.7, 0.3), (0.2, 0.8), (0.6, 0.4)]
    assert calibration.accuracy(probs, [0, 0, 0]) == pytest.approx(2 / 3)
    assert calibration.majority_accuracy([3, 3, 1, 0]) == 0.5
    assert math.isnan(calibration.accuracy([], []))
    assert math.isnan(calibration.majority_accuracy([]))


def test_calibration_error_by_hand():
    """Two bins: 0.1 and 0.3 with one true (gap 0.3, weight 2/3); 1.0 with one true (gap 0)."""
    found = calibration.expected_calibration_error([0.1, 0.3, 1.0], [True, False, True], num_bins=2)
    assert found == pytest.approx(2 / 3 * 0.3)


def test_always_saying_the_base_rate_is_calibrated():
    assert calibration.expected_calibration_error([0.25] * 4, [True, False, False, False]) == pytest.approx(0.0)


def test_reliability_bins_hold_every_prediction_once():
    bins = calibration.reliability([0.0, 0.05, 0.55, 1.0], [False, True, True, True], num_bins=10)
    assert [b.count for b in bins] == [2, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert (bins[0].lower, bins[0].upper, bins[0].share_true) == (0.0, 0.1, 0.5)
    assert bins[0].mean_predicted == pytest.approx(0.025)
    assert (bins[1].mean_predicted, bins[1].share_true) == (0.0, 0.0)


def score(*prefix_values):
    rows = tuple((1 - v, v) for v in prefix_values)
    return Score(rows[-1], rows)


def test_prefix_auroc_reads_the_prefix_of_each_share_of_tokens():
    """Of 4, 1 and 2 tokens, 25% (rounded up) is token 1, 1, 1; 50% token 2, 1, 1; 75% token 3, 1, 2."""
    scores = [score(0.1, 0.5, 0.7, 0.9), score(0.2), score(0.3, 0.6)]
    passed = [True, False, False]
    assert calibration.prefix_auroc(scores, passed) == (0.0, 1.0, 1.0, 1.0)
    assert calibration.prefix_auroc(scores, [True, False, True]) == (0.5, 1.0, 1.0, 1.0)


def test_report():
    scores = [
        Score((0.1, 0.2, 0.3, 0.4), ((0.1, 0.2, 0.3, 0.4),)),
        Score((0.1, 0.2, 0.6, 0.1), ((0.1, 0.2, 0.6, 0.1),)),
        Score((0.1, 0.2, 0.1, 0.6), ((0.1, 0.2, 0.1, 0.6),)),
    ]
    found = calibration.report(scores, [Outcome.PASSED_TEST, Outcome.FAILED_TEST, Outcome.RUNTIME_ERROR])
    assert found.num_programs == 3
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.majority_accuracy == pytest.approx(1 / 3)
    assert found.auroc == 0.5
    assert found.confusion == ((0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0), (0, 0, 0, 1))
    assert found.prefix_auroc == (0.5,) * 4
    assert found.calibration_error == pytest.approx((0.1 + 0.6 + 0.6) / 3)


def test_a_binary_critics_report():
    found = calibration.report([score(0.9), score(0.2)], [Outcome.PASSED_TEST, Outcome.COMPILE_ERROR])
    assert (found.accuracy, found.auroc, found.confusion) == (1.0, 1.0, ((1, 0), (0, 1)))


def nll(logits, labels, temperature):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        exps = [math.exp(z / temperature) for z in row]
        total -= math.log(exps[label] / sum(exps))
    return total


def test_temperature_by_hand():
    """Logit difference 2, right three times of four: sigma(2 / T) = 3/4, so T = 2 / log 3."""
    rows = [(0.0, 2.0)] * 4
    assert calibration.fit_temperature(rows, [1, 1, 1, 0]) == pytest.approx(2 / math.log(3), rel=1e-3)
    assert calibration.fit_temperature(rows[:2], [1, 0], weights=[3.0, 1.0]) == pytest.approx(2 / math.log(3), rel=1e-3)
    assert calibration.fit_temperature([], []) == 1.0


def test_temperature_by_brute_force():
    rows = [(0.3 * i % 2.0, 0.7 * i % 3.0, 1.1 * i % 1.7) for i in range(40)]
    labels = [max(range(3), key=row.__getitem__) if i % 3 else i % 2 for i, row in enumerate(rows)]
    best = min((0.1 * 1.01**k for k in range(460)), key=lambda t: nll(rows, labels, t))
    assert calibration.fit_temperature(rows, labels) == pytest.approx(best, rel=0.02)


def test_right_and_certain_or_always_wrong_ends_at_the_bounds():
    assert calibration.fit_temperature([(0.0, 1.0)], [1]) == pytest.approx(0.1, rel=1e-3)
    assert calibration.fit_temperature([(0.0, 1.0)], [0]) == pytest.approx(10.0, rel=1e-3)
