"""A pool of zygotes: jobs in, verdicts out, in order, as fast as the processors allow."""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import resource
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType

from coderl.execution import assertions
from coderl.execution.config import (
    ExecutionConfig,
    Isolation,
    Job,
    Limits,
)
from coderl.execution.gate import Gate
from coderl.execution.probes import ways_out
from coderl.execution.sandbox import values
from coderl.execution.sandbox.process import (
    Plan,
    ZygoteProcess,
    flavour_of,
    negotiate,
    start,
)
from coderl.execution.worker import Worker
from coderl.types import (
    AssertTest,
    InputError,
    SandboxError,
    StdinTest,
    UnitTest,
    Verdict,
)

_MAX_STDIN_BYTES = 64 << 20
_MAX_REMEMBERED = 1024
_NUM_TRIES = 2
_MAX_SLEEPERS = 8
"""Threads for each worker, where programs sleep."""


class _Ticket:
    """A job on its way through the pool."""

    def __init__(self, job: Job, on_done: Callable[[Verdict], None] = lambda _result: None) -> None:
        self.job = job
        self.done = threading.Event()
        self.result: Verdict | None = None
        self._on_done = on_done

    def settle(self, result: Verdict) -> None:
        """Hand the result to whoever waits."""
        self.result = result
        self.done.set()
        self._on_done(result)


