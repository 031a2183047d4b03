"""The arithmetic of refining: which prefix of a passing program to keep, and how a budget divides.

Shape letters: T program tokens, U outcomes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from coderl.types import Outcome

FAILED, PASSED = 0, 1
"""The binary critic's columns."""


def binary_probs(probs: Float[np.ndarray, "T U"]) -> Float[np.ndarray, "T 2"]:
    """Return p(Failed), p(Passed) of a critic with two outcomes (as they are) or four (all but PassedTest is failing).

    Source: CodeRL section 3.3.4; the paper's critic for this has two outcomes.
    Deviation: the paper leaves open how a four-outcome head becomes binary. The first three outcomes are summed, which
        is what the binary label says (passed, or anything else), rather than FailedTest and PassedTest renormalised.

    Raises:
        ValueError: the critic has neither two nor four outcomes.
    """
    num_outcomes = probs.shape[1]
    if num_outcomes == 2:
        return probs
    if num_outcomes != len(Outcome):
        raise ValueError(f"a critic of 2 or {len(Outcome)} outcomes is needed, got {num_outcomes}")
    passed = probs[:, int(Outcome.PASSED_TEST)]
    return np.stack([1.0 - passed, passed], axis=1)


def best_prefix(token_probs: Float[np.ndarray, "T 2"]) -> int:
    """Return how many tokens of a program to keep before drawing the rest anew.

    Row t holds p(Failed) and p(Passed) after tokens 1..t+1. The prefix ends at the row with the highest p(Passed), then
    is cut before the first of its tokens after which failing is likelier than passing. Zero means: draw all of it anew.

    Source: CodeRL section 3.3.4, Algorithm 1, Eq. 11.
    Deviation: three things the paper leaves open. Of several best rows the first counts (the shorter prefix leaves more
        to draw). Of several failing-likelier tokens the first cuts, and it goes too. An even chance does not cut.
    """
    if len(token_probs) == 0:
        return 0
    longest = int(np.argmax(token_probs[:, PASSED])) + 1
    is_failing = token_probs[:longest, FAILED] > token_probs[:longest, PASSED]
    return int(np.argmax(is_failing)) if is_failing.any() else longest


def split_budget(total: int, num_parts: int) -> list[int]:
    """Return `num_parts` whole numbers that sum to `total` and differ by at most one, the larger ones first.

    Source: CodeRL Algorithm 1, N / |P| and N / M; the paper does not say where the remainder goes.

    Raises:
        ValueError: there is no part, or the total is negative.
    """
    if num_parts < 1 or total < 0:
        raise ValueError(f"a budget >= 0 over at least one part is needed, got {total} over {num_parts}")
    each, remainder = divmod(total, num_parts)
    return [each + (index < remainder) for index in range(num_parts)]
