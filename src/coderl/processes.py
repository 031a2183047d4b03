"""The processes that share a command: which of them this is, and what all must agree on.

`torchrun` and `accelerate launch` start a command several times and tell each process its rank in the environment. Here
these processes find each other. One of them, the main process, reads and writes what there is one of; the others learn
its answers. What they say to each other goes over gloo on processors, with any wait allowed, so that a process may wait
hours for the programs of another; a process that has gone ends the wait of the others at once.

Nothing is imported, and nobody is waited for, where a command was started once.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
LONGEST_WAIT = timedelta(days=365)
"""Of one process for another that works."""
FILES_APPEAR_S = 120.0
"""How long a network file system may take to show one machine what another wrote."""


class PeerError(RuntimeError):
    """Another process of the command has ended, so that this one cannot go on; the message says which and why."""

    def __init__(self, message: str, *, is_said: bool):
        super().__init__(message)
        self.is_said = is_said
        """Whether the other process says so itself: one that was killed does not."""


def environment_rank() -> int:
    """Return the rank that the launcher gave this process; 0 where it was started once."""
    return int(os.environ.get("RANK", 0)) if environment_size() > 1 else 0


def environment_size() -> int:
    """Return how many processes the launcher started; 1 where there is none."""
    return int(os.environ.get("WORLD_SIZE", 1))


def num_local() -> int:
    """Return how many of the processes share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if environment_size() > 1 else 1


