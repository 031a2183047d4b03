"""Source files for pretraining: where they come from, what licence they are under, which of them are worth reading.

Nothing here imports or runs a file that it looks at.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DroppedFile:
    """One file that was not, and why."""

    path: str
    project: str
    licence: str | None
    reason: str
    twin: str | None
    """The kept file that it repeats."""
