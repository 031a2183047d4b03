"""Values of prefixes -> advantages of tokens, and what is remembered of each problem: arithmetic on floats.

A program of T tokens has the values V_0..V_T: what is expected of it before its first token, and after each. Its return
arrives with the last token and is not discounted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PRIOR_WEIGHT = 1.0
"""Programs that a problem's prior counts for."""
PRIOR_RATE = 0.5


def gae(values: Sequence[float], final_return: float, *, decay: float) -> list[float]:
    """Return the generalised advantage of each of the T tokens.

    A_t = sum_k decay^k d_(t+k) with d_t = V_t - V_(t-1), and d_T = r - V_(T-1) for the last. `decay` 1 gives
    r - V_(t-1), 0 gives d_t alone.

    Source: Schulman et al. 2016, Eq. 16, with discount 1.

    Args:
        values: V_0..V_T; the last is never looked at, for the return has then arrived.
        final_return: r of the whole program.
        decay: lambda of the actor, in [0, 1].
    """
    advantages: list[float] = []
    advantage, later = 0.0, final_return
    for value in reversed(values[: len(values) - 1]):
        advantage = later - value + decay * advantage
        later = value
        advantages.append(advantage)
    return advantages[::-1]


def lambda_targets(
    probs: Sequence[Sequence[float]], outcome_row: Sequence[float], *, decay: float
) -> list[tuple[float, ...]]:
    """Return what the critic should have predicted at each of the prefixes 0..T, as outcome probabilities.

    G_T and G_(T-1) are the outcome itself; G_t = (1 - decay) p_(t+1) + decay G_(t+1). `decay` 1 is the outcome
    everywhere.

    Source: Sutton and Barto 2018, Eq. 12.2 (the lambda-return), in place of a scalar the outcome's distribution.

    Args:
        probs: T + 1 rows: what the critic predicted at the prefixes.
        outcome_row: one at the outcome, zero elsewhere.
        decay: lambda of the critic, in [0, 1]; need not be the actor's (Yuan et al. 2025, VC-PPO).
    """
    last = len(probs) - 1
    target = tuple(float(p) for p in outcome_row)
    targets = [target] * (last + 1)
    for t in range(last - 2, -1, -1):
        target = tuple((1 - decay) * p + decay * g for p, g in zip(probs[t + 1], target, strict=True))
        targets[t] = target
    return targets


def explained_variance(values: Sequence[float], returns: Sequence[float]) -> float:
    """Return 1 - Var(r - V) / Var(r): 1 for a perfect value, 0 for a constant; nan where all returns are the same."""
    spread = _variance(returns)
    if not spread:
        return math.nan
    return 1 - _variance([r - v for r, v in zip(returns, values, strict=True)]) / spread


def _variance(numbers: Sequence[float]) -> float:
    mean = sum(numbers) / max(len(numbers), 1)
    return sum((x - mean) ** 2 for x in numbers) / max(len(numbers), 1)


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of a problem: how its programs fared, the recent ones more than the old."""

    weight: float = 0.0
    """Programs seen, each counted less by every draw since."""
    pass_rate: float = 0.0
    """Mean over them."""
    mean_return: float = 0.0

    def after(self, passed: Sequence[bool], returns: Sequence[float], *, memory: float) -> Record:
        """Return the record after one more draw of the problem.

        Source: the running value of single-stream policy optimisation (Xu and Ding 2025), whose old counts decay.

        Args:
            passed: of each drawn program.
            returns: r of each.
            memory: what earlier programs count from now on, in [0, 1].
        """
        old = memory * self.weight
        weight = old + len(passed)
        if not weight:
            return self
        return Record(
            weight,
            (old * self.pass_rate + sum(passed)) / weight,
            (old * self.mean_return + sum(returns)) / weight,
        )

    @property
    def uncertainty(self) -> float:
        """sqrt(p (1 - p)) of the pass rate with a prior of one program at one half: what a draw can teach."""
        rate = (self.weight * self.pass_rate + PRIOR_WEIGHT * PRIOR_RATE) / (self.weight + PRIOR_WEIGHT)
        return math.sqrt(rate * (1 - rate))
