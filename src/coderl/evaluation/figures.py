"""Figures of the report as inline SVG: text stays text, colours follow the page's light or dark theme."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from coderl.evaluation.pass_at_k import Estimate
from coderl.types import Outcome

LETTER_WIDTH = 7.5
"""Of a row's label, about."""


@dataclass(frozen=True, slots=True)
class DotRow:
    """One row of a dot chart: a model, and its estimate in each panel."""

    label: str
    note: str
    is_control: bool
    estimates: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity over training."""

    name: str
    points: tuple[tuple[float, float], ...]
    """(step, value), in order."""
    unit: str = ""

    @property
    def title(self) -> str:
        """The name with its unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


def dot_chart(rows: Sequence[DotRow], panels: Sequence[str], x_label: str) -> Markup:
    """Return a chart with a panel a difficulty: dots at the means, bars over 95% intervals, on one common scale."""
    gap, right, top, row_height, width = 26.0, 44.0, 30.0, 38.0, 1000.0
    left = _left(row.label for row in rows)
    panel_width = (width - left - right - gap * (len(panels) - 1)) / max(len(panels), 1)
    ends = [e.high for row in rows for e in row.estimates.values()]
    ticks = _ticks(0.0, 100 * max([0.01, *ends]), 4 if len(panels) > 2 else 8)
    bottom = top + row_height * len(rows)
    parts: list[Markup] = []
    for index, row in enumerate(rows):
        y = top + row_height * (index + 0.5)
        parts.append(_text(left - 14, y - 2, row.label, "end", "label"))
        parts.append(_text(left - 14, y + 12, row.note, "end", "note"))
    for number, panel in enumerate(panels):
        x0 = left + number * (panel_width + gap)
        scale = panel_width / ticks[-1]
        parts.append(_text(x0, 14.0, panel, "start", "panel"))
        for tick in ticks:
            parts.append(_line(x0 + tick * scale, top, x0 + tick * scale, bottom, "grid" if tick else "axis"))
            parts.append(_text(x0 + tick * scale, bottom + 16, f"{tick:g}", "middle", "tick"))
        for index, row in enumerate(rows):
            if panel in row.estimates:
                y = top + row_height * (index + 0.5)
                parts.append(_dot(x0, y, scale, row.estimates[panel], row.is_control))
    parts.append(_text(left, bottom + 36, x_label, "start", "tick"))
    return _svg(width, bottom + 44, x_label, parts)


def _dot(x0: float, y: float, scale: float, estimate: Estimate, is_control: bool) -> Markup:
    low, high = 100 * estimate.low, 100 * estimate.high
    x, kind = x0 + 100 * estimate.mean * scale, "control" if is_control else "method"
    return Markup("<g class='{}'>{}<circle cx='{:.1f}' cy='{:.1f}' r='5'/>{}</g>").format(
        kind,
        _line(x0 + low * scale, y, x0 + high * scale, y, "whisker"),
        x,
        y,
        _text(x0 + high * scale + 8, y + 4, f"{100 * estimate.mean:.1f}", "start", "value"),
    )


def outcome_bars(rows: Sequence[tuple[str, Mapping[Outcome, int]]]) -> Markup:
    """Return one bar a row, divided by the share of each outcome."""
    left, width, top, row_height = _left(label for label, _ in rows), 1000.0, 30.0, 40.0
    parts: list[Markup] = []
    x = left
    for outcome in reversed(Outcome):
        parts.append(_rect(x, 2, 12, 12, f"u{int(outcome)}"))
        parts.append(_text(x + 18, 12, outcome_words(outcome), "start", "tick"))
        x += 130
    for index, (label, counts) in enumerate(rows):
        y, x, total = top + row_height * index, left, sum(counts.values())
        parts.append(_text(left - 14, y + 15, label, "end", "label"))
        parts.append(_text(left - 14, y + 29, f"{total:,} programs", "end", "note"))
        for outcome in reversed(Outcome):
            share = counts.get(outcome, 0) / total if total else 0.0
            size = share * (width - left)
            tip = f"{outcome_words(outcome)}: {counts.get(outcome, 0):,} of {total:,} ({100 * share:.1f}%)"
            parts.append(_rect(x, y + 4, size, 26, f"u{int(outcome)}", tip))
            if size > 46:
                parts.append(_text(x + size / 2, y + 21, f"{100 * share:.1f}%", "middle", f"on-u{int(outcome)}"))
            x += size
    return _svg(width, top + row_height * len(rows), "Outcomes of programs", parts)


