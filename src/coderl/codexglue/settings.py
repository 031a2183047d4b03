"""Settings of fine-tuning on CodeXGLUE."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from coderl.codexglue.pairs import Task
from coderl.settings import Config
from coderl.training.settings import WarmStartConfig

CODET5: dict[Task, tuple[int, int, int, int, int, float]] = {
    "code-to-text": (256, 128, 15, 2, 48, 5e-5),
    "text-to-code": (320, 150, 30, 3, 32, 1e-4),
    "code-to-code": (320, 256, 100, 5, 25, 5e-5),
    "refinement": (240, 240, 50, 5, 32, 5e-5),
}
"""CodeT5-base's source tokens, target tokens, epochs, patience, batch size and learning rate for each task."""


class CodexglueTask(Config):
    """A task, and how long its texts may be: what is not given is CodeT5-base's for the task."""

    task: Task
    """A summary of code, a method from a description, code in another language, or a repaired method."""
    max_source_tokens: Annotated[int, Field(ge=8)]
    """A longer text to read loses its middle."""
    max_target_tokens: Annotated[int, Field(ge=8)]
    """A longer text to write is cut."""

    @model_validator(mode="before")
    @classmethod
    def _with_lengths(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("task") not in CODET5:
            return given
        source, target, *_ = CODET5[given["task"]]
        return {"max_source_tokens": source, "max_target_tokens": target, **given}


class CodexglueConfig(CodexglueTask, WarmStartConfig):
    """Fine-tuning on a task of CodeXGLUE; what is not given is CodeT5-base's for the task.

    Source: CodeT5's `sh/run_exp.py`: AdamW without decay, 1,000 steps of warm-up, then linearly to 0. Deviation: the
        weights kept are those of the lowest validation loss (there also of the best BLEU), gradients are clipped, and
        small refinement has the lengths of the medium one (there 130 and 120).
    """

    @model_validator(mode="before")
    @classmethod
    def _with_optim(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("task") not in CODET5:
            return given
        _, _, num_epochs, patience, batch_size, rate = CODET5[given["task"]]
        optim = {"num_epochs": num_epochs, "patience": patience, "batch_size": batch_size, "learning_rate": rate}
        optim |= {"schedule": "linear", "warmup_steps": 1000, "weight_decay": 0.0, "checkpoint_every_steps": 500}
        own = given.get("optim") or {}
        own = own.model_dump(exclude_unset=True) if isinstance(own, BaseModel) else own
        return {**given, "optim": {**optim, **own}}
