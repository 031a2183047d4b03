"""What the function of a stage works with: its folder, its progress, and its share of the parts and updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

from coderl import processes, records
from coderl.processes import Group
from coderl.stages.console import Bar, Reporter
from coderl.tables import PartedTable

Item = TypeVar("Item")
Facts = dict[str, Any]
"""What a stage says of its result, for people: counts and measures; its cost is added."""


@dataclass(slots=True)
class Work:
    """What the function of a stage is given besides its inputs and settings."""

    folder: Path
    """Where it writes."""
    reporter: Reporter
    group: Group = field(default_factory=processes.Group)
    """The processes that share the stage."""
    _bar: Bar | None = None

    @property
    def is_main(self) -> bool:
        """True in the process that writes what there is one of: in a shared stage, all but parts."""
        return self.group.is_main

    @property
    def checkpoints(self) -> Path:
        """Where a training leaves what it continues from; removed when the stage ends."""
        return self.folder / ".checkpoints"

    def parts(
        self,
        table: PartedTable,
        parts: Sequence[Item],
        title: str,
        unit: str = "chunks",
        sizes: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Item]]:
        """Yield, with their numbers, the parts of a table that this process is to write, and show progress.

        Parts that were written before are left out. Several processes share the rest; when the last part has been
        yielded, all wait until every part is there.

        Args:
            table: a part is done when it has it.
            parts: what each is made from.
            title: what is being done.
            unit: what `sizes` count.
            sizes: how much each part is, for a stage that says within a part what it `did`.
        """
        sizes = [1] * len(parts) if sizes is None else sizes
        todo = self.group.on_main(lambda: [index for index in range(len(parts)) if not table.has(index)])
        done = sum(sizes) - sum(sizes[index] for index in todo)
        ends = [done, *(done + size for size in accumulate(sizes[index] for index in todo))]
        with self.reporter.progress(title, total=sum(sizes), unit=unit, done=done) as self._bar:
            bar = self._bar
            for index in self.group.deal(todo, lambda number: bar.move_to(ends[number])):
                yield index, parts[index]
            self.group.gather(None)
            self._bar.move_to(ends[-1])
        self._bar = None
        self.group.wait_for_files([table.part(index) for index in todo])

    def did(self, count: int = 1) -> None:
        """Show that so much of the part under way is done."""
        if self._bar is not None:
            self._bar.advance(count)

    def facts(self, function: Callable[[], Facts]) -> Facts:
        """Return the facts that a function counts, in the process where they are written down; elsewhere none."""
        return function() if self.is_main else {}

    def save(self, network: Any, name: str = "model") -> None:
        """Write a network that all processes have trained to a folder of the stage."""
        self.group.on_main(lambda: network.save(self.folder / name))

    def log_steps(self, steps: Iterable[Any], title: str, *, total: int | None = None, below: str = "") -> Facts:
        """Run a training to its end, with the figures of each update in `metrics.jsonl`; return its facts."""
        path = self.folder / below / "metrics.jsonl"
        noted = {record["step"] for record in records.read_jsonl(path)}
        for step in self.reporter.track(steps, title, total=total, unit="updates"):
            if self.is_main and step.step not in noted:
                records.append_jsonl(path, step.record())
        last = records.read_jsonl(path)[-1:] if self.is_main else []  # also where an earlier run took the last step
        if not last:
            return {"num_steps": 0}
        spent = {"num_trained_tokens": last[0]["num_tokens"], "update_cpu_s": round(last[0]["cpu_s"], 2)}
        return {"num_steps": last[0]["step"], "last_loss": round(last[0]["loss"], 4), **spent}
