"""How weights are moved, and what each training learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from coderl.critic.settings import Pooling
from coderl.models.settings import LoraConfig
from coderl.settings import Config, Count, Incidental, Reads

Reduction = Literal["token_mean", "sequence_sum", "sequence_mean"]
"""How a sum over tokens becomes one number; see `training.losses`."""


class OptimConfig(Config):
    """How weights are moved. The run ends at the first of `num_epochs`, `num_steps`, `max_tokens` and `max_cpu_s`."""

    optimiser: Literal["adamw", "adafactor"] = "adamw"
    """Adafactor moves each tensor in proportion to its size, which T5 from nothing needs: its embeddings begin at 1,
    its queries at 0.01, and no rate of AdamW suits both."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak rate. None: what suits the number of weights, 2e-5 for 770 million as in the paper, 1e-3 for 0.3 million; a
    tenth of it for reinforcement learning; see `optim.suitable_rate`. Of Adafactor the share of its size that a tensor
    moves in a step, 0.01."""
    batch_size: int = Field(default=32, ge=1)
    """Examples an update, over all processes and accumulation steps together."""
    num_epochs: int | None = Field(default=None, ge=1)
    """None, and no other limit either: 10, the paper\'s."""
    num_steps: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    """End after this many tokens of prompts and programs: for controls of equal compute."""
    max_cpu_s: float | None = Field(default=None, gt=0)
    """End after this many CPU-seconds of updates in the main process: for controls of equal compute, and not
    reproducible."""
    warmup_steps: int = Field(default=0, ge=0)
    """Updates over which the rate rises linearly from 0."""
    schedule: Literal["constant", "linear", "polynomial"] = "constant"
    """The paper's warm start is `polynomial` with power 0.5 to half the peak rate."""
    power: float = Field(default=0.5, gt=0)
    """Of the polynomial schedule."""
    min_learning_rate: float = Field(default=0.0, ge=0)
    """Where the linear and polynomial schedules end."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Not applied to norms and biases."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of AdamW."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Parts that a batch is worked off in: less memory, the same update. On CPUs several processes share these parts;
    on GPUs each has so many."""
    mixed_precision: Literal["no", "bf16", "fp16"] | None = None
    """None leaves it to `accelerate launch`."""
    seed: int = 0
    bucket_by_length: bool = True
    """Fill batches with examples of like length; 1.8 times faster than padding to the longest of all."""
    checkpoint_every_steps: Annotated[int | None, Incidental("a run resumes exactly from any")] = Field(
        default=None, ge=1
    )
    """None: at the end only."""
    validate_every_steps: int | None = Field(default=None, ge=1)
    """None: after every epoch."""
    patience: int | None = Field(default=None, ge=1)
    """End after this many validations without a new best; None: never."""
    keep_best: bool = True
    """End with the weights of the best validation (the start included), where there is validation."""
    best_metric: str = "loss"
    """Which of the validation's figures decides."""
    best_is: Literal["lowest", "highest"] = "lowest"

    @model_validator(mode="after")
    def _has_whole_parts(self) -> OptimConfig:
        if self.batch_size < self.gradient_accumulation_steps:
            raise ValueError(f"batch_size {self.batch_size} is less than gradient_accumulation_steps")
        return self


class WarmStartConfig(Config):
    """Supervised fine-tuning; the defaults are the paper's for CodeT5-large."""

    optim: OptimConfig = OptimConfig(
        batch_size=64,
        num_epochs=10,
        warmup_steps=500,
        schedule="polynomial",
        min_learning_rate=1e-5,
    )
    reduction: Reduction = "token_mean"
    """How tokens add up; `sequence_sum` is the paper's Eq. 1 by the letter."""
    lora: LoraConfig | None = None
    """Train low-rank adapters in place of the model's own weights; needs the extra `lora`."""


class PretrainConfig(Config):
    """Masked spans, then next tokens (section 3.2): on the solutions' source text, or on a corpus."""

    corpus: Annotated[Path | None, Reads()] = None
    """What `build-corpus` wrote; None: the solutions of the problems."""
    num_shards: Count | None = None
    """Only the first so many of the corpus's training shards, each of which is a sample of all its projects."""
    masked_span: OptimConfig | None = None
    next_token: OptimConfig | None = None
    window_tokens: Annotated[int, Field(ge=4)] = 512
    """The corpus's files are joined and cut every so many tokens."""
    num_validation: Count = 256
    """Windows of the corpus's validation split that the loss is reported on."""


class CriticTrainingConfig(Config):
    """How the critic learns."""

    fit_head: bool = True
    """First fit the linear layer to the untrained states (ours): a convex problem, solved at the price of one pass."""
    head_l2: float = Field(default=0.02, gt=0)
    """Of that fit, on standardised inputs: for the many states; a fortieth of it for the few likelihoods."""
    optim: OptimConfig | None = OptimConfig(batch_size=32, num_epochs=10, patience=2)
    """Of the whole network, afterwards; None (`"none"` in a recipe): the linear layer alone. With validation problems,
    the best weights are kept, those before the first step included."""
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    """`balanced` lets rare outcomes count as much as frequent ones; its probabilities are then not calibrated. Or one
    weight an outcome."""
    prefix_weight: float = Field(default=0.0, ge=0)
    """Weight of the same loss at every prefix (ours): prefix values become estimates of what comes of the prefix."""


class CriticConfig(Config):
    """The error predictor."""

    init: Literal["actor"] | str = "actor"
    """`actor` (a copy of the warm-started actor's backbone), a model folder, or a hub name; its tokenizer must be the
    actor's."""
    num_layers: Count | None = None
    """Keep only so many of the model's first layers: a critic can be smaller than its actor, as the paper's is."""
    pooling: Pooling = "prefix"
    """What a prefix is judged by; `legacy` is the original's code."""
    uses_likelihood: bool = True
    """Show the linear layer how likely the model itself finds the program (ours)."""
    all_rounds: bool = True
    """Train in each round on the samples of all rounds so far, not on the last one's alone."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the problems that it is never trained on: half of them to stop early and to fit its temperature, the
    other half to measure it on."""
    use_solutions: bool = False
    """Train also on reference solutions, as PassedTest, as the original does."""
    training: CriticTrainingConfig = CriticTrainingConfig()


class RepairConfig(Config):
    """The program-repair model (Eq. 13)."""

    training: WarmStartConfig = WarmStartConfig()
    max_pairs: Count = 20_000
    use_samples: bool = True
    """What a failed program should become is also a sample that passed the training problem's hidden tests (ours), so
    that problems without a solution teach repair too; off, as in the paper, a reference solution only."""
