"""The report of a run: one HTML page that needs no network, and the closing table for the terminal."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from rich.table import Table as TerminalTable

from coderl import records
from coderl.evaluation import figures
from coderl.evaluation.figures import Curve, DotRow, outcome_words
from coderl.evaluation.illustrations import Illustration
from coderl.evaluation.pass_at_k import ALL, Estimate, Summary, columns_of, percent
from coderl.types import Outcome

MAX_MESSAGE_CHARS = 400
MAX_PROGRAM_CHARS = 20_000
MAX_DESCRIPTION_CHARS = 4_000
CHART_METRIC = "pass@1"
"""Of the first figure."""
RESULTS_NOTE = (
    "Percent of problems solved, with the 95% interval over problems. pass@k: at least one of k samples is right. n@k: "
    "of k samples, n of those that pass the example tests are handed in. A metric is blank where some problem has "
    "fewer than k programs."
)

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control and direction characters: they hide or reorder what a hostile program says, or cannot be written."""


# ------------------------------------------------------------------------------------------------------- what to show


@dataclass(frozen=True, slots=True)
class HeadlineRow:
    """One model under one way of decoding."""

    stage: str
    decoding: str
    """Such as `T=0.6, 20 samples`."""
    summary: Summary
    """Its metrics are the table's columns; every row may have others."""
    is_control: bool = False
    """True for what the method has to beat: other decoding of the warm start, more cross-entropy."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """One model against another on the same problems."""

    better: str
    """The model expected to be ahead."""
    baseline: str
    metric: str
    baseline_mean: float
    difference: Estimate


@dataclass(frozen=True, slots=True)
class CurveGroup:
    """The curves of one training stage."""

    stage: str
    curves: tuple[Curve, ...]
    x_label: str = "optimiser step"


@dataclass(frozen=True, slots=True)
class SearchSection:
    """Critic sampling against plain sampling."""

    lead: str
    curves: tuple[tuple[str, tuple[Curve, ...]], ...]
    """Title and curves of each chart, over tokens drawn a problem; the first curve is the method's."""
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A small table of figures, as text."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_words: int = 1
    """Columns at the left that name the row."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which actor a run kept, by the share of right programs on validation problems."""

    kept: str
    pass_rates: Mapping[str, float]
    """Of the warm start and of each round's actor, in the order of training."""

    @property
    def rejected(self) -> tuple[str, ...]:
        """The rounds after the kept actor, which did not make it better."""
        names = list(self.pass_rates)
        return tuple(names[names.index(self.kept) + 1 :])

    @property
    def has_rejected_all(self) -> bool:
        """True where the run's actor is the warm start."""
        return bool(self.rejected) and len(self.rejected) == len(self.pass_rates) - 1

    def sentence(self) -> str:
        """Return what was rejected, with the validation figures; nothing where nothing was."""
        if not self.rejected:
            return ""
        after = " and ".join(f"{100 * self.pass_rates[name]:.1f}% after {name}" for name in self.rejected)
        kept = f"{100 * self.pass_rates[self.kept]:.1f}%"
        if self.has_rejected_all:
            return (
                f"Reinforcement learning was rejected: on validation problems {kept} of the warm start's programs pass,"
                f" {after}."
            )
        return f"The actor of {self.kept} was kept: on validation problems {kept} of its programs pass, {after}."


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that the page shows, in the order it shows it."""

    title: str
    abstract: str
    """One or two sentences: which model, which problems, which question."""
    rows: tuple[HeadlineRow, ...]
    contrasts: tuple[Contrast, ...] = ()
    """The first is the page's headline, unless all of reinforcement learning was rejected."""
    selection: Selection | None = None
    warnings: tuple[str, ...] = ()
    """What a reader must know before believing the numbers."""
    outcomes: tuple[tuple[str, Mapping[Outcome, int]], ...] = ()
    """What became of each model's programs."""
    curves: tuple[CurveGroup, ...] = ()
    tables: tuple[Table, ...] = ()
    """How each round fared: its critic, its canaries."""
    reliability: tuple[tuple[str, tuple[tuple[float, float, int], ...]], ...] = ()
    """Of each critic, by bin: mean predicted probability of passing, share that passed, number of programs."""
    illustrations: tuple[Illustration, ...] = ()
    tallies: Mapping[str, int] = field(default_factory=dict)
    """What was left out: untested problems, skipped problems, sandbox faults."""
    timings: tuple[tuple[str, float, float], ...] = ()
    """Of each stage: wall and CPU time, in seconds."""
    settings: Mapping[str, str] = field(default_factory=dict)
    search: SearchSection | None = None


# --------------------------------------------------------------------------------------------------------- the page


def write(path: Path, data: ReportData) -> None:
    """Write the page to `path`, all of it or nothing."""
    records.write_text(path, render(data))


