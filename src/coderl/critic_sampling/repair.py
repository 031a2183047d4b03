"""Which failing programs to repair."""

from __future__ import annotations

from collections.abc import Sequence


def repair_candidates(values: Sequence[float], num_candidates: int) -> list[int]:
    """Return the positions of the programs to repair, best first: the highest p(Passed | W, D); ties go to the earlier.

    Source: CodeRL section 3.3.4, Eq. 12 and Algorithm 1: the top M of the failing programs, or all where M is more.
    """
    order = sorted(range(len(values)), key=lambda index: (-values[index], index))
    return order[:num_candidates]
