"""What a person sees while stages run: rich progress on a terminal, plain lines elsewhere, facts at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

Item = TypeVar("Item")
PLAIN_INTERVAL_S = 10.0


class Reporter:
    """Prints stage headings, progress with rate and ETA, remarks and facts; quiet=True prints nothing."""

    def __init__(self, *, quiet: bool = False):
        self.console = Console(stderr=True, quiet=quiet, highlight=False)

    def say(self, text: str) -> None:
        """Print one remark."""
        self.console.print(text, markup=False, soft_wrap=True)

    def facts(self, facts: dict[str, Any], out: Path | None = None) -> None:
        """Print what came of a command on standard output, in the one form that all commands end with."""
        print_facts(facts if out is None else {**facts, "out": str(out)})

    def track(
        self, items: Iterable[Item], description: str, *, total: int | None = None, unit: str = "", done: int = 0
    ) -> Iterator[Item]:
        """Yield the items while showing how far along they are; `done` of `total` were finished by an earlier run."""
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        show = self._rich if self.console.is_terminal and not self.console.quiet else self._plain
        yield from show(items, description, total, unit, done)

    def _rich(self, items: Iterable[Item], description: str, total: int | None, unit: str, done: int) -> Iterator[Item]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(description, total=total, completed=done, rate="")
            start = time.monotonic()
            for count, item in enumerate(items, start=1):
                rate = count / max(time.monotonic() - start, 1e-9)
                progress.update(task, advance=1, rate=f"{rate:.3g} {unit}/s")
                yield item

    def _plain(
        self, items: Iterable[Item], description: str, total: int | None, unit: str, done: int
    ) -> Iterator[Item]:
        start = last = time.monotonic()
        count = 0
        for item in items:
            count += 1
            now = time.monotonic()
            if now - last >= PLAIN_INTERVAL_S:
                last = now
                self.say("  " + progress_line(description, done + count, total, count / (now - start), unit))
            yield item
        elapsed = time.monotonic() - start
        self.say(f"  {description}: {done + count} {unit}".rstrip() + f" in {elapsed:.0f} s")


def progress_line(description: str, done: int, total: int | None, rate: float, unit: str) -> str:
    """Return one plain line of progress, with the time that is left where it can be told."""
    line = f"{description}: {done}" + (f"/{total}" if total else "") + f" {unit}".rstrip() + f", {rate:.3g}/s"
    if total and rate > 0:
        line += f", {max(total - done, 0) / rate:.0f} s left"
    return line


def print_facts(facts: dict[str, Any]) -> None:
    """Print facts as two columns, groups of facts by dotted names."""
    table = Table.grid(padding=(0, 2))
    for name, value in _flat(facts):
        table.add_row(name, _shown(value))
    Console(highlight=False).print(table)


def _flat(facts: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " ".join(map(_shown, value))
    return "-" if value is None else f"{value:,}" if isinstance(value, int) and abs(value) > 9999 else str(value)
