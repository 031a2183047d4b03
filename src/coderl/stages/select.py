"""Which round's actor is the run's, judged on validation problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

from coderl import records
from coderl.recipe import SelectionConfig

SELECTION = "selection.json"
"""The share of right programs of each judged actor, and which of them is kept."""
WARM_START = "warm-start"

Rates = Mapping[str, float]
"""The share of right programs of each problem, in [0, 1]."""


@dataclass
class Selection:
    """Keeps one of the warm start and the rounds' actors: the automatic return from a collapse.

    Deviation: the paper trains to the end, and the original collapses without its loss showing it.
    """

    config: SelectionConfig
    rates: dict[str, Rates] = field(default_factory=dict)
    """Of each judged actor, in the order of training."""
    actors: dict[str, Path | str] = field(default_factory=dict)

    def judge(self, name: str, actor: Path | str, rates: Rates) -> None:
        """Take in how an actor's programs fare on the validation problems."""
        self.rates[name], self.actors[name] = rates, actor

    @property
    def kept(self) -> str:
        """The name of the actor that is the run's so far."""
        return choose(dict(list(self.rates.items())[:-1]) if self.has_dropped else self.rates)

    @property
    def has_dropped(self) -> bool:
        """True when the last actor is worse than the best by more than `max_drop`."""
        scores = list(self.scores.values())
        return scores[-1] < max(scores) - self.config.max_drop

    @property
    def scores(self) -> dict[str, float]:
        """The share of right programs of each judged actor."""
        return {name: _mean(rates) for name, rates in self.rates.items()}

    def write(self, path: Path) -> None:
        """Write the scores and which actor is kept."""
        records.write_json(path, {"pass_rates": self.scores, "kept": self.kept})

    def line(self) -> str:
        """Return what a person should see of the actor judged last."""
        score = list(self.scores.values())[-1]
        has_ended = ": a drop, the rounds end" if self.has_dropped else ""
        return f"validation: {score:.1%} of programs pass; kept so far: {self.kept}{has_ended}"


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
    leads = [best[p] - rates[p] for p in sorted(best.keys() & rates.keys())]
    standard_error = stdev(leads) / len(leads) ** 0.5 if len(leads) > 1 else 0.0
    return fmean(leads) > standard_error if leads else False


def _mean(rates: Rates) -> float:
    return fmean(rates.values()) if rates else 0.0
