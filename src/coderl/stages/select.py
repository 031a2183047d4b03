"""Which round's actor is the run's, judged on validation problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from coderl import records
from coderl.recipe import RunConfig
from coderl.stages import stages
from coderl.stages.console import Reporter
from coderl.stages.tables import (
    SELECTION,
    WARM_START,
    VerdictRow,
    by_problem,
    judged,
    programs_of,
    verdicts_of,
)
from coderl.types import LabelledProblem, Outcome, Program

Rates = Mapping[str, float]
"""The share of right programs of each problem, in [0, 1]."""


class Selection:
    """Judges the warm start and each round's actor, and keeps one: the automatic return from a collapse.

    Deviation: the paper trains to the end, and the original collapses without its loss showing it.
    """

    def __init__(self, config: RunConfig, run_dir: Path, problems: list[LabelledProblem], reporter: Reporter):
        settings = config.rounds.selection
        self.config, self.run_dir, self.reporter = config, run_dir, reporter
        self.problems = [p for p in problems if p.hidden_tests][: settings.num_problems] if settings else []
        self.rates: dict[str, Rates] = {}
        self.actors: dict[str, Path | str] = {}

    @property
    def kept(self) -> Path | str | None:
        """The actor that is the run's so far; None where none was judged."""
        return self.actors[self._kept_name] if self.rates else None

    @property
    def _kept_name(self) -> str:
        return choose(dict(list(self.rates.items())[:-1]) if self.has_dropped else self.rates)

    @property
    def has_dropped(self) -> bool:
        """True when the last actor is worse than the best by more than `max_drop`."""
        settings, scores = self.config.rounds.selection, [_mean(rates) for rates in self.rates.values()]
        return settings is not None and bool(scores) and scores[-1] < max(scores) - settings.max_drop

    def judge(self, actor: Path | str, out: Path) -> None:
        """Draw programs for the validation problems with an actor, and run them; `out` is in the actor's round."""
        settings = self.config.rounds.selection
        if settings is None or not self.problems:
            return
        drawn = self.config.rounds.sample.model_copy(update={"num_samples": settings.num_samples})
        stages.sample(out / "sample", actor=actor, problems=stages.bare(self.problems), config=drawn,
                      prompt=self.config.prompt, seed=self.config.seed + 500, greedy=False,
                      reporter=self.reporter)  # fmt: skip
        stages.execute(out / "execute", programs=out / "sample", problems=self.problems, config=self.config.execution,
                       reporter=self.reporter)  # fmt: skip
        groups = by_problem(judged(programs_of(out / "sample"), verdicts_of(out / "execute")))
        name = out.parent.name if out.parent != self.run_dir else WARM_START
        self.actors[name] = actor
        self.rates[name] = {p: _share_passed(pairs) for p, pairs in groups.items()}
        scores, kept = {n: _mean(rates) for n, rates in self.rates.items()}, self._kept_name
        records.write_json(self.run_dir / SELECTION, {"pass_rates": scores, "kept": kept})
        has_ended = ": a drop, the rounds end" if self.has_dropped else ""
        self.reporter.say(f"  validation: {scores[name]:.1%} of programs pass; kept so far: {kept}{has_ended}")


def choose(rates: Mapping[str, Rates]) -> str:
    """Return the last actor that is not clearly worse than the best; the first, the warm start, if none beats it.

    Clearly is by more than one standard error of the difference, over problems. The same problems and seeds judge
    all, but a few hundred programs tell no policies apart that differ by a point: there, more training decides.

    Args:
        rates: actor -> rates, in the order of training; at least one.
    """
    warm_start, *rounds = rates
    best = max(rates, key=lambda name: _mean(rates[name]))
    if best == warm_start:
        return warm_start
    return next(name for name in reversed(rounds) if not _is_worse(rates[name], rates[best]))


def _is_worse(rates: Rates, best: Rates) -> bool:
    lead = [best[p] - rates[p] for p in best.keys() & rates.keys()]
    error = stdev(lead) / len(lead) ** 0.5 if len(lead) > 1 else 0.0
    return bool(lead) and fmean(lead) > error


def _mean(rates: Rates) -> float:
    return fmean(rates.values()) if rates else 0.0


def _share_passed(pairs: Sequence[tuple[Program, VerdictRow]]) -> float:
    return sum(v.outcome is Outcome.PASSED_TEST for _, v in pairs) / len(pairs)
