"""What a search, or plain sampling, had found by the time it had cost so much: equal budgets and anytime curves.

Everything here is arithmetic on programs that are there; hidden verdicts come in only to keep the score.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coderl.critic_sampling.ranking import rank
from coderl.types import Outcome, Program, ProgramKind


@dataclass(frozen=True, slots=True)
class Attempt:
    """One program of a problem, in the order drawn."""

    program: Program
    round: int
    parent: int | None
    num_prefix_tokens: int
    num_tokens: int
    """Tokens drawn for the problem once this program was there."""
    example_outcome: Outcome | None
    is_correct: bool
    """On the hidden tests; False where the sandbox failed."""
    program_value: float | None = None
    behaviour: tuple[str, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether it passes the example tests."""
        return self.example_outcome is Outcome.PASSED_TEST


Attempts = dict[str, list[Attempt]]
"""Problem -> its programs, in the order drawn."""


# ------------------------------------------------------------------------------------------------------------- scores


def within(attempts: Sequence[Attempt], num_tokens: int) -> list[Attempt]:
    """Return the programs that a budget of so many tokens holds, in the order drawn."""
    return [a for a in attempts if a.num_tokens <= num_tokens]


def any_correct(attempts: Sequence[Attempt]) -> float:
    """Return 1.0 if some program is right: pass@k with all k that the budget holds."""
    return float(any(a.is_correct for a in attempts))


def one_filtered(attempts: Sequence[Attempt], n: int = 1) -> float:
    """Return the chance that one of `n` programs is right, drawn among those that pass the example tests.

    Source: CodeRL section 4.1; 0 where none passes.
    """
    passing = [a for a in attempts if a.passes]
    wrong, drawn = sum(not a.is_correct for a in passing), min(n, len(passing))
    return 1.0 - math.comb(wrong, drawn) / math.comb(len(passing), drawn) if drawn else 0.0


def best_ranked(attempts: Sequence[Attempt], n: int = 1) -> float:
    """Return 1.0 if one of the best `n` is right, of those that pass the example tests (see `ranking.rank`)."""
    order = rank(
        [a.program for a in attempts],
        [a.example_outcome for a in attempts],
        [a.program_value for a in attempts],
        [a.behaviour for a in attempts],
    )
    return float(any(attempts[at].passes and attempts[at].is_correct for at in order[:n]))


Metric = Callable[[Sequence[Attempt]], float]
METRICS: dict[str, Metric] = {
    "pass@all": any_correct,
    "1@all": one_filtered,
    "1@all ranked": best_ranked,
    "5@all": lambda attempts: one_filtered(attempts, 5),
    "5@all ranked": lambda attempts: best_ranked(attempts, 5),
}
"""Of all programs that a budget holds. n@all: of n submissions among those that pass the examples, 0 where none does;
`ranked` submits the best n, otherwise any n."""


def common_budgets(*arms: Attempts) -> dict[str, int]:
    """Return, for each problem, the most tokens that every one of some arms has spent on it."""
    names = set.intersection(*(set(arm) for arm in arms))
    return {name: min(arm[name][-1].num_tokens for arm in arms) for name in sorted(names)}


def score(attempts: Attempts, budgets: Mapping[str, int], metric: Metric) -> dict[str, float]:
    """Return the metric of each problem that has a budget, on the programs that this holds."""
    return {name: metric(within(attempts.get(name, []), most)) for name, most in budgets.items()}


def curve(attempts: Attempts, budgets: Iterable[int], metric: Metric) -> list[tuple[float, float]]:
    """Return (tokens a problem, mean metric over problems) for each budget: an anytime curve."""
    count = max(len(attempts), 1)
    return [(float(most), sum(metric(within(a, most)) for a in attempts.values()) / count) for most in budgets]


def contributions(attempts: Attempts) -> dict[str, Any]:
    """Return what each kind of program added: problems first solved by it, and how much of prefixes was kept.

    Keys: `num_problems`, `solved_by_sample`, `solved_by_repaired`, `solved_by_refined` (problems of which the first
    right program is of that kind), `num_repaired`, `num_refined`, `correct_share_...` (of each kind's programs),
    `prefix_kept_share` (refined programs that keep some of their parent), `mean_prefix_share` (of the parent's tokens).
    """
    kinds = (ProgramKind.SAMPLE, ProgramKind.REPAIRED, ProgramKind.REFINED)
    solved: Counter[ProgramKind] = Counter()
    for tried in attempts.values():
        first = next((a for a in tried if a.is_correct), None)
        solved.update([first.program.kind] if first else [])
    every = [a for tried in attempts.values() for a in tried]
    refined = [a for a in every if a.program.kind is ProgramKind.REFINED]
    lengths = {(a.program.problem_id, a.program.index): len(a.program.tokens) for a in every}
    shares = [
        a.num_prefix_tokens / max(lengths[a.program.problem_id, a.parent], 1) for a in refined if a.parent is not None
    ]
    groups = {kind: [a.is_correct for a in every if a.program.kind is kind] for kind in kinds}
    return {
        "num_problems": len(attempts),
        **{f"solved_by_{kind.value}": solved[kind] for kind in kinds},
        **{f"num_{kind.value}": len(groups[kind]) for kind in kinds},
        **{f"correct_share_{kind.value}": mean(groups[kind]) for kind in kinds},
        "prefix_kept_share": mean([a.num_prefix_tokens > 0 for a in refined]),
        "mean_prefix_share": mean(shares),
    }


def mean(values: Sequence[float | int]) -> float:
    """Return the mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0
