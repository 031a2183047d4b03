"""Source files as windows of tokens: packed, and read from Parquet shards of which few are in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from coderl import tables
from coderl.types import InputError

SHARDS_HELD = 2


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """One file of a corpus."""

    path: str
    """The folder's name and the path below it."""
    project: str
    """What it was installed with, or the folder it lies in; a project is of one split."""
    licence: str | None
    """An SPDX expression; None where it is unknown (`any_licence`)."""
    text: str
    """With line feeds as line ends and without a byte-order mark."""


@dataclass(frozen=True, slots=True)
class Window:
    """A run of tokens; where a file ends in it stands the end of sequence."""

    tokens: tuple[int, ...]


def pack(files: Iterable[Sequence[int]], num_tokens: int) -> Iterator[Window]:
    """Yield the files' tokens end to end, cut every `num_tokens`; none is lost, none but the last two are shorter.

    No window has fewer than two tokens if the files have four: each can be cut in two.
    """
    held: list[int] = []
    for file in files:
        held.extend(file)
        start = 0
        while len(held) - start >= num_tokens + 2:
            yield Window(tuple(held[start : start + num_tokens]))
            start += num_tokens
        del held[:start]
    if len(held) > num_tokens:
        yield Window(tuple(held[: len(held) // 2]))
        del held[: len(held) // 2]
    if held:
        yield Window(tuple(held))


class Windows(Sequence[list[int]]):
    """The windows of all shards of a folder; two shards at a time are in memory."""

    def __init__(self, folder: Path):
        """Open the table in `folder`.

        Raises:
            InputError: there is no window in it.
        """
        self.parts = tables.parts_of(folder)
        self.sizes = [tables.num_rows(part) for part in self.parts]
        self.starts = [0, *accumulate(self.sizes)]
        if not self.starts[-1]:
            raise InputError(f"{folder}: no tokens to learn from")
        self._read = lru_cache(SHARDS_HELD)(_read)

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> list[int]:  # type: ignore[override]
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        tokens, bounds = self._read(self.parts[shard])
        row = index - self.starts[shard]
        return tokens[bounds[row] : bounds[row + 1]].tolist()

    def lengths(self) -> list[int]:
        """Return the tokens of each window."""
        return [n for part in self.parts for n in np.diff(self._read(part)[1]).tolist()]


def _read(part: Path) -> tuple[np.ndarray, np.ndarray]:
    column = pq.read_table(part, columns=["tokens"])["tokens"].combine_chunks()
    return column.values.to_numpy().astype(np.int32), column.offsets.to_numpy()
