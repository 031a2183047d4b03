"""Outcome -> the critic's column: stated once, and free of torch."""

from __future__ import annotations

from coderl.types import Outcome


def outcome_column(outcome: Outcome, num_outcomes: int) -> int:
    """Return the critic's column for `outcome`: its number of 4, or of 2 whether it passed.

    The last column is `passed` in both.
    """
    if num_outcomes == len(Outcome):
        return int(outcome)
    assert num_outcomes == 2, num_outcomes
    return int(outcome is Outcome.PASSED_TEST)
