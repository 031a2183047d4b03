"""A stage's parts as tasks on the nodes of a Ray cluster.

Each task is the stage's own function, given one part to write. The nodes must see the folders that the stage reads and
writes under the same names, as on a cluster with a shared file system, and have this package. A task whose node is lost
runs again on another; a part is written whole or not at all, and is the same whoever writes it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from coderl.execution.remote.ray import connect
from coderl.processes import Group
from coderl.types import InputError, SandboxError

Item = TypeVar("Item")
NUM_TRIES = 4
"""Nodes that may be lost under a part before its stage ends."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a node is asked to do: a stage by its name, in a folder, with its inputs and settings."""

    module: str
    function: str
    folder: Path
    working_folder: Path
    """Where the names of folders begin."""
    num_threads: int | None
    """Of torch, whose sums depend on it; None where the stage needs no torch."""


class Chosen(Group):
    """The process that writes some parts of a stage for another, and nothing else."""

    is_main = False  # type: ignore[assignment]

    def __init__(self, indices: Sequence[int]):
        self.indices = indices

    def deal(self, items: Sequence[Item], show: Callable[[int], None]) -> Iterator[Item]:
        """Yield the chosen items."""
        yield from (item for item in items if item in self.indices)


class ClusterGroup(Group):
    """The process that hands every part of a stage to a cluster, and writes what there is one of.

    Raises:
        InputError: Ray is not installed, or no cluster answers at the address; a part cannot be done for what it was
            given.
        SandboxError: the sandbox failed on a node.
        OSError: too many nodes were lost under a part.
    """

    is_apart = True

    def __init__(self, task: Task, given: dict[str, Any], *, address: str | None, needs_model: bool):
        self.task, self.given, self.needs_model = task, given, needs_model
        self.address = address

    def deal(self, items: Sequence[Item], show: Callable[[int], None]) -> Iterator[Item]:
        """Have all items done elsewhere; yield none."""
        if items:
            ray = connect(self.address)
            remote = ray.remote(do_part).options(max_retries=NUM_TRIES, **self._needs(ray))
            given = ray.put(self.given)
            under_way = {remote.remote(self.task, given, item): item for item in items}
            while under_way:
                finished, _ = ray.wait(list(under_way), num_returns=1)
                for reference in finished:
                    self._take(ray, reference, under_way.pop(reference))
                show(len(items) - len(under_way))
        yield from ()

    def _needs(self, ray: Any) -> dict[str, Any]:
        """Return what a part takes of its node: a GPU where it needs a model and nodes have some, else the node."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        num_cpus = min((n["CPU"] for n in nodes if n.get("CPU")), default=1)
        if self.needs_model and any(node.get("GPU") for node in nodes):
            return {"num_gpus": 1, "num_cpus": 1}
        return {"num_cpus": num_cpus, "scheduling_strategy": "SPREAD"}

    def _take(self, ray: Any, reference: Any, item: Any) -> None:
        try:
            ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError | SandboxError):
                raise type(error.cause)(str(error.cause)) from None
            raise
        except ray.exceptions.RayError as error:
            text = f"part {item} of {self.task.folder}: {NUM_TRIES + 1} nodes were lost under it"
            raise OSError(f"{text} ({type(error).__name__}); the same command continues") from None


def do_part(task: Task, given: dict[str, Any], index: int) -> None:
    """Write one part of a stage, on whatever node this is."""
    from coderl.stages.console import Reporter
    from coderl.stages.stage import Work

    if not task.working_folder.is_dir():
        raise InputError(f"{task.working_folder}: not on this node; all nodes must see the folders of the run")
    os.chdir(task.working_folder)
    if task.num_threads is not None:
        importlib.import_module("torch").set_num_threads(task.num_threads)
    stage = getattr(importlib.import_module(task.module), task.function)
    stage.function(Work(task.folder, Reporter(quiet=True), Chosen([index])), **given)
