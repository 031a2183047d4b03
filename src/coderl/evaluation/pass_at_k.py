"""pass@k and n@k: unbiased estimators, averages by difficulty, and intervals that hold for few problems too.

Letters: N samples of a problem, k of them drawn, n of those submitted; p of the N pass the example tests, and c of
these p the hidden tests too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from statistics import NormalDist, fmean
from typing import Literal

ALL = "all"
Fallback = Literal["zero", "draw_from_all"]
Rankings = Mapping[str, Sequence[tuple[bool, bool]]]
"""Problem -> (passes the example tests, is correct) of its programs, best first."""
_Z = NormalDist().inv_cdf(0.975)
"""Half the width of a 95% interval, in standard errors."""


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

    @property
    def num_programs(self) -> int:
        """Samples with or without a verdict: what the problem holds."""
        return self.num_samples + self.num_masked

    def __add__(self, other: ProblemCounts) -> ProblemCounts:
        """Return the counts of both draws of one problem as those of one draw."""
        assert self.problem_id == other.problem_id, (self.problem_id, other.problem_id)
        both = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if "num_" in f.name}
        return replace(self, **{name: None if None in pair else sum(pair) for name, pair in both.items()})


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems, or a mean difference, and where it lies with 95% confidence."""

    mean: float
    low: float
    high: float
    num_problems: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Scores by metric and difficulty, and what had to be left out."""

    scores: dict[str, dict[str, Estimate]]
    """Metric (`pass@1`, `1@20 (none passes examples: zero)`) -> difficulty or `all` -> mean."""
    by_problem: dict[str, dict[str, float]]
    """Metric -> problem -> score: what `paired_difference` compares."""
    num_problems: int
    num_untested: int
    """Problems without hidden tests; they count 0."""
    num_missing: int
    """Tested problems without a single verdict; they count 0."""
    num_masked: int
    """Samples left out because the sandbox failed on them."""
    num_programs: tuple[int, float, int] = (0, 0.0, 0)
    """Fewest, mean and most programs of a tested problem."""
    unreached: tuple[str, ...] = ()
    """A sentence for each k that was asked and not computed, since some problem holds fewer than k programs."""

    @property
    def size(self) -> str:
        """How many programs a problem holds, in words."""
        fewest, mean, most = self.num_programs
        if fewest == most:
            return f"{most:,} program{'' if most == 1 else 's'}"
        return f"{fewest:,} to {most:,} programs, {mean:,.1f} in the mean"

    def remarks(self) -> list[str]:
        """Return what was left out, a sentence each."""
        counted = (
            (self.num_untested, "problem(s) without hidden tests, counted 0"),
            (self.num_missing, "problem(s) without a verdict, counted 0"),
            (self.num_masked, "program(s) left out because the sandbox failed"),
        )
        return [*self.unreached, *(f"{number:,} {text}" for number, text in counted if number)]


def summarise(
    counts: Iterable[ProblemCounts],
    ks: Sequence[int],
    n_at_ks: Sequence[tuple[int, int]] = (),
    *,
    fallback: Fallback = "zero",
    rankings: Rankings | None = None,
) -> Summary:
    """Return pass@k for every k of `ks` and n@k for every (n, k), as means by difficulty and over all problems.

    A k is left out, and `unreached` says so, where a problem holds some programs but fewer than k. Where only faults of
    the sandbox leave fewer verdicts, all there are count, which can only lower a score, and the metric's name says so.

    Args:
        counts: one a problem.
        ks: of pass@k.
        n_at_ks: of n@k: of any n that pass the examples, and with `rankings` also of the best ranked.
        fallback: what n@k counts where no sample passes the examples.
        rankings: order the programs for n@k. The order is that of all samples; a subset of k keeps it. With `zero` a
            program that fails the examples is never submitted, with `draw_from_all` it may be, after those that pass.

    Raises:
        ValueError: two counts are of one problem, or n@k is asked without example outcomes and without rankings.
    """
    problems = list(counts)
    difficulties = {c.problem_id: c.difficulty for c in problems}
    if len(difficulties) != len(problems):
        raise ValueError("two of the counts given to summarise are of one problem")
    asked = dict.fromkeys([*ks, *(k for _, k in n_at_ks)])
    unreached = {k: line for k in asked if (line := _unreached(problems, k))}
    rankings, has_rankings = rankings or {}, rankings is not None
    by_problem: dict[str, dict[str, float]] = {}

    def add(label: str, k: int, score: Callable[[ProblemCounts], float], notes: Sequence[str] = ()) -> None:
        held = (len(rankings.get(c.problem_id, ())) if "ranked" in label else c.num_samples for c in problems)
        short = sum(0 < number < k for number in held)
        notes = [*notes, *([f"{short} with fewer verdicts"] if short else [])]
        name = f"{label} ({'; '.join(notes)})" if notes else label
        by_problem[name] = {c.problem_id: score(c) if c.num_samples else 0.0 for c in problems}

    for k in (k for k in ks if k not in unreached):
        add(f"pass@{k}", k, lambda c, k=k: pass_at_k(c.num_samples, c.num_correct, min(k, c.num_samples)))
    note = (f"none passes examples: {fallback.replace('_', ' ')}",)
    for n, k in (pair for pair in n_at_ks if pair[1] not in unreached):
        if not has_rankings or all(c.num_passing_examples is not None for c in problems):
            add(f"{n}@{k}", k, lambda c, n=n, k=k: _n_at_k_score(c, n, k, fallback), note)
        if has_rankings:
            add(f"{n}@{k} ranked", k, lambda c, n=n, k=k: _ranked_score(rankings, c, n, k, fallback), note)
    held = [c.num_programs for c in problems if c.is_tested]
    return Summary(
        scores={metric: average(scores, difficulties) for metric, scores in by_problem.items()},
        by_problem=by_problem,
        num_problems=len(problems),
        num_untested=sum(not c.is_tested for c in problems),
        num_missing=sum(c.is_tested and c.num_samples == 0 for c in problems),
        num_masked=sum(c.num_masked for c in problems),
        num_programs=(min(held), fmean(held), max(held)) if held else (0, 0.0, 0),
        unreached=tuple(unreached.values()),
    )


def _unreached(problems: Sequence[ProblemCounts], k: int) -> str:
    """Return why a k is left out; nothing where every problem that holds programs holds k."""
    held = [c.num_programs for c in problems if c.num_programs]
    fewer = [number for number in held if number < k]
    if not fewer:
        return ""
    return f"k={k} is left out: {len(fewer):,} of {len(held):,} problems hold fewer programs, the fewest {min(fewer):,}"


def _n_at_k_score(counts: ProblemCounts, n: int, k: int, fallback: Fallback) -> float:
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


def _ranked_score(rankings: Rankings, counts: ProblemCounts, n: int, k: int, fallback: Fallback) -> float:
    ranked = rankings.get(counts.problem_id, ())
    good = [is_right and (passes or fallback == "draw_from_all") for passes, is_right in ranked]
    drawn = min(k, len(good))
    return ranked_n_at_k(good, min(n, drawn), drawn) if drawn else 0.0


def average(scores: Mapping[str, float], difficulties: Mapping[str, str]) -> dict[str, Estimate]:
    """Return the mean score of each difficulty, in the order met, and of `all`: every problem weighs the same.

    On APPS test, `all` = 0.2 introductory + 0.6 interview + 0.2 competition.
    """
    groups: dict[str, list[float]] = {}
    for problem_id, score in scores.items():
        groups.setdefault(difficulties[problem_id], []).append(score)
    groups[ALL] = list(scores.values())
    return {name: estimate(values) for name, values in groups.items()}


def columns_of(difficulties: Iterable[str]) -> list[str]:
    """Return `all` and then the difficulties, in the order met; `all` alone where there is a single difficulty."""
    names = [name for name in dict.fromkeys(difficulties) if name != ALL]
    return [ALL, *names] if len(names) > 1 else [ALL]


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of one share a problem, with an interval that is right for few problems too.

    Source: Wilson 1927; of 0/1 values it is his. Shares spread less: the number of problems is divided by their
        dispersion, the variance over p(1-p), as in surveys (Franco et al. 2019). Ours: two more problems of the most
        dispersion are added for it, since a few problems may happen to be alike.

    Raises:
        ValueError: a value is not within 0..1.
    """
    if outside := [value for value in values if not 0 <= value <= 1]:
        raise ValueError(f"a share is within 0..1, got {outside[0]}")
    if not values:
        return Estimate(0.0, 0.0, 1.0, 0)
    mean, count = fmean(values), len(values)
    most = mean * (1 - mean)
    dispersion = (sum((v - mean) ** 2 for v in values) / most + 2) / (count + 2) if most > 0 else 1.0
    weight = _Z**2 * dispersion / count
    centre = (mean + weight / 2) / (1 + weight)
    half = math.sqrt(weight * most + weight**2 / 4) / (1 + weight)
    return Estimate(mean, max(0.0, centre - half), min(1.0, centre + half), count)


