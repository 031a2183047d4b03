"""The paper's figures and settings, to stand beside a run's."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from coderl.evaluation.pass_at_k import ALL
from coderl.types import InputError

Benchmark = Literal["apps", "mbpp"]
DIFFICULTIES: dict[Benchmark, tuple[str, ...]] = {
    "apps": ("introductory", "interview", "competition", ALL),
    "mbpp": (ALL,),
}
NUM_PROBLEMS: dict[Benchmark, int] = {"apps": 5000, "mbpp": 500}
"""Of the test splits that the figures are of."""


@dataclass(frozen=True, slots=True)
class PaperFigure:
    """What a table reports of one model by one metric."""

    table: str
    """Of the paper, or of the one that measured anew."""
    model: str
    metric: str
    """`pass@k` or `n@k`."""
    percent: dict[str, float]
    """Difficulty (or `all`) -> score."""


@dataclass(frozen=True, slots=True)
class PaperSetting:
    """What one setting of a recipe is in the paper and in the original's scripts, as far as they say."""

    name: str
    """Dotted, as in a recipe."""
    values: dict[str, Any]
    """`apps` and `mbpp` for the paper's, `scripts` for the original's -> value."""
    where: str
    """The section, script or discussion that says so."""


def settings() -> list[PaperSetting]:
    """Return every setting that the paper or the original's scripts state."""
    text = (resources.files("coderl.evaluation") / "paper_settings.toml").read_text(encoding="utf-8")
    return [PaperSetting(name, row, row.pop("where")) for name, row in tomllib.loads(text).items()]


def figures(benchmark: Benchmark, metrics: Iterable[str] | None = None) -> list[PaperFigure]:
    """Return the paper's figures on a benchmark, of these metrics or of all, in the paper's order.

    Metrics may be named as `pass_at_k.summarise` names them; what follows the first blank does not count.
    """
    wanted = None if metrics is None else {metric.split()[0] for metric in metrics}
    text = (resources.files("coderl.evaluation") / "paper.toml").read_text(encoding="utf-8")
    found = []
    for row in tomllib.loads(text)[benchmark]:
        table, model = row.pop("table"), row.pop("model")
        for metric, scores in row.items():
            if wanted is None or metric in wanted:
                percent = dict(zip(DIFFICULTIES[benchmark], scores, strict=True))
                found.append(PaperFigure(table, model, metric, percent))
    return found


def benchmark_of(problem_ids: Iterable[str], difficulties: Iterable[str]) -> Benchmark:
    """Return which of the paper's benchmarks some problems are of.

    Raises:
        InputError: of neither.
    """
    ids, found = list(problem_ids), set(difficulties) - {ALL}
    if ids and all(name.startswith("mbpp_") for name in ids):
        return "mbpp"
    if found and found <= set(DIFFICULTIES["apps"]):
        return "apps"
    raise InputError(f"the paper has figures for APPS and MBPP, not for problems such as {ids[:1]} ({sorted(found)})")
