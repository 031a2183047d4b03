"""What a sample earns, and how the actor learns from it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from coderl.models.settings import LoraConfig
from coderl.rl.returns import AdvantageFilter, Baseline, Spread
from coderl.settings import Config
from coderl.training.settings import OptimConfig, Reduction


class ReturnsConfig(Config):
    """What multiplies the gradient of log p (sections 3.3.1 to 3.3.3)."""

    baseline: Baseline = "greedy"
    spread: Spread = "critic"
    mean_one: bool = False
    """Divide the critic's values of a program by their mean, so that they say where its return goes and not how much of
    it there is."""
    filter: AdvantageFilter = "all"
    negative_scale: Annotated[float, Field(ge=0, le=1)] = 0.5
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
    kl_weight: float = Field(default=0.0, ge=0)
    """Of the KL divergence to the reference model, measured on the samples."""
    lora: LoraConfig | None = None
    """Train low-rank adapters in place of the model's own weights; needs the extra `lora`."""
