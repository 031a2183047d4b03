"""Settings of fine-tuning on CodeXGLUE."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from coderl.codexglue.pairs import Task
from coderl.training.settings import WarmStartConfig


class CodexglueConfig(WarmStartConfig):
    """Fine-tuning on a task of CodeXGLUE; what is not given is CodeT5's for the task, see `codexglue_config`."""

    max_source_tokens: Annotated[int, Field(ge=8)] = 320
    """A longer text to read loses its middle."""
    max_target_tokens: Annotated[int, Field(ge=8)] = 256
    """A longer text to write is cut."""


def codexglue_config(task: Task, given: CodexglueConfig) -> CodexglueConfig:
    """Return the settings of CodeT5-base for a task, those that `given` names in their place.

    Source: CodeT5's `sh/run_exp.py`: AdamW without decay, 1,000 steps of warm-up, then linearly to 0. Deviation: the
        weights kept are those of the lowest validation loss (there also of the best BLEU), gradients are clipped, and
        small refinement has the lengths of the medium one (there 130 and 120).
    """
    lengths, num_epochs, patience, batch_size, rate = {
        "code-to-text": ((256, 128), 15, 2, 48, 5e-5),
        "text-to-code": ((320, 150), 30, 3, 32, 1e-4),
        "code-to-code": ((320, 256), 100, 5, 25, 5e-5),
        "refinement": ((240, 240), 50, 5, 32, 5e-5),
    }[task]
    optim = {"num_epochs": num_epochs, "patience": patience, "batch_size": batch_size, "learning_rate": rate,
             "schedule": "linear", "warmup_steps": 1000, "weight_decay": 0.0,
             "checkpoint_every_steps": 500}  # fmt: skip
    own = given.model_dump(exclude_unset=True)
    settings = {"max_source_tokens": lengths[0], "max_target_tokens": lengths[1], **own}
    return CodexglueConfig.model_validate({**settings, "optim": {**optim, **own.get("optim", {})}})
