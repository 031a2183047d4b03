"""Solutions -> the warm-started actor: cross-entropy on reference programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from coderl.models.lm import LanguageModel
from coderl.models.lora import LoraConfig
from coderl.training import losses
from coderl.training.loop import StepMetrics, Validate, train
from coderl.training.losses import CrossEntropyExample, Reduction
from coderl.training.optim import OptimConfig


class WarmStartConfig(BaseModel):
    """Supervised fine-tuning; the defaults are the paper's for CodeT5-large."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optim: OptimConfig = OptimConfig(
        learning_rate=2e-5,
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


def warm_start(
    actor: LanguageModel,
    examples: Sequence[CrossEntropyExample],
    config: WarmStartConfig,
    *,
    checkpoint_dir: Path | None = None,
    validate: Validate | None = None,
) -> Iterator[StepMetrics]:
    """Yield the metrics of each update of `actor` on the examples.

    Source: CodeRL Eq. 1 and section 4.2. Rejection sampling and the CE(+W^s) row of Table 3 are this function on the
    samples that passed.
    """
    loss_fn = partial(losses.cross_entropy_of, reduction=config.reduction)
    return train(
        actor,
        examples,
        loss_fn,
        config.optim,
        checkpoint_dir=checkpoint_dir,
        length_of=losses.num_tokens,
        validate=validate,
    )