class Executor:
    """Runs programs on unit tests in sandboxed processes. Use as a context manager.

    Raises:
        SandboxError: on entering, where the isolation that the config asks for cannot be had.
    """

    def __init__(self, config: ExecutionConfig | None = None) -> None:
        self.config = config or ExecutionConfig()
        self._plan = Plan(False, False, False)
        self.isolation: Isolation = "unsafe"
        """The level that was reached; known once entered."""
        self.num_faults = 0
        """How many tries the sandbox itself spoilt so far; a run may stop when there are too many."""
        self._gate = Gate(self.config.num_workers)
        self._tickets: queue.SimpleQueue[_Ticket | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closing = threading.Lock()
        self._is_closed = False
        self._process_id = 0

    def __enter__(self) -> Executor:
        self._is_closed, self._process_id = False, os.getpid()
        reached: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._start_thread(reached)
        problem = reached.get()
        if problem is not None:
            self._threads.pop().join()
            raise problem
        for _ in range(self.config.num_workers - 1):
            self._start_thread()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._process_id:  # a fork has none of the threads
            return
        with self._closing:  # a ticket that came after the last `None` would wait for ever
            self._is_closed = True
            with contextlib.suppress(queue.Empty):
                while ticket := self._tickets.get_nowait():
                    ticket.settle(Verdict(None, fault=_CLOSED))
            for _thread in self._threads:
                self._tickets.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _start_thread(self, reached: queue.SimpleQueue[BaseException | None] | None = None) -> None:
        thread = threading.Thread(target=self._work, args=(reached,), name="coderl-execution", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _grow(self) -> None:
        """Have one more thread, with zygotes of its own, for the place that a sleeping program gives up."""
        with self._closing:
            if not self._is_closed and not self._tickets.empty() and len(self._threads) < self._max_threads():
                self._start_thread()

    def _max_threads(self) -> int:
        num_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return max(self.config.num_workers, min(_MAX_SLEEPERS * self.config.num_workers, num_files // 64))

    def run(self, jobs: Iterable[Job]) -> Iterator[Verdict]:
        """One result a job, in the order of the jobs; few jobs are taken ahead of the results that were asked for.

        A job that the sandbox failed on twice gives a verdict with the fault and no outcome. Equal jobs that follow
        each other closely run once.

        A job that cannot be run as it is written (a test that is not Python, an input that no file can hold) is a fault
        as well, which names the test; the others are judged.

        Raises:
            RuntimeError: the executor was not entered.
            SandboxError: this process is a fork of the one that entered it.
        """
        self._check_entered()
        pending: collections.deque[_Ticket] = collections.deque()
        recent: collections.OrderedDict[object, _Ticket] = collections.OrderedDict()
        for job in jobs:
            pending.append(self._submit(job, recent))
            while len(pending) > self._num_ahead() or (pending and pending[0].done.is_set()):
                yield self._result(pending.popleft())
        while pending:
            yield self._result(pending.popleft())

    def as_completed(self, jobs: Iterable[Job]) -> Iterator[tuple[int, Verdict]]:
        """(position, result) of each job as soon as it is there: nothing waits for a slow program before it.

        Else as `run`, but that equal jobs are not recognised.
        """
        self._check_entered()
        ready: queue.SimpleQueue[tuple[int, Verdict]] = queue.SimpleQueue()
        num_running = 0
        for index, job in enumerate(jobs):
            self._put(_Ticket(job, lambda result, index=index: ready.put((index, result))))
            num_running += 1
            while num_running > self._num_ahead() or not ready.empty():
                yield ready.get()
                num_running -= 1
        for _ in range(num_running):
            yield ready.get()

    def _check_entered(self) -> None:
        if not self._threads:
            raise RuntimeError("use the executor as a context manager: with Executor(config) as executor")
        self._check_process()

    def _check_process(self) -> None:
        if os.getpid() != self._process_id:
            raise SandboxError(
                f"this executor belongs to process {self._process_id}, of which this one ({os.getpid()}) is a fork: "
                "enter an executor here, or start the process by `spawn`"
            )

    def _result(self, ticket: _Ticket) -> Verdict:
        self._check_process()
        ticket.done.wait()
        assert ticket.result is not None
        return ticket.result

    def _num_ahead(self) -> int:
        """Jobs taken before their turn, so many that a slow one does not leave the processors without work."""
        return 64 * self.config.num_workers + 64

    def _submit(self, job: Job, recent: collections.OrderedDict[object, _Ticket]) -> _Ticket:
        # `recent` holds the tickets, hence the tests: no other tuple can get the same id meanwhile.
        key = (job.code, id(job.tests), job.fn_name, job.checker)
        if key not in recent:
            recent[key] = _Ticket(job)
            self._put(recent[key])
            if len(recent) > _MAX_REMEMBERED:
                recent.popitem(last=False)
        return recent[key]

    def _put(self, ticket: _Ticket) -> None:
        try:
            check(ticket.job)
        except InputError as error:
            return ticket.settle(Verdict(None, fault=str(error)))
        with self._closing:
            if self._is_closed:
                ticket.settle(Verdict(None, fault=_CLOSED))
            else:
                self._tickets.put(ticket)
        return None

    def _work(self, reached: queue.SimpleQueue[BaseException | None] | None) -> None:
        """Body of a thread: it starts zygotes itself, for they die with the thread that made them."""
        zygotes: dict[int, ZygoteProcess] = {}
        if reached is not None:
            try:
                self._plan, zygotes[0] = _reach(self.config)
            except BaseException as problem:
                return reached.put(problem)
            self.isolation = self._plan.level
            reached.put(None)
        while (ticket := self._tickets.get()) is not None:
            flavour = flavour_of(ticket.job.code)
            for attempt in range(1, _NUM_TRIES + 1):
                try:
                    if flavour not in zygotes:
                        zygotes[flavour] = start(self.config, self._plan, flavour)
                    ticket.settle(Worker(self.config, zygotes[flavour], self._gate, self._grow).run(ticket.job))
                    break
                except Exception as problem:
                    self.num_faults += 1
                    _discard(zygotes, flavour)
                    if attempt == _NUM_TRIES:
                        ticket.settle(_as_fault(problem))
            if flavour in zygotes and zygotes[flavour].num_children >= self.config.recycle_after:
                _discard(zygotes, flavour)
        for flavour in list(zygotes):
            _discard(zygotes, flavour)
        return None


def _reach(config: ExecutionConfig) -> tuple[Plan, ZygoteProcess]:
    """The best plan that works here, and a zygote by it that a probe did not get out of.

    Raises:
        SandboxError: there is none of the level that the config asks for.
    """
    try:
        plan, zygote = negotiate(config)
    except SandboxError:  # as any fault, tried once more; what cannot be had says so again
        plan, zygote = negotiate(config)
    try:
        escapes = ways_out(config, zygote)
    except BaseException:
        zygote.close()
        raise
    if escapes:
        zygote.close()
        raise SandboxError(f"the sandbox does not hold: a program could {', '.join(escapes)}")
    return plan, zygote


_CLOSED = "the executor was closed before this job's turn came"


def _as_fault(problem: Exception) -> Verdict:
    """The problem as a value; a bug of ours costs one program its verdict and not the pool its thread."""
    text = str(problem) if isinstance(problem, SandboxError) else f"{type(problem).__name__}: {problem}"
    return Verdict(None, fault=text or "unknown fault")


def _discard(zygotes: dict[int, ZygoteProcess], flavour: int) -> None:
    zygote = zygotes.pop(flavour, None)
    if zygote is not None:
        zygote.close()


def check(job: Job) -> None:
    """Refuse a job that cannot be run as it is written.

    Raises:
        InputError: it names the test and what is wrong with it.
    """
    for number, test in enumerate(job.tests, start=1):
        try:
            _check_test(test, job.fn_name)
        except InputError as error:
            raise InputError(f"test {number} of {len(job.tests)}: {error}") from None
    for name, source in (("checker", job.checker), ("prelude", job.prelude)):
        try:
            compile(source or "", f"<{name}>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise InputError(f"the {name} is not Python: {error}") from None


def _check_test(test: UnitTest, fn_name: str | None) -> None:
    if isinstance(test, AssertTest):
        assertions.split(test, fn_name)
    elif isinstance(test, StdinTest):
        if len(test.stdin) > _MAX_STDIN_BYTES // 4:
            raise InputError(f"standard input of {len(test.stdin)} characters: at most {_MAX_STDIN_BYTES // 4}")
        try:
            test.stdin.isascii() or test.stdin.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"character {error.start + 1} of standard input is {test.stdin[error.start]!r}, half of a pair, "
                "which no UTF-8 file can hold"
            ) from None
    elif not fn_name:
        raise InputError("a call test needs the job's fn_name: the function to call")
    else:
        for name, value in (("an argument", list(test.args)), ("the expected value", test.expected)):
            if values.is_too_deep(value):
                raise InputError(f"{name} is nested more than {values.MAX_DEPTH} deep: it cannot be judged")


def run(
    programs: Sequence[str],
    tests: Sequence[UnitTest],
    *,
    fn_name: str | None = None,
    limits: Limits | None = None,
    num_workers: int = 1,
) -> list[Verdict]:
    """The verdict on each program, all judged by the same tests.

    Raises:
        SandboxError: the sandbox cannot be had, or failed twice on one program.
        InputError: there are no tests, or a test cannot be run as it is written.
    """
    config = ExecutionConfig(num_workers=num_workers, **(limits or Limits()).model_dump())
    shared_tests = tuple(tests)
    jobs = [Job(code, shared_tests, fn_name) for code in programs]
    for job in jobs[:1]:
        check(job)
    with Executor(config) as executor:
        results = list(executor.run(jobs))
    for result in results:
        if result.fault is not None:
            raise SandboxError(result.fault)
    return results