def paired_difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Estimate:
    """Return the mean of `ours - theirs` over problems; the pairing takes their difficulty out of the interval.

    Source: Agresti and Min 2005: two more pairs, of which half a one is +1 and half a one -1. Ours: for shares too.

    Args:
        ours: problem -> score within 0..1.
        theirs: of the same problems.

    Raises:
        ValueError: the two are not of the same problems, or of none.
    """
    if ours.keys() != theirs.keys() or not ours:
        only = sorted(ours.keys() ^ theirs.keys())
        raise ValueError(f"paired_difference needs the same problems on both sides, at least one; unpaired: {only[:5]}")
    differences = [ours[problem_id] - theirs[problem_id] for problem_id in ours]
    count = len(differences) + 2
    centre = sum(differences) / count
    half = _Z * math.sqrt(((sum(d * d for d in differences) + 1) / count - centre**2) / count)
    return Estimate(fmean(differences), max(-1.0, centre - half), min(1.0, centre + half), len(differences))


def percent(found: Estimate | None, digits: int = 1) -> str:
    """Return `62.5 (47.0 to 75.8)`: a mean in percent and its 95% interval; a dash for none."""
    if found is None:
        return "\N{EN DASH}"
    mean, low, high = (f"{100 * value:.{digits}f}" for value in (found.mean, found.low, found.high))
    return f"{mean} ({low} to {high})"
