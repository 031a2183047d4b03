"""A training run on disk: weights, optimiser and position, whole or absent, the last two of them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from coderl import processes
from coderl.processes import Group
from coderl.records import atomic_dir, read_json, write_json
from coderl.types import InputError

PROGRESS_FILE = "progress.json"
NUM_KEPT = 2


@dataclass
class Progress:
    """Where a training run stands; with weights and optimiser, all that the rest of the run depends on."""

    step: int = 0
    """Updates taken."""
    epoch: int = 0
    num_batches_done: int = 0
    """Of this epoch."""
    epochs_done: float = 0.0
    num_tokens: int = 0
    """Tokens of prompts and programs trained on, where the caller says how many an example has."""
    cpu_s: float = 0.0
    """CPU-seconds spent in updates, validation and the caller's own work left out."""
    best_value: float | None = None
    best_step: int = 0
    num_validations_since_best: int = 0
    has_stopped: bool = False
    """True once validation has not improved for `patience` times."""


def save(
    accelerator: Accelerator,
    folder: Path,
    progress: Progress,
    fingerprint: dict[str, Any],
    state: dict[str, Any] | None = None,
) -> None:
    """Write the checkpoint of `progress.step`, with what else the run remembers, and delete all but the last two."""
    group = processes.group()
    with _shared_atomic_dir(group, folder / f"step-{progress.step:08d}") as temporary:
        with _without_warnings("accelerate.utils.other"):  # at every save it names the tied embeddings, which are fine
            accelerator.save_state(str(temporary), safe_serialization=True)
        if group.is_main:
            write_json(
                temporary / PROGRESS_FILE, {"fingerprint": fingerprint, "progress": asdict(progress), "state": state}
            )
    if group.is_main:
        for old in sorted(folder.glob("step-*"))[:-NUM_KEPT]:
            shutil.rmtree(old)


def restore(
    accelerator: Accelerator, folder: Path, fingerprint: dict[str, Any]
) -> tuple[Progress, dict[str, Any] | None]:
    """Return where the run in `folder` stands and what it remembers, having loaded its last checkpoint.

    A fresh start where there is none.

    Raises:
        InputError: the checkpoint belongs to other settings, another model or other examples.
    """
    found = processes.group().on_main(lambda: _whole_checkpoints(folder))
    if not found:
        return Progress(), None
    record = read_json(found[-1])
    differing = [key for key in fingerprint if record["fingerprint"].get(key) != fingerprint[key]]
    if differing:
        raise InputError(
            f"{found[-1].parent} belongs to a run with another {differing[0]}: delete {folder} to train anew"
        )
    accelerator.load_state(str(found[-1].parent))
    known = {f.name for f in fields(Progress)}
    progress = Progress(**{key: value for key, value in record["progress"].items() if key in known})
    return progress, record.get("state")


def _whole_checkpoints(folder: Path) -> list[Path]:
    """Return the notes of the checkpoints in a folder, oldest first, and remove what a kill left of others."""
    for torn in folder.glob(".*.tmp"):
        shutil.rmtree(torn, ignore_errors=True)
    return sorted(folder.glob(f"step-*/{PROGRESS_FILE}"))


@contextmanager
def _shared_atomic_dir(group: Group, path: Path) -> Iterator[Path]:
    """Yield to every process the one temporary folder that the main process makes and, when all are done, renames."""
    with ExitStack() as stack:
        yield group.on_main(lambda: stack.enter_context(atomic_dir(path)))
        group.gather(None)
    group.gather(None)


@contextmanager
def _without_warnings(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
