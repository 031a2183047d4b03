"""What critic sampling draws and keeps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from coderl.settings import Config, Count


class BranchConfig(Config):
    """How a search from the greedy program goes on."""

    num_alternatives: Count = 3
    """Tokens beside the one drawn, at each position, that a branch may force."""
    min_prob: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """No token is forced that the model finds less likely."""
    num_branches: Count = 1
    """Branches of a problem in its first round after the greedy program."""
    growth: Annotated[float, Field(ge=1)] = 2.0
    """How many times more each round has than the one before: larger rounds cost less time and stop later."""
    max_branches: Count | None = 50
    """Branches of a problem at most."""
    stops_at_pass: bool = True
    """Whether a search ends with the round in which a program passes the example tests."""
    merge: Literal["none", "names"] = "none"
    """`names`: no token is forced that only begins a name of the program's own, or stands in a comment, a docstring or
    outside the program; and what differs from an earlier program in such alone has no branches."""
    repair_score: Annotated[float, Field(le=0)] | None = None
    """What the greedy repair of a failing program is worth beside the branches, added to that program's own score;
    None: repairs are written when there are no branches left."""


class CriticSamplingConfig(Config):
    """What critic sampling draws and keeps."""

    start: Literal["samples", "near_greedy"] = "samples"
    """`samples`: Algorithm 1, on programs drawn before. `near_greedy`: best-first search over the programs near the
    greedy one, in which the settings of `branch` count, and repairs are greedy and have branches too."""
    branch: BranchConfig = BranchConfig()
    num_samples: Count | None = None
    """N, the programs drawn for a problem in each round; None for as many as its first round holds."""
    num_repair_candidates: Count = 1
    """M, the failing programs that a repair round works on."""
    num_repair_rounds: Annotated[int, Field(ge=0)] = 1
    """Repair rounds at most; they end as soon as some program passes the example tests."""
    num_refine_rounds: Annotated[int, Field(ge=0)] = 1
    """Refine rounds at most; they end as soon as no program passes the example tests."""
    keep: Literal["last_round", "passing", "all"] = "last_round"
    """What is returned: the last round (as in Algorithm 1), the last round and all that ever passed, or everything.
    Near greedy, those that pass, or the greedy program where none does; or everything."""
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

    @model_validator(mode="after")
    def _ends(self) -> CriticSamplingConfig:
        if self.start == "near_greedy" and self.branch.max_branches is None and self.max_sampled_tokens is None:
            raise ValueError("a search near the greedy program needs branch.max_branches or max_sampled_tokens")
        return self