class Group:
    """The processes that share a command; this base class is one that works alone."""

    rank: int = 0
    num_processes: int = 1
    is_apart: bool = False
    """Whether others, perhaps on other machines, write some of the files of a stage."""

    @property
    def is_main(self) -> bool:
        """True in the process that reads and writes what there is one of."""
        return self.rank == 0

    def on_main(self, function: Callable[[], Result]) -> Result:
        """Return, in every process, what a function returns in the main process, where alone it is called.

        What it raises is raised there; the others end with a `PeerError`.
        """
        return function()

    def gather(self, value: Result) -> list[Result]:
        """Return the values that the processes give, in the order of their ranks; all wait for the last."""
        return [value]

    def deal(self, items: Sequence[Item], show: Callable[[int], None]) -> Iterator[Item]:
        """Yield those of the items that this process should do, and show before each how many were given out.

        Whoever has done one gets the next, and each item goes to one process.
        """
        for number, item in enumerate(items):
            show(number)
            yield item

    @contextmanager
    def held_by_main(self, context: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
        """Enter a context in the main process alone, for as long as all of them are inside."""
        with ExitStack() as stack:
            self.on_main(lambda: stack.enter_context(context()) and None)
            yield

    def wait_for_files(self, paths: Sequence[Path]) -> None:
        """Return once this machine sees files that another process has written.

        Raises:
            OSError: it does not: the machines do not share the folder.
        """
        deadline = time.monotonic() + FILES_APPEAR_S
        while self.is_apart and (missing := [p for p in paths if not p.exists()]):
            if time.monotonic() > deadline:
                raise OSError(f"{missing[0]}: written by another process and not seen here; do all share this folder?")
            os.listdir(missing[0].parent) if missing[0].parent.is_dir() else None  # NFS looks again
            time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the main process tells the others."""

    value: Any = None
    failure: str | None = None


class _LaunchedGroup(Group):
    """The processes that a launcher started, over torch.distributed."""

    is_apart = True

    def __init__(self) -> None:
        torch = importlib.import_module("torch")
        self._dist: Any = importlib.import_module("torch.distributed")
        has_gpus = torch.cuda.is_available()
        if has_gpus:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // num_local(), 1)))
        os.environ.setdefault("LOCAL_RANK", os.environ["RANK"])
        self._store, self.rank, self.num_processes = next(
            self._dist.rendezvous("env://", timeout=timedelta(minutes=10))
        )
        self._dist.init_process_group(
            backend="cpu:gloo,cuda:nccl" if has_gpus else "gloo",
            store=self._store,
            rank=self.rank,
            world_size=self.num_processes,
        )
        self._control = self._dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
        self._names: list[str] = []
        self._num_deals = 0
        self._names = self.gather(f"process {os.getpid()} on {socket.gethostname()}")

    def on_main(self, function: Callable[[], Result]) -> Result:
        answers = [_Answer()]
        if self.is_main:
            try:
                answers = [_Answer(function())]
            except BaseException as error:
                self._tell([_Answer(failure=f"{type(error).__name__}: {error}")])
                raise
        self._tell(answers)
        if answers[0].failure is not None:
            raise PeerError(f"the main process has ended: {answers[0].failure}", is_said=True)
        return answers[0].value

    def _tell(self, answers: list[_Answer]) -> None:
        with self._peers():
            self._dist.broadcast_object_list(answers, src=0, group=self._control)

    def gather(self, value: Result) -> list[Result]:
        values: list[Any] = [None] * self.num_processes
        with self._peers():
            self._dist.all_gather_object(values, value, group=self._control)
        return values

    def deal(self, items: Sequence[Item], show: Callable[[int], None]) -> Iterator[Item]:
        self._num_deals += 1
        while (ticket := self._store.add(f"coderl/deal-{self._num_deals}", 1) - 1) < len(items):
            show(ticket)
            yield items[ticket]

    def fail(self, reason: str) -> bool:
        """Leave the reason why this process ends for the others; True where it is the first."""
        try:
            is_first = self._store.add("coderl/failures", 1) == 1
            self._store.set(f"coderl/failure-{self.rank}", reason)
        except RuntimeError:  # the store has gone with the process that ended first
            return False
        return is_first

    @contextmanager
    def _peers(self) -> Iterator[None]:
        """Turn the loss of a connection to another process into an error that says which has ended, and why."""
        try:
            yield
        except RuntimeError as error:
            raise self._loss() from error

    def _loss(self) -> PeerError:
        """Return which process has ended, and why, as far as this one can tell."""
        deadline = time.monotonic() + 1.0  # who has just been killed takes a moment to be gone
        while time.monotonic() < deadline:
            for rank, name in enumerate(self._names):
                if (reason := self._reason_of(rank)) is not None:
                    return PeerError(f"rank {rank} ({name}) has ended: {reason}", is_said=True)
                pid, _, host = name.removeprefix("process ").partition(" on ")
                if host == socket.gethostname() and _is_gone(pid):
                    return PeerError(f"rank {rank} ({name}) was killed; the same command continues", is_said=False)
            time.sleep(0.05)
        return PeerError("another process of this command has ended; the same command continues", is_said=False)

    def _reason_of(self, rank: int) -> str | None:
        try:
            is_there = self._store.check([f"coderl/failure-{rank}"])
            return self._store.get(f"coderl/failure-{rank}").decode() if is_there else None
        except RuntimeError:  # the store has gone with the process that kept it
            return None

    def leave(self) -> None:
        """End the connection to the others."""
        self._dist.destroy_process_group()


def _is_gone(pid: str) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return status == "Z"


_group: Group | None = None


def group() -> Group:
    """Return the processes that share this command; the first call finds the others, where a launcher started some."""
    global _group
    if _group is None:
        _group = _LaunchedGroup() if environment_size() > 1 else Group()
    return _group


def stay_alone() -> None:
    """Let this process share nothing: it runs a command that is not for many."""
    global _group
    _group = Group()


@contextmanager
def alone() -> Iterator[None]:
    """Let this process share nothing for a while: the others wait for what it does."""
    global _group
    before = group()
    _group = Group()
    try:
        yield
    finally:
        _group = before


def leave() -> None:
    """Leave the others, at the end of a command that all have done."""
    if isinstance(_group, _LaunchedGroup):
        _group.leave()


def report_failure(line: str, error: BaseException) -> None:
    """Print on stderr why this process ends: of several that end for one reason, only the first does."""
    if isinstance(error, PeerError) and error.is_said:
        time.sleep(1.0)  # the launcher stops all once one has ended, and the other has still to say why
        return
    if isinstance(_group, _LaunchedGroup):
        if not _group.fail(line):
            return
        line = f"rank {_group.rank} of {_group.num_processes} on {socket.gethostname()}: {line}"
    print(f"coderl: {line}", file=sys.stderr, flush=True)
