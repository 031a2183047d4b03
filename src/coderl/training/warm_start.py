"""Solutions -> the warm-started actor: cross-entropy on reference programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from coderl.models.lm import LanguageModel
from coderl.training import losses
from coderl.training.loop import StepMetrics, Validate, train
from coderl.training.losses import CrossEntropyExample
from coderl.training.settings import WarmStartConfig


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
