"""What a search, or plain sampling, had found by the time it had cost so much: equal budgets and anytime curves.

Everything here is arithmetic on programs that are there; hidden verdicts come in only to keep the score.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from coderl.critic_sampling.candidates import Candidate
from coderl.critic_sampling.ranking import Behaviour, rank
from coderl.types import Program, ProgramKey, ProgramKind, Verdict


@dataclass(frozen=True, slots=True)
class Arm:
    """What one way of drawing programs came to, problem by problem."""

    candidates: dict[str, list[Candidate]]
    """Problem -> its programs, in the order drawn."""
    correct: Collection[ProgramKey]
    """Those that are right on the hidden tests."""
    behaviours: Mapping[ProgramKey, Behaviour] = field(default_factory=dict)

    def num_correct(self, candidates: Iterable[Candidate]) -> int:
        """Return how many of some candidates are right."""
        return sum(c.program.key in self.correct for c in candidates)


def as_candidates(programs: Iterable[Program], examples: Mapping[ProgramKey, Verdict]) -> dict[str, list[Candidate]]:
    """Return plain samples as the candidates of a search that ended with its first round."""
    found: dict[str, list[Candidate]] = {}
    for program in sorted(programs, key=lambda p: p.index):
        if program.kind is ProgramKind.SAMPLE:
            before = found.setdefault(program.problem_id, [])
            spent = (before[-1].num_tokens_so_far if before else 0) + len(program.tokens)
            before.append(Candidate(program, 0, None, 0, examples.get(program.key), None, spent))
    return found


# ------------------------------------------------------------------------------------------------------------- scores


def within(candidates: Sequence[Candidate], num_tokens: int) -> list[Candidate]:
    """Return the programs that a budget of so many tokens holds, in the order drawn."""
    return [c for c in candidates if c.num_tokens_so_far <= num_tokens]


def any_correct(arm: Arm, candidates: Sequence[Candidate]) -> float:
    """Return 1.0 if some program is right: pass@k with all k that the budget holds."""
    return float(arm.num_correct(candidates) > 0)


def one_filtered(arm: Arm, candidates: Sequence[Candidate], n: int = 1) -> float:
    """Return the chance that one of `n` programs is right, drawn among those that pass the example tests.

    Source: CodeRL section 4.1; 0 where none passes.
    """
    passing = [c for c in candidates if c.passes]
    wrong, drawn = len(passing) - arm.num_correct(passing), min(n, len(passing))
    return 1.0 - math.comb(wrong, drawn) / math.comb(len(passing), drawn) if drawn else 0.0


def best_ranked(arm: Arm, candidates: Sequence[Candidate], n: int = 1) -> float:
    """Return 1.0 if one of the best `n` is right, of those that pass the example tests (see `ranking.rank`)."""
    order = rank(
        [c.program for c in candidates],
        [c.result for c in candidates],
        [c.program_value for c in candidates],
        [arm.behaviours.get(c.program.key, ()) for c in candidates],
    )
    return float(arm.num_correct(c for c in (candidates[at] for at in order[:n]) if c.passes) > 0)


Metric = Callable[[Arm, Sequence[Candidate]], float]
METRICS: dict[str, Metric] = {
    "pass@all": any_correct,
    "1@all": one_filtered,
    "1@all ranked": best_ranked,
    "5@all": partial(one_filtered, n=5),
    "5@all ranked": partial(best_ranked, n=5),
}
"""Of all programs that a budget holds. n@all: of n submissions among those that pass the examples, 0 where none does;
`ranked` submits the best n, otherwise any n."""


def common_budgets(*arms: Arm) -> dict[str, int]:
    """Return, for each problem, the most tokens that every one of some arms has spent on it."""
    names = set.intersection(*(set(arm.candidates) for arm in arms))
    return {name: min(arm.candidates[name][-1].num_tokens_so_far for arm in arms) for name in sorted(names)}


def score(arm: Arm, budgets: Mapping[str, int], metric: Metric) -> dict[str, float]:
    """Return the metric of each problem that has a budget, on the programs that this holds."""
    return {name: metric(arm, within(arm.candidates.get(name, []), most)) for name, most in budgets.items()}


def curve(arm: Arm, budgets: Iterable[int], metric: Metric) -> list[tuple[float, float]]:
    """Return (tokens a problem, mean metric over problems) for each budget: an anytime curve."""
    drawn = arm.candidates.values()
    return [(float(most), mean([metric(arm, within(each, most)) for each in drawn])) for most in budgets]


def contributions(arm: Arm) -> dict[str, Any]:
    """Return what each kind of program added: problems first solved by it, and how much of prefixes was kept.

    Keys: `num_problems`; for each kind `solved_by_...` (problems of which the first right program is of that kind),
    `num_...` and `correct_share_...` (of its programs); `prefix_kept_share` (refined programs that keep some of their
    parent), `mean_prefix_share` (of the parent's tokens).
    """
    kinds = (ProgramKind.SAMPLE, ProgramKind.REPAIRED, ProgramKind.REFINED, ProgramKind.BRANCHED)
    every = [c for drawn in arm.candidates.values() for c in drawn]
    right = [c.program for c in every if c.program.key in arm.correct]
    first = {program.problem_id: program for program in reversed(right)}
    solved = Counter(program.kind for program in first.values())
    refined = [c for c in every if c.program.kind is ProgramKind.REFINED]
    lengths = {(c.program.problem_id, c.program.index): len(c.program.tokens) for c in every}
    shares = [
        c.num_prefix_tokens / max(lengths[c.program.problem_id, c.parent], 1) for c in refined if c.parent is not None
    ]
    groups = {kind: [c.program.key in arm.correct for c in every if c.program.kind is kind] for kind in kinds}
    return {
        "num_problems": len(arm.candidates),
        **{f"solved_by_{kind.value}": solved[kind] for kind in kinds},
        **{f"num_{kind.value}": len(groups[kind]) for kind in kinds},
        **{f"correct_share_{kind.value}": mean(groups[kind]) for kind in kinds},
        "prefix_kept_share": mean([c.num_prefix_tokens > 0 for c in refined]),
        "mean_prefix_share": mean(shares),
    }


def mean(values: Sequence[float | int]) -> float:
    """Return the mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0
