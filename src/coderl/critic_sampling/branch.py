"""The branches of a program: its beginnings with one token exchanged for another that the model found likely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Branch(NamedTuple):
    """A beginning that leaves a program with its last token."""

    score: float
    """How likely the exchanged tokens are beside those in whose place they stand: the log ratios, added up, in nats.
    0 where nothing was exchanged; best-first search takes the highest."""
    prefix: tuple[int, ...]
    rank: int
    """1 for the likeliest token beside the one that was drawn, 2 for the next, ...; 0 where nothing was exchanged."""


ROOT = Branch(0.0, (), 0)
"""The beginning of the greedy program."""


def branches(
    tokens: Sequence[int],
    likeliest: Int[np.ndarray, "T K"],
    log_probs: Float[np.ndarray, "T K"],
    *,
    num_forced: int,
    score: float,
    num_alternatives: int,
    min_prob: float,
) -> list[Branch]:
    """Return the branches of a program, position by position, the likelier first.

    At each position t after the forced tokens, each of the likeliest tokens v beside the drawn w_t gives the prefix
    w_<t v, with the program's score + log p(v | w_<t) - log p(w_t | w_<t). The programs that begin with such prefixes
    have no token sequence in common with each other or with the branches of any other program of the same search.

    Args:
        tokens: The program, the end of sequence included.
        likeliest: What the model found likeliest at each position after the forced ones, best first, w_t among them.
        log_probs: log p of each.
        num_forced: Tokens at the beginning that the model did not choose.
        score: The program's own, as a branch.
        num_alternatives: Tokens beside w_t at each position, at most.
        min_prob: None that is less likely.
    """
    lowest = math.log(min_prob)
    found = []
    for t, (ids, logs) in enumerate(zip(likeliest.tolist(), log_probs.tolist(), strict=True), start=num_forced):
        drawn = logs[ids.index(tokens[t])]
        others = [(v, log) for v, log in zip(ids, logs, strict=True) if v != tokens[t]]
        for rank, (v, log) in enumerate(others[:num_alternatives], start=1):
            if log >= lowest:
                found.append(Branch(score + log - drawn, (*tokens[:t], v), rank))
    return found
