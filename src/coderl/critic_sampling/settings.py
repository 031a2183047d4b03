"""What critic sampling draws and keeps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from coderl.settings import Config, Count


class CriticSamplingConfig(Config):
    """What critic sampling draws and keeps."""

    num_samples: Count | None = None
    """N, the programs drawn for a problem in each round; None for as many as its first round holds."""
    num_repair_candidates: Count = 1
    """M, the failing programs that a repair round works on."""
    num_repair_rounds: Annotated[int, Field(ge=0)] = 1
    """Repair rounds at most; they end as soon as some program passes the example tests."""
    num_refine_rounds: Annotated[int, Field(ge=0)] = 1
    """Refine rounds at most; they end as soon as no program passes the example tests."""
    keep: Literal["last_round", "passing", "all"] = "last_round"
    """What is returned: the last round (as in Algorithm 1), the last round and all that ever passed, or everything."""
    prefix: Literal["critic", "random", "empty"] = "critic"
    """How much of a passing program is kept: what the critic says, or, as controls, any proper prefix, or nothing."""
    repair_order: Literal["critic", "random"] = "critic"
    """Which failing programs are repaired: those the critic thinks closest to passing, or, as a control, any."""
    fallback: Literal["keep", "sample_more"] = "keep"
    """For a problem on which no round is possible: return its first round, or add N programs at the same cost (with
    `max_sampled_tokens`, N more and more, until that is spent)."""
    max_sampled_tokens: Count | None = None
    """Tokens drawn for a problem at most, its first round included: the rounds end, within a round too, with the last
    program that fits. The candidates of a smaller budget are the first ones of a larger; best with `keep = "all"`."""
    max_executed_tests: Count | None = None
    """Example tests run for a problem at most: programs beyond have no verdict, and the rounds end."""
