"""Failed samples and solutions -> the repair model: cross-entropy from a failed program to its nearest solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher


@dataclass(frozen=True, slots=True)
class RepairPair:
    """A failed program and what it should become."""

    failed_index: int
    """Position among the failed programs."""
    solution: str
    similarity: float
    """2 x matching characters / all characters, in [0, 1]."""


def repair_pairs(failed: Sequence[str], solutions: Sequence[str]) -> list[RepairPair]:
    """Return, for each failed program of ONE problem, the reference solution that takes the least change.

    Source: CodeRL Eq. 13. Deviation: the paper pairs a failed program with every solution; a repair model trained so
        learns to write the solution anew, whatever it was given.

    Args:
        failed: texts of programs that did not pass.
        solutions: texts of the problem's reference solutions; the first of equally near ones is taken.
    """
    pairs = []
    for index, program in enumerate(failed):
        nearest = nearest_text(program, solutions)
        if nearest is not None:
            pairs.append(RepairPair(index, *nearest))
    return pairs


def nearest_text(text: str, candidates: Sequence[str]) -> tuple[str, float] | None:
    """Return the candidate most similar to `text`, and how similar it is; None without candidates."""
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(text)
    best: tuple[str, float] | None = None
    for candidate in candidates:
        matcher.set_seq1(candidate)
        floor = -1.0 if best is None else best[1]
        if matcher.real_quick_ratio() > floor and matcher.quick_ratio() > floor and matcher.ratio() > floor:
            best = candidate, matcher.ratio()
    return best
