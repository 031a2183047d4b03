"""Which of the programs that pass the example tests to submit: a linear judge that learns within problems.

It sees how a program was found and how many behave like it, and learns from pairs of a right and a wrong program of one
problem: what tells problems apart, not their programs, cannot help it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from coderl.critic_sampling.candidates import Candidate
from coderl.critic_sampling.ranking import Behaviour
from coderl.types import ProgramKey

FEATURES = ("log_place", "score", "class_share", "log_length")
"""log of its place among those that pass, log ratio of its forced tokens, share of those that pass that behave like it,
log of its length beside that of the first."""


def features(
    passing: Sequence[Candidate], behaviours: Mapping[ProgramKey, Behaviour]
) -> Float[np.ndarray, "N features"]:
    """Return what the judge sees of the programs of one problem that pass the example tests, in the order found."""
    acting = [behaviours.get(c.program.key, (f"alone {i}",)) for i, c in enumerate(passing)]
    sizes = Counter(acting)
    rows = [
        (
            math.log(1 + place),
            c.fork.score if c.fork else 0.0,
            sizes[name] / len(passing),
            math.log(max(len(c.program.code), 1) / max(len(passing[0].program.code), 1)),
        )
        for place, (c, name) in enumerate(zip(passing, acting, strict=True))
    ]
    return np.array(rows, dtype=np.float64).reshape(len(passing), len(FEATURES))


def fit(
    problems: Sequence[tuple[Float[np.ndarray, "_ features"], Bool[np.ndarray, " _"]]],
    *,
    decay: float = 1e-2,
    num_steps: int = 2000,
    learning_rate: float = 0.5,
) -> Float[np.ndarray, " features"]:
    """Return the weights under which right programs score above the wrong ones of their own problem.

    The loss is the mean over problems of the mean of log(1 + exp(wrong - right)) over their pairs, + decay / 2 |w|^2.
    Problems without both kinds say nothing; without any such problem all weights are 0.

    Args:
        problems: Of each, the features of its programs and which of them are right.
        decay: How strongly weights are held near 0.
        num_steps: Steps of gradient descent; the loss is convex.
        learning_rate: Of each step.
    """
    gaps = [(x[right][:, None] - x[~right][None]).reshape(-1, len(FEATURES)) for x, right in problems]
    gaps = [gap for gap in gaps if len(gap)]
    weights = np.zeros(len(FEATURES))
    if not gaps:
        return weights
    share = np.concatenate([np.full(len(gap), 1 / (len(gap) * len(gaps))) for gap in gaps])
    stacked = np.concatenate(gaps)
    for _ in range(num_steps):
        wrong = 1 / (1 + np.exp(np.clip(stacked @ weights, -50, 50)))
        weights = weights + learning_rate * ((share * wrong) @ stacked - decay * weights)
    return weights


def choose(weights: Float[np.ndarray, " features"], rows: Float[np.ndarray, "N features"]) -> int:
    """Return the position of the program with the highest score, the first found of equal ones."""
    return int(np.argmax(rows @ weights))
