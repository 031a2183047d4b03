"""What a sample earns, and how the actor learns from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from coderl.engines.settings import SamplingConfig
from coderl.models.settings import LoraConfig
from coderl.rl.returns import AdvantageFilter, Baseline, Reward, Spread
from coderl.settings import Config, Count, Incidental
from coderl.training.settings import OptimConfig, Reduction


class ReturnsConfig(Config):
    """What multiplies the gradient of log p (sections 3.3.1 to 3.3.3)."""

    reward: Reward = "outcome"
    baseline: Baseline = "greedy"
    spread: Spread = "critic"
    mean_one: bool = False
    """Divide the critic's values of a program by their mean, so that they say where its return goes and not how much of
    it there is."""
    filter: AdvantageFilter = "all"
    negative_scale: Annotated[float, Field(ge=0, le=1)] = 0.5
    gae_decay: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Lambda of `gae`: 1 looks at the program's end alone, 0 at the next value alone."""
    count_copies: bool = True
    """Whether a program drawn again for a problem counts again (the policy gradient) or once: then a problem that is
    always solved weighs no more than one that was solved for the first time."""


class ActorTrainingConfig(Config):
    """L = rl_weight * L_rl + ce_weight * L_ce, and what is added to it beyond the paper."""

    optim: OptimConfig = OptimConfig(batch_size=32, num_epochs=1)
    """`batch_size` counts samples; solutions come on top, see `solution_share`."""
    rl_weight: float = Field(default=1.0, ge=0)
    ce_weight: float = Field(default=1.0, ge=0)
    """Equal weights in each step are the paper's; the original alternates steps."""
    solution_share: float = Field(default=1.0, gt=0, le=1)
    """Solutions drawn for each sample. A model that knows them well learns more from a step on fewer."""
    reduction: Reduction = "token_mean"
    """How tokens add up in both terms; `sequence_sum` is the paper's Eq. 1 and 14 by the letter."""
    clip_range: float | None = Field(default=None, gt=0, lt=1)
    """PPO's; needs samples with `sampling_log_probs`. None: plain policy gradient."""
    clip_high: float | None = Field(default=None, gt=0)
    """How far above 1 the ratio may count, where that is not `clip_range` too (DAPO: 0.28 beside 0.2)."""
    kl_weight: float = Field(default=0.0, ge=0)
    """Of the KL divergence to the reference model, measured on the samples."""
    lora: LoraConfig | None = None
    """Train low-rank adapters in place of the model's own weights; needs the extra `lora`."""

    @property
    def clip(self) -> tuple[float, float]:
        """How far below and above 1 a ratio counts, where `clip_range` is given."""
        assert self.clip_range is not None
        return self.clip_range, self.clip_range if self.clip_high is None else self.clip_high


class OnlineSamplingConfig(SamplingConfig):
    """How online learning draws: from the whole softmax, so that its log-probabilities are the policy's own."""

    temperature: float = Field(default=1.0, gt=0)
    """The policy that learns is the softmax at this temperature."""
    top_p: Annotated[float, Field(ge=1, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=0)] = 0


class OnlineReturnsConfig(ReturnsConfig):
    """What a program earns in online learning: by default 1 for passing, normalised within its group."""

    reward: Reward = "passing"
    baseline: Baseline = "group_normalised"
    spread: Spread = "uniform"


class OnlineOptimConfig(OptimConfig):
    """How weights are moved after a draw: a `batch_size` above its programs means one update."""

    batch_size: int = Field(default=4096, ge=1)
    num_steps: int | None = Field(default=100, ge=1)


class OnlineTrainingConfig(ActorTrainingConfig):
    """How the actor is updated after each draw: by default once, by its own programs alone."""

    optim: OnlineOptimConfig = OnlineOptimConfig()  # pyright: ignore[reportIncompatibleVariableOverride]
    ce_weight: float = Field(default=0.0, ge=0)


class OnlineConfig(Config):
    """Online learning: a draw of the policy as it is, what its programs earn, and the updates that follow.

    The defaults are GRPO's: groups of eight, each program's return normalised within its group, one update a draw.
    """

    problems_per_draw: Count = 16
    num_samples: Count = 8
    """Programs of each of them."""
    num_passes: Count = 1
    """How often the programs of a draw are gone through; more than one needs `training.clip_range`."""
    num_parts: Annotated[int, Incidental("what is drawn together does not decide what is drawn")] = Field(
        default=2, ge=1
    )
    """A draw is made in so many parts: programs of one run while the next is drawn."""
    sampling: OnlineSamplingConfig = OnlineSamplingConfig()
    returns: OnlineReturnsConfig = OnlineReturnsConfig()
    whiten: bool = False
    """Give the token returns of a draw mean 0 and deviation 1, which the `tracker` baseline wants."""
    max_importance: Annotated[float | None, Field(ge=1)] = 2.0
    """Where programs are drawn by rounded weights or another engine: each token's return is multiplied by how much
    likelier the trained model finds it, at most this. None: the difference is ignored."""
    mask_cut: bool = False
    """Learn nothing from programs that were cut at `sampling.max_new_tokens`."""
    choose: Literal["shuffled", "uncertain"] = "shuffled"
    """Problems in shuffled order, or more often those that are solved now and then: neither never nor always."""
    memory: Annotated[float, Field(ge=0, le=1)] = 0.9
    """What a problem's earlier programs count, at each draw of it, in its running pass rate and return."""
    replay_passes: bool = False
    """Keep the last program that passed of a problem that is rarely solved, and add it to a draw in which none does."""
    averaging: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Draw with, and end with, an average of the past weights that moves 1 - this at each draw, faster at first."""
    critic: Literal["none", "head", "network"] = "none"
    """A linear layer on the actor's own states, or on those of a copy of the actor that only the critic moves."""
    critic_weight: float = Field(default=0.5, ge=0)
    critic_decay: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Lambda of the critic's targets, whatever the actor's; 1: what became of the whole program."""
    critic_draws: Annotated[int, Field(ge=0)] = 0
    """Draws at the start, at most, from which the critic alone learns, until its loss has settled."""
    entropy_weight: float = Field(default=0.0, ge=0)
    """Of the mean entropy of the next token, which is subtracted from the loss."""
    max_tokens: Count | None = None
    """End once so many tokens were drawn and trained on together: for comparisons at equal cost."""
    max_wall_s: float | None = Field(default=None, gt=0)
    """End after this many seconds in this process, for a machine that is lent for a while. Not reproducible."""
    measure_rows: Annotated[int, Incidental("a row does not depend on those beside it")] = Field(default=32, ge=1)
    """Programs in a forward pass without gradients."""
    training: OnlineTrainingConfig = OnlineTrainingConfig()

    @model_validator(mode="after")
    def _is_on_policy(self) -> OnlineConfig:
        if self.num_passes > 1 and self.training.clip_range is None:
            raise ValueError(f"num_passes {self.num_passes}: programs that are used again need training.clip_range")
        return self

    @model_validator(mode="after")
    def _has_the_critic_it_needs(self) -> OnlineConfig:
        if self.critic == "none" and (self.returns.spread in ("critic", "gae") or self.critic_draws):
            raise ValueError(f"returns.spread {self.returns.spread!r} and critic_draws need a critic: head or network")
        return self
