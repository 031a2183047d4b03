"""What a person sees while stages run: rich progress on a terminal, plain lines elsewhere, facts at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from coderl import processes

Item = TypeVar("Item")
PLAIN_INTERVAL_S = 10.0


class Reporter:
    """Prints stage headings, progress with rate and ETA, remarks and facts; quiet=True prints nothing.

    Of several processes that share a command only the main one prints.
    """

    def __init__(self, *, quiet: bool = False):
        self.is_main = processes.environment_rank() == 0
        quiet = quiet or not self.is_main
        self.console = Console(stderr=True, quiet=quiet, highlight=False)

    def say(self, text: str) -> None:
        """Print one remark."""
        self.console.print(text, markup=False, soft_wrap=True)

    def facts(self, facts: dict[str, Any], out: Path | None = None) -> None:
        """Print what came of a command on standard output, in the one form that all commands end with."""
        if self.is_main:
            print_facts(facts if out is None else {**facts, "out": str(out)})

    @contextmanager
    def progress(self, title: str, *, total: int | None = None, unit: str = "", done: int = 0) -> Iterator[Bar]:
        """Yield what to tell how far along a piece of work is; `done` of `total` were finished by an earlier run."""
        bar = Bar(self, title, total, unit, done)
        if not self.console.is_terminal or self.console.quiet:
            yield bar
            bar.close()
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as shown:
            task = shown.add_task(title, total=total, completed=done, rate="")
            bar.show = lambda: shown.update(task, completed=bar.done, rate=f"{bar.rate:.3g} {unit}/s")
            yield bar

    def track(
        self, items: Iterable[Item], title: str, *, total: int | None = None, unit: str = "", done: int = 0
    ) -> Iterator[Item]:
        """Yield the items while showing how far along they are; `done` of `total` were finished by an earlier run."""
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        with self.progress(title, total=total, unit=unit, done=done) as bar:
            for item in items:
                yield item
                bar.advance()


class Bar:
    """How far along a piece of work is: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, reporter: Reporter, title: str, total: int | None, unit: str, done: int):
        self._reporter, self._title, self._total, self._unit = reporter, title, total, unit
        self._first, self.done = done, done
        self._start = self._last = time.monotonic()
        self.show: Callable[[], Any] = self._show_plainly

    @property
    def rate(self) -> float:
        """What is done in a second, earlier runs left out."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def advance(self, count: int = 1) -> None:
        """Say that so much more is done."""
        self.move_to(self.done + count)

    def move_to(self, done: int) -> None:
        """Say how much is done in all."""
        self.done = done
        self.show()

    def _show_plainly(self) -> None:
        now = time.monotonic()
        if now - self._last >= PLAIN_INTERVAL_S:
            self._last = now
            line = progress_line(self._title, self.done, self._total, self.rate, self._unit)
            self._reporter.say("  " + line)

    def close(self) -> None:
        """Say in one line what was done and how long it took."""
        elapsed = time.monotonic() - self._start
        self._reporter.say(f"  {self._title}: {self.done} {self._unit}".rstrip() + f" in {elapsed:.0f} s")


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