def render(data: ReportData) -> str:
    """Return the page: no script, no network, and all text of programs and problems escaped."""
    environment = jinja2.Environment(
        autoescape=True, finalize=_clean, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(points=_points, words=outcome_words, tint=tint, cut=_cut)
    source = importlib.resources.files("coderl.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    columns = columns_of(name for row in data.rows for by in row.summary.scores.values() for name in by)
    return environment.from_string(source).render(
        data=data,
        finding=finding(data),
        results=_results(data, columns),
        dot_chart=_dot_chart(data, columns),
        charts=figures,
        lines_of=lines_of,
        total_time=figures.duration(sum(wall for _, wall, _ in data.timings)),
        max_message=MAX_MESSAGE_CHARS,
        max_description=MAX_DESCRIPTION_CHARS,
    )


def finding(data: ReportData) -> str:
    """Return the headline sentence: what was rejected, or the first contrast and whether its interval settles it."""
    if data.selection is not None and data.selection.has_rejected_all:
        return data.selection.sentence()
    if not data.contrasts:
        return ""
    c = data.contrasts[0]
    after = c.baseline_mean + c.difference.mean
    numbers = f"{c.metric} of {100 * after:.1f}% against {100 * c.baseline_mean:.1f}%"
    if c.difference.low > 0:
        return f"{c.better} beats {c.baseline}: {numbers}."
    if c.difference.high < 0:
        return f"{c.better} is worse than {c.baseline}: {numbers}."
    return f"No clear difference between {c.better} and {c.baseline}: {numbers}."


def metrics_of(data: ReportData) -> list[str]:
    """Return the names of all metrics of all rows, in the order met."""
    return list(dict.fromkeys(metric for row in data.rows for metric in row.summary.scores))


def _results(data: ReportData, columns: Sequence[str]) -> list[Table]:
    """Return the scores over all problems, by difficulty where there are several, and the paired differences."""
    metrics = metrics_of(data)
    rows = [(r.stage, r.decoding, *(percent(r.summary.scores.get(m, {}).get(ALL)) for m in metrics)) for r in data.rows]
    found = [Table("", RESULTS_NOTE, ("model", "decoding", *metrics), tuple(rows), 2)]
    if len(columns) > 1:
        rows = [
            (f"{row.stage}, {row.decoding}", metric, *(percent(by.get(name)) for name in columns))
            for row in data.rows
            for metric, by in row.summary.scores.items()
        ]
        found.append(Table("By difficulty", "", ("model", "metric", *columns), tuple(rows), 2))
    if data.contrasts:
        rows = [
            (c.better, c.baseline, c.metric, _points(d.mean), f"{_points(d.low)} to {_points(d.high)}")
            for c in data.contrasts
            for d in [c.difference]
        ]
        names = ("model", "against", "metric", "points", "95% interval")
        found.append(Table("Differences on the same problems", "", names, tuple(rows), 3))
    return found


def _dot_chart(data: ReportData, columns: Sequence[str]) -> Markup:
    rows = [
        DotRow(row.stage, row.decoding, row.is_control, row.summary.scores[CHART_METRIC])
        for row in data.rows
        if CHART_METRIC in row.summary.scores
    ]
    return figures.dot_chart(rows, columns, f"{CHART_METRIC}, % of problems; bars: 95% intervals")


def lines_of(texts: Sequence[str], values: Sequence[float]) -> list[list[tuple[str, float | None]]]:
    """Return the tokens line by line, each with its value: one with line ends is divided, each part keeping it."""
    lines: list[list[tuple[str, float | None]]] = [[]]
    left = MAX_PROGRAM_CHARS
    for text, value in zip_longest(texts, values[: len(texts)]):
        first, *others = text[:left].split("\n")
        left -= len(text)
        lines[-1].append((first + ("↵" if others and value is not None else ""), value))
        for number, part in enumerate(others, start=1):
            is_end = number < len(others) and value is not None
            lines.append([(part + ("↵" if is_end else ""), value)])
        if left <= 0:
            lines.append([("... cut here", None)])
            break
    shown = [[(text, value) for text, value in line if text] for line in lines]
    return shown if shown[-1] else shown[:-1]


def tint(value: float | None) -> str:
    """Return the background of a token: orange towards 0, blue towards 1, none at 0.5 or without a value."""
    if value is None:
        return "transparent"
    strength = min(1.0, 2 * abs(value - 0.5))
    red, green, blue = (0, 114, 178) if value > 0.5 else (213, 94, 0)
    return f"rgba({red},{green},{blue},{0.75 * strength:.2f})"


def _clean(value: Any) -> Any:
    return _UNSAFE.sub("\ufffd", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + " ... (cut)"


def _points(value: float) -> str:
    """Return a difference in percentage points, signed."""
    return f"{100 * value:+.1f}".replace("-", "−")


# ----------------------------------------------------------------------------------------------------- the terminal


def closing_table(data: ReportData) -> TerminalTable:
    """Return the headline numbers over all problems as a table for the terminal, the first with its interval."""
    table = TerminalTable(title=f"{data.title}: % of problems (95% interval)", title_justify="left")
    table.add_column("model", no_wrap=True)
    table.add_column("decoding")
    metrics = metrics_of(data)
    for metric in metrics:
        table.add_column(metric, justify="right")
    for row in data.rows:
        found = [row.summary.scores.get(metric, {}).get(ALL) for metric in metrics]
        cells = [
            percent(e) if m == CHART_METRIC else percent(e).split(" ")[0] for m, e in zip(metrics, found, strict=True)
        ]
        style = "dim" if row.is_control else "bold"
        table.add_row(_plain(row.stage), _plain(row.decoding), *cells, style=style)
    table.caption, table.caption_justify = _plain("\n".join([finding(data), *data.warnings]).strip()), "left"
    return table


def _plain(text: str) -> str:
    """Return text that the terminal shows as it is: no markup, no control characters."""
    return _UNSAFE.sub("\ufffd", text).replace("[", "\\[")
