"""How far a critic can be trusted: accuracy against the majority class, AUROC, calibration, and all that per prefix."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from coderl.critic.columns import outcome_column
from coderl.types import Outcome, Score

PREFIX_FRACTIONS = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The predictions whose confidence falls in one interval."""

    lower: float
    upper: float
    count: int
    mean_predicted: float
    """Mean of the predicted probability; 0 in an empty bin."""
    share_true: float
    """How many of them came true; 0 in an empty bin."""


@dataclass(frozen=True, slots=True)
class CriticReport:
    """A critic on programs of held-out problems."""

    num_programs: int
    accuracy: float
    majority_accuracy: float
    """Of always naming the most frequent outcome: what `accuracy` must beat."""
    auroc: float
    """Of passing; nan where all programs passed or none did."""
    calibration_error: float
    """Expected calibration error of the probability of passing."""
    prefix_auroc: tuple[float, ...]
    """AUROC of passing after each of `PREFIX_FRACTIONS` of the tokens."""
    bins: tuple[ReliabilityBin, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Rows: true outcome; columns: predicted."""


def accuracy(probs: Sequence[Sequence[float]], labels: Sequence[int]) -> float:
    """Return the share of rows whose largest probability stands in the labelled column; nan for no rows."""
    return _share([_argmax(row) == label for row, label in zip(probs, labels, strict=True)])


def majority_accuracy(labels: Sequence[int]) -> float:
    """Return the share of the most frequent label; nan for no labels."""
    return max(Counter(labels).values()) / len(labels) if labels else math.nan


def auroc(scores: Sequence[float], positives: Sequence[bool]) -> float:
    """Return the chance that a random positive scores above a random negative, ties counting half; nan without both.

    By the ranks of the positives (Mann-Whitney U), in O(n log n).
    """
    num_positive = sum(positives)
    num_negative = len(positives) - num_positive
    if not num_positive or not num_negative:
        return math.nan
    order = sorted(range(len(scores)), key=scores.__getitem__)
    rank_sum, start = 0.0, 0
    while start < len(order):
        end = start
        while end < len(order) and scores[order[end]] == scores[order[start]]:
            end += 1
        mean_rank = (start + 1 + end) / 2  # tied scores share the mean of their 1-based ranks
        rank_sum += mean_rank * sum(positives[i] for i in order[start:end])
        start = end
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def reliability(predicted: Sequence[float], came_true: Sequence[bool], *, num_bins: int = 10) -> list[ReliabilityBin]:
    """Return `num_bins` equal intervals of [0, 1] with what was predicted there and what came true."""
    groups: list[list[int]] = [[] for _ in range(num_bins)]
    for i, p in enumerate(predicted):
        groups[min(int(p * num_bins), num_bins - 1)].append(i)
    return [
        ReliabilityBin(
            lower=k / num_bins,
            upper=(k + 1) / num_bins,
            count=len(rows),
            mean_predicted=sum(predicted[i] for i in rows) / len(rows) if rows else 0.0,
            share_true=sum(came_true[i] for i in rows) / len(rows) if rows else 0.0,
        )
        for k, rows in enumerate(groups)
    ]


def expected_calibration_error(predicted: Sequence[float], came_true: Sequence[bool], *, num_bins: int = 10) -> float:
    """Return the mean gap between predicted probability and frequency over the bins, weighted by their counts.

    Source: Naeini et al. 2015. nan for no predictions.
    """
    if not predicted:
        return math.nan
    bins = reliability(predicted, came_true, num_bins=num_bins)
    return sum(b.count * abs(b.mean_predicted - b.share_true) for b in bins) / len(predicted)


def fit_temperature(
    logits: Sequence[Sequence[float]], labels: Sequence[int], *, weights: Sequence[float] | None = None
) -> float:
    """Return the temperature T in [0.1, 10] whose softmax(logits / T) gives the labels the highest likelihood.

    Source: Guo et al. 2017. The loss is convex in 1/T, so a search that narrows its interval finds the minimum; 1 for
    no rows.

    Args:
        logits: one row a program; of problems that the critic was neither trained nor is reported on.
        labels: the true column of each row.
        weights: how much each row counts; 1 by default.
    """
    if not logits:
        return 1.0
    weights = [1.0] * len(labels) if weights is None else weights

    def loss(inverse: float) -> float:
        total = 0.0
        for row, label, weight in zip(logits, labels, weights, strict=True):
            top = max(row)
            total += weight * (math.log(sum(math.exp((z - top) * inverse) for z in row)) - (row[label] - top) * inverse)
        return total

    low, high = 0.1, 10.0
    while high - low > 1e-4 * low:
        third = (high - low) / 3
        if loss(low + third) < loss(high - third):
            high -= third
        else:
            low += third
    return 2 / (low + high)


def prefix_auroc(
    scores: Sequence[Score], passed: Sequence[bool], fractions: Sequence[float] = PREFIX_FRACTIONS
) -> tuple[float, ...]:
    """Return the AUROC of passing by the value of each program's prefix, for each share of its tokens (rounded up)."""
    return tuple(
        auroc([s.prefix_values[math.ceil(fraction * len(s.token_probs)) - 1] for s in scores], passed)
        for fraction in fractions
    )


def report(scores: Sequence[Score], outcomes: Sequence[Outcome], *, num_bins: int = 10) -> CriticReport:
    """Return all figures of a critic on programs whose outcomes are known; give it held-out problems."""
    assert len(scores) == len(outcomes) > 0, (len(scores), len(outcomes))
    num_outcomes = len(scores[0].program_probs)
    probs = [s.program_probs for s in scores]
    labels = [outcome_column(u, num_outcomes) for u in outcomes]
    passed = [u is Outcome.PASSED_TEST for u in outcomes]
    predicted = [s.program_value for s in scores]
    confusion = [[0] * num_outcomes for _ in range(num_outcomes)]
    for row, label in zip(probs, labels, strict=True):
        confusion[label][_argmax(row)] += 1
    return CriticReport(
        num_programs=len(scores),
        accuracy=accuracy(probs, labels),
        majority_accuracy=majority_accuracy(labels),
        auroc=auroc(predicted, passed),
        calibration_error=expected_calibration_error(predicted, passed, num_bins=num_bins),
        prefix_auroc=prefix_auroc(scores, passed),
        bins=tuple(reliability(predicted, passed, num_bins=num_bins)),
        confusion=tuple(tuple(row) for row in confusion),
    )


def _argmax(row: Sequence[float]) -> int:
    return max(range(len(row)), key=row.__getitem__)


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else math.nan
