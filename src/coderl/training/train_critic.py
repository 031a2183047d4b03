"""Programs with known outcomes -> the critic, stopped and chosen on held-out problems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from coderl.critic.calibration import auroc
from coderl.critic.columns import outcome_column
from coderl.critic.model import Critic
from coderl.training import losses
from coderl.training.loop import StepMetrics, train
from coderl.training.losses import CriticExample
from coderl.training.optim import OptimConfig
from coderl.types import Outcome


class CriticTrainingConfig(BaseModel):
    """How the critic learns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optim: OptimConfig = OptimConfig(learning_rate=2e-5, batch_size=32, num_epochs=10, patience=2)
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` lets rare outcomes count as much as frequent ones; its probabilities are then not calibrated."""
    prefix_weight: float = Field(default=0.0, ge=0)
    """Weight of the same loss at every prefix (ours): prefix values become estimates of what comes of the prefix."""


def train_critic(
    critic: Critic,
    examples: Sequence[CriticExample],
    config: CriticTrainingConfig,
    *,
    validation: Sequence[CriticExample] = (),
    checkpoint_dir: Path | None = None,
) -> Iterator[StepMetrics]:
    """Yield the metrics of each update of `critic`; it ends with the weights of the lowest validation loss.

    Source: CodeRL section 3.3.3. Deviation: the original has no validation and trains for 10 epochs, which over-fits.

    Args:
        critic: of 4 outcomes or binary.
        examples: programs of the training problems; solutions may be among them, as PASSED_TEST.
        config: `optim.patience` counts validations.
        validation: programs of *other* problems.
        checkpoint_dir: see `loop.train`.
    """
    weights = None
    if config.class_weights == "balanced":
        columns = [outcome_column(e.outcome, critic.num_outcomes) for e in examples]
        weights = losses.balanced_weights(columns, critic.num_outcomes)
    loss_fn = partial(losses.critic_loss_of, class_weights=weights, prefix_weight=config.prefix_weight)
    validate = partial(critic_validation, critic, validation, config) if validation else None
    return train(
        critic,
        examples,
        loss_fn,
        config.optim,
        checkpoint_dir=checkpoint_dir,
        length_of=losses.num_tokens,
        validate=validate,
    )


@torch.inference_mode()
def critic_validation(
    critic: Critic, examples: Sequence[CriticExample], config: CriticTrainingConfig
) -> dict[str, float]:
    """Return the unweighted loss (with the prefix term, if trained), accuracy and AUROC of passing on the examples."""
    order = sorted(examples, key=losses.num_tokens)
    totals: dict[str, float] = {}
    scores: list[float] = []
    for start in range(0, len(order), config.optim.batch_size):
        part = order[start : start + config.optim.batch_size]
        loss, metrics = losses.critic_loss_of(critic, part, order, prefix_weight=config.prefix_weight)
        for name, value in {"loss": loss.item(), **metrics}.items():
            totals[name] = totals.get(name, 0.0) + value
        batch = critic.model.collate([e.prompt for e in part], [e.program for e in part])
        scores += critic.program_logits(batch).float().softmax(-1)[:, -1].tolist()
    totals["auroc"] = auroc(scores, [e.outcome is Outcome.PASSED_TEST for e in order])
    return totals