def line_chart(title: str, curves: Sequence[Curve], x_label: str) -> Markup:
    """Return curves on one pair of axes; two are named at their ends, the first the method's, the second a control's.

    A single one of more than 40 points is drawn faint under its running mean.
    """
    left, top, height, bottom, right = 50.0, 30.0, 200.0, 160.0, 12.0 if len(curves) < 2 else 112.0
    width = 308.0 + right
    finite = [[(x, y) for x, y in c.points if math.isfinite(x) and math.isfinite(y)] for c in curves]
    points = [p for one in finite for p in one]
    parts = [_text(0, 14, title, "start", "panel")]
    if not points:
        parts.append(_text(left, 90, "no finite value", "start", "note"))
        return _svg(width, height, title, parts)
    y_ticks = _ticks(min(y for _, y in points), max(y for _, y in points), 4)
    low, high = min(x for x, _ in points), max(x for x, _ in points)

    def at(x: float | int, y: float | int) -> tuple[float, float]:
        across, up = (x - low) / max(high - low, 1e-9), (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return left + across * (width - left - right), bottom - up * (bottom - top)

    for tick in y_ticks:
        y = at(low, tick)[1]
        parts += [_line(left, y, width - right, y, "grid"), _text(left - 6, y + 4, _number(tick), "end", "tick")]
    for tick in (t for t in _ticks(low, high, 4, whole=True) if low <= t <= high):
        parts.append(_text(at(tick, 0)[0], bottom + 16, _number(tick), "middle", "tick"))
    parts.append(_line(left, bottom, width - right, bottom, "axis"))
    parts.append(_text((left + width - right) / 2, bottom + 34, x_label, "middle", "tick"))
    paths = [[at(*p) for p in one] for one in finite]
    if len(curves) == 1:
        parts += _one_path(paths[0])
    ends = [path[-1] if path else None for path in paths]
    for index, (curve, path, end) in enumerate(zip(curves, paths, ends, strict=True)):
        if len(curves) > 1 and end is not None:
            parts.append(_path(path, "control-curve" if index else "curve"))
            parts.append(_text(end[0] + 6, end[1] + 4 + _shift(index, ends), curve.name, "start", "note"))
    return _svg(width, height, title, parts)


def _one_path(points: Sequence[tuple[float, float]]) -> list[Markup]:
    drawn, parts = _thinned(points, 400), []
    if len(points) > 40:
        parts.append(_path(drawn, "raw"))
        drawn = _thinned(_running_mean(points, max(3, len(points) // 20)), 400)
    if len(points) == 1:
        parts.append(Markup("<circle class='curve-dot' cx='{:.1f}' cy='{:.1f}' r='3'/>").format(*points[0]))
    return [*parts, _path(drawn, "curve")]


def _shift(index: int, ends: Sequence[tuple[float, float] | None]) -> float:
    """Return how far down a curve's name stands from its end, so that two names never overlap."""
    heights = [end[1] for end in ends if end is not None]
    if len(heights) != 2 or abs(heights[0] - heights[1]) >= 14:
        return 0.0
    is_lower = heights[index] > min(heights) or (index == 1 and heights[0] == heights[1])
    return 7.0 if is_lower else -7.0


def reliability_chart(label: str, bins: Sequence[tuple[float, float, int]]) -> Markup:
    """Return predicted probability against frequency: on the diagonal a critic means what it says.

    Args:
        label: which critic.
        bins: mean predicted, share that came true, count; a dot's area grows with its count, empty bins have none.
    """
    left, top, size = 44.0, 24.0, 200.0
    most = max([count for _, _, count in bins] + [1])
    parts = [_text(0, 14, label, "start", "panel"), _line(left, top + size, left + size, top, "axis")]
    for tick in (0.0, 0.5, 1.0):
        y, x = top + size * (1 - tick), left + size * tick
        parts += [_line(left, y, left + size, y, "grid"), _text(left - 6, y + 4, f"{tick:g}", "end", "tick")]
        parts.append(_text(x, top + size + 16, f"{tick:g}", "middle", "tick"))
    for predicted, came_true, count in bins:
        if count:
            dot = Markup("<circle class='curve-dot' cx='{:.1f}' cy='{:.1f}' r='{:.1f}'><title>{}</title></circle>")
            tip = f"said {predicted:.2f}, was {came_true:.2f}, {count} programs"
            radius = 2 + 7 * math.sqrt(count / most)
            parts.append(dot.format(left + size * predicted, top + size * (1 - came_true), radius, tip))
    parts.append(_text(left + size / 2, top + size + 34, "predicted probability of passing", "middle", "tick"))
    return _svg(left + size + 16, top + size + 42, f"Reliability: {label}", parts)


def time_bars(rows: Sequence[tuple[str, float, float]]) -> Markup:
    """Return one bar a stage, as long as its wall time, with its CPU time beside."""
    left, right, width, row_height = _left(label for label, _, _ in rows), 200.0, 1000.0, 24.0
    longest = max([seconds for _, seconds, _ in rows] + [1e-9])
    parts: list[Markup] = []
    for index, (label, seconds, cpu_s) in enumerate(rows):
        y, size = row_height * index, (width - left - right) * seconds / longest
        parts.append(_text(left - 14, y + 16, label, "end", "label"))
        parts.append(_rect(left, y + 4, max(size, 1.0), 16, "time"))
        text = f"{duration(seconds)}, {duration(cpu_s)} of CPU"
        parts.append(_text(left + max(size, 1.0) + 8, y + 16, text, "start", "value"))
    return _svg(width, row_height * len(rows) + 4, "Wall time by stage", parts)


def outcome_words(outcome: Outcome) -> str:
    """Return `runtime error` for RUNTIME_ERROR."""
    return outcome.name.lower().replace("_", " ")


def duration(seconds: float | int) -> str:
    """Return 0.4 s, 12 s, 3 min 05 s or 2 h 07 min."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


# -------------------------------------------------------------------------------------------------------- pieces


def _left(labels: Iterable[str]) -> float:
    """Return where a chart of rows begins, so that the longest label is not cut."""
    return max(216.0, 14 + LETTER_WIDTH * max(map(len, labels), default=0))


def _ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Return round numbers, at most `most` steps apart, from at or below `low` to at or above `high`."""
    if high - low < 1e-12 * max(abs(low), abs(high), 1e-300):
        margin = abs(low) / 2 or 1.0
        low, high = low - margin, high + margin
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(m * power for m in (1, 2, 5, 10, 20) if (high - low) / (m * power) <= most)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) if step >= 1e-9 else i * step for i in range(first, max(last, first + 1) + 1)]


def _number(value: float | int) -> str:
    if abs(value) >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:g}"


def _running_mean(points: Sequence[tuple[float, float]], width: int) -> list[tuple[float, float]]:
    """Return each point with the mean of the values around it."""
    means = []
    for i, (x, _) in enumerate(points):
        near = points[max(0, i - width // 2) : i + width // 2 + 1]
        means.append((x, sum(y for _, y in near) / len(near)))
    return means


def _thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _path(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    line = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return Markup("<path class='{}' d='M{}'/>").format(kind, line)


def _text(x: float | int, y: float | int, text: str, anchor: str, kind: str) -> Markup:
    return Markup("<text x='{:.1f}' y='{:.1f}' text-anchor='{}' class='{}'>{}</text>").format(x, y, anchor, kind, text)


def _line(x1: float | int, y1: float | int, x2: float | int, y2: float | int, kind: str) -> Markup:
    return Markup("<line x1='{:.1f}' y1='{:.1f}' x2='{:.1f}' y2='{:.1f}' class='{}'/>").format(x1, y1, x2, y2, kind)


def _rect(x: float | int, y: float | int, width: float | int, height: float | int, kind: str, tip: str = "") -> Markup:
    title = Markup("<title>{}</title>").format(tip) if tip else Markup()
    box = Markup("<rect x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}' class='{}'>{}</rect>")
    return box.format(x, y, width, height, kind, title)


def _svg(width: float | int, height: float | int, label: str, parts: Sequence[Markup]) -> Markup:
    opening = Markup("<svg viewBox='0 0 {:.0f} {:.0f}' role='img' aria-label='{}'>").format(
        width, height, escape(label)
    )
    return opening + Markup("").join(parts) + Markup("</svg>")
