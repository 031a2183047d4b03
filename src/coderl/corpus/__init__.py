"""Source files for pretraining: where they come from, what licence they are under, which of them are worth reading.

Nothing here imports or runs a file that it looks at.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """One file that was kept."""

    path: str
    """The folder's name and the path below it."""
    project: str
    """What it was installed with, or the folder it lies in; a project is of one split."""
    licence: str | None
    """An SPDX expression; None where it is unknown (`any_licence`)."""
    text: str
    """With line feeds as line ends and without a byte-order mark."""


@dataclass(frozen=True, slots=True)
class DroppedFile:
    """One file that was not, and why."""

    path: str
    project: str
    licence: str | None
    reason: str
    twin: str | None
    """The kept file that it repeats."""
