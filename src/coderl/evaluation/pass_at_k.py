"""pass@k and n@k: unbiased estimators, averages by difficulty, standard errors and paired intervals.

Letters: N samples of a problem, k of them drawn, n of those submitted; p of the N pass the example tests, and c of
these p the hidden tests too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import numpy as np

ALL = "all"
Fallback = Literal["zero", "draw_from_all"]


# -------------------------------------------------------------------------------------------------- one problem


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Return the chance that at least one of `k` programs, drawn from the samples without replacement, is correct.

    Exact: the quotient of two integers, rounded once.

    Source: Chen et al. 2021, equation 1: 1 - C(n-c, k) / C(n, k).

    Raises:
        ValueError: `k` is more than `num_samples`, or a count is out of range.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@k needs 1 <= k <= num_samples, got k={k} and num_samples={num_samples}")
    if not 0 <= num_correct <= num_samples:
        raise ValueError(f"num_correct={num_correct} is not within 0..num_samples={num_samples}")
    return _any_of(num_samples, num_correct, k)


def n_at_k(
    num_samples: int,
    num_passing_examples: int,
    num_correct_passing_examples: int,
    n: int,
    k: int,
    *,
    num_correct: int | None = None,
    fallback: Fallback = "zero",
) -> float:
    """Return the chance that one of `n` programs is correct, chosen among those of `k` samples that pass the examples.

    The expectation is taken over the k-subsets of the samples and over the choice. All are submitted where fewer than
    `n` of the k pass the examples; where none does, `fallback` says whether nothing is submitted (`zero`) or `n` of the
    k are (`draw_from_all`).

    Source: CodeRL section 4.1 names n@k and gives no estimator. Given that m of the k pass the examples, these are any
        m of the p, and min(n, m) of them are chosen: 1 - C(p-c, min(n, m)) / C(p, min(n, m)); m is hypergeometric.

    Args:
        num_samples: N.
        num_passing_examples: p.
        num_correct_passing_examples: c, those of the p that pass the hidden tests too.
        n: submissions allowed.
        k: samples drawn.
        num_correct: those of the N that pass the hidden tests; only `draw_from_all` needs it.
        fallback: what happens where no sample passes the examples.

    Raises:
        ValueError: not 1 <= n <= k <= num_samples, or the counts contradict each other.
    """
    p, c = num_passing_examples, num_correct_passing_examples
    if num_correct is None and fallback == "draw_from_all":
        raise ValueError("n@k with the fallback draw_from_all needs num_correct")
    correct = c if num_correct is None else num_correct
    if not 1 <= n <= k <= num_samples:
        raise ValueError(f"n@k needs 1 <= n <= k <= num_samples, got n={n}, k={k} and num_samples={num_samples}")
    if not 0 <= c <= min(p, correct) or p > num_samples or correct - c > num_samples - p:
        raise ValueError(f"counts contradict: {num_samples=}, {p=} pass the examples, {c=} of them correct, {correct=}")
    subsets = math.comb(num_samples, k)
    num_enough = subsets  # those with m >= n, which are judged alike
    chance = 0.0
    for m in range(max(0, k - (num_samples - p)), min(p, k, n - 1) + 1):
        ways = math.comb(p, m) * math.comb(num_samples - p, k - m)
        num_enough -= ways
        if m > 0:
            chance += ways / subsets * _any_of(p, c, m)
        elif fallback == "draw_from_all":
            chance += ways / subsets * _any_of(num_samples - p, correct - c, n)
    if num_enough:
        chance += num_enough / subsets * _any_of(p, c, n)
    return min(chance, 1.0)


def ranked_n_at_k(is_correct: Sequence[bool], n: int, k: int) -> float:
    """Return the chance that one of the best `n` of `k` samples is correct, where the samples come best first.

    The expectation is over the k-subsets; each keeps the order. Misses are summed over the place of the n-th program.

    Raises:
        ValueError: not 1 <= n <= k <= number of samples.
    """
    total = len(is_correct)
    if not 1 <= n <= k <= total:
        raise ValueError(f"n@k needs 1 <= n <= k <= num_samples, got n={n}, k={k} and num_samples={total}")
    num_wrong_before = [0, *accumulate(not correct for correct in is_correct)]
    ways_after = _ways_after(total, k - n)
    misses = sum(
        math.comb(num_wrong_before[place], n - 1) * ways_after[place] for place in range(total) if not is_correct[place]
    )
    subsets = math.comb(total, k)
    return (subsets - misses) / subsets


@functools.lru_cache(maxsize=16)
def _ways_after(total: int, chosen: int) -> tuple[int, ...]:
    """In how many ways `chosen` of the samples after each place can be drawn: the same for every problem."""
    return tuple(math.comb(total - place - 1, chosen) for place in range(total))


def _any_of(total: int, good: int, drawn: int) -> float:
    """Return the chance that at least one of `drawn` out of `total` is among the `good`."""
    subsets = math.comb(total, drawn)
    return (subsets - math.comb(total - good, drawn)) / subsets


# -------------------------------------------------------------------------------------------------- many problems


@dataclass(frozen=True, slots=True)
class ProblemCounts:
    """How the samples of one problem fared."""

    problem_id: str
    difficulty: str
    num_samples: int
    """Samples with a verdict; 0 for a problem without results."""
    num_correct: int
    num_passing_examples: int | None = None
    """None where the example tests were not run."""
    num_correct_passing_examples: int | None = None
    num_masked: int = 0
    """Samples without a verdict, because the sandbox failed on them."""
    is_tested: bool = True
    """False for a problem without hidden tests: it has no verdicts, and counts 0."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems."""

    mean: float
    standard_error: float | None
    """Of the mean, over problems; None for fewer than two."""
    num_problems: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Scores by metric and difficulty, and what had to be left out."""

    scores: dict[str, dict[str, Estimate]]
    """Metric (`pass@1`, `1@20 (none passes examples: zero)`) -> difficulty or `all` -> mean."""
    by_problem: dict[str, dict[str, float]]
    """Metric -> problem -> score: what `paired_bootstrap` compares."""
    num_problems: int
    num_untested: int
    """Problems without hidden tests; they count 0."""
    num_missing: int
    """Tested problems without a single verdict; they count 0."""
    num_short: int
    """Problems with fewer verdicts than the largest k: all they have are drawn, which can only lower their score."""
    num_masked: int
    """Samples left out because the sandbox failed on them."""


def summarise(
    counts: Iterable[ProblemCounts],
    ks: Sequence[int],
    n_at_ks: Sequence[tuple[int, int]] = (),
    *,
    fallback: Fallback = "zero",
) -> Summary:
    """Return pass@k for every k of `ks` and n@k for every (n, k), as means by difficulty and over all problems.

    Raises:
        ValueError: two counts are of one problem, or n@k is asked without example outcomes.
    """
    problems = list(counts)
    if len({c.problem_id for c in problems}) != len(problems):
        raise ValueError("two of the counts given to summarise are of one problem")
    by_problem: dict[str, dict[str, float]] = {}
    for k in ks:
        by_problem[f"pass@{k}"] = {c.problem_id: _pass_score(c, k) for c in problems}
    for n, k in n_at_ks:
        scores = {c.problem_id: _n_at_k_score(c, n, k, fallback) for c in problems}
        by_problem[n_at_k_name(n, k, fallback)] = scores
    difficulties = {c.problem_id: c.difficulty for c in problems}
    largest = max([*ks, *(k for _, k in n_at_ks)], default=0)
    return Summary(
        scores={metric: average(scores, difficulties) for metric, scores in by_problem.items()},
        by_problem=by_problem,
        num_problems=len(problems),
        num_untested=sum(not c.is_tested for c in problems),
        num_missing=sum(c.is_tested and c.num_samples == 0 for c in problems),
        num_short=sum(0 < c.num_samples < largest for c in problems),
        num_masked=sum(c.num_masked for c in problems),
    )


def with_metric(summary: Summary, name: str, other: Summary, metric: str = "pass@1") -> Summary:
    """Return `summary` with one more metric: `metric` of `other`, called `name` (the greedy programs' pass@1, say)."""
    return replace(
        summary,
        scores={**summary.scores, name: other.scores[metric]},
        by_problem={**summary.by_problem, name: other.by_problem[metric]},
    )


def with_ranked(
    summary: Summary,
    rankings: Mapping[str, Sequence[tuple[bool, bool]]],
    difficulties: Mapping[str, str],
    n: int,
    k: int,
    *,
    fallback: Fallback = "zero",
) -> Summary:
    """Return `summary` with n@k of ranked programs: the best `n` of `k` are submitted, in place of any n that pass.

    The order is that of all samples; a subset of k keeps it. With `zero` a program that fails the examples is never
    submitted, with `draw_from_all` it may be, after those that pass. A problem with fewer programs has all drawn.

    Args:
        summary: of the same problems.
        rankings: problem -> (passes the example tests, is correct) of its programs, best first.
        difficulties: of every problem of the summary.
        n: submissions allowed.
        k: samples drawn.
        fallback: what happens where no sample passes the examples.
    """
    scores = {}
    for problem_id in difficulties:
        good = [right and (passes or fallback == "draw_from_all") for passes, right in rankings.get(problem_id, ())]
        drawn = min(k, len(good))
        scores[problem_id] = ranked_n_at_k(good, min(n, drawn), drawn) if drawn else 0.0
    name = n_at_k_name(n, k, fallback).replace(" (", " ranked (")
    return replace(
        summary,
        scores={**summary.scores, name: average(scores, difficulties)},
        by_problem={**summary.by_problem, name: scores},
    )


def n_at_k_name(n: int, k: int, fallback: Fallback) -> str:
    """Return the name of an n@k metric, which says what happens where no sample passes the examples."""
    return f"{n}@{k} (none passes examples: {fallback.replace('_', ' ')})"


def _pass_score(counts: ProblemCounts, k: int) -> float:
    if counts.num_samples == 0:
        return 0.0
    return pass_at_k(counts.num_samples, counts.num_correct, min(k, counts.num_samples))


def _n_at_k_score(counts: ProblemCounts, n: int, k: int, fallback: Fallback) -> float:
    if counts.num_samples == 0:
        return 0.0
    if counts.num_passing_examples is None or counts.num_correct_passing_examples is None:
        raise ValueError(f"{n}@{k} needs the example outcomes of problem {counts.problem_id}, and it has none")
    drawn = min(k, counts.num_samples)
    return n_at_k(
        counts.num_samples,
        counts.num_passing_examples,
        counts.num_correct_passing_examples,
        min(n, drawn),
        drawn,
        num_correct=counts.num_correct,
        fallback=fallback,
    )


def average(scores: Mapping[str, float], difficulties: Mapping[str, str]) -> dict[str, Estimate]:
    """Return the mean score of each difficulty, in the order met, and of `all`: every problem weighs the same.

    On APPS test, `all` = 0.2 introductory + 0.6 interview + 0.2 competition.
    """
    groups: dict[str, list[float]] = {}
    for problem_id, score in scores.items():
        groups.setdefault(difficulties[problem_id], []).append(score)
    groups[ALL] = list(scores.values())
    return {name: estimate(values) for name, values in groups.items()}


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of one value a problem, with its standard error (sample standard deviation over root P)."""
    if not values:
        return Estimate(0.0, None, 0)
    array = np.asarray(values, dtype=np.float64)
    error = float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else None
    return Estimate(float(array.mean()), error, len(array))


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference and where it lies with the confidence asked for."""

    mean: float
    low: float
    high: float


def paired_bootstrap(
    a: Mapping[str, float],
    b: Mapping[str, float],
    *,
    seed: int,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
) -> Interval:
    """Return the mean of `a - b` over problems with its percentile interval; problems are drawn with replacement.

    Each mapping goes from a problem to its score. The pairing takes the difficulty of the problems out of the interval.

    Raises:
        ValueError: the two are not of the same problems, or of none.
    """
    if a.keys() != b.keys() or not a:
        only = sorted(a.keys() ^ b.keys())
        raise ValueError(f"paired_bootstrap needs the same problems on both sides, at least one; unpaired: {only[:5]}")
    differences = np.asarray([a[problem_id] - b[problem_id] for problem_id in a], dtype=np.float64)
    rng = np.random.default_rng(seed)
    size = len(differences)
    means = np.empty(num_resamples)
    for start in range(0, num_resamples, 1000):
        rows = min(1000, num_resamples - start)
        means[start : start + rows] = differences[rng.integers(0, size, (rows, size))].mean(axis=1)
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(means, [tail, 100.0 - tail])
    return Interval(float(differences.mean()), float(low), float(high))
