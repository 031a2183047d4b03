"""From a job to its verdict: which tests share a child, what each message means, when a test is run again."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from coderl.execution import assertions, judge
from coderl.execution.config import ExecutionConfig, Job
from coderl.execution.gate import Gate
from coderl.execution.sandbox import values
from coderl.execution.sandbox.contact import Contact, EndedError, OutOfTimeError
from coderl.execution.sandbox.process import JUDGE_SLOT, ZygoteProcess, signal_name
from coderl.types import (
    AssertTest,
    CallTest,
    Outcome,
    StdinTest,
    UnitTest,
    Verdict,
)

_PASSED = Verdict(Outcome.PASSED_TEST)
_FAILED = Verdict(Outcome.FAILED_TEST)
_TIMEOUT = Verdict(Outcome.RUNTIME_ERROR, "timeout", "the time limit was exceeded")
_TOO_MUCH_OUTPUT = Verdict(Outcome.RUNTIME_ERROR, "output_limit", "the output limit was exceeded")
_FORGED = Verdict(Outcome.RUNTIME_ERROR, "killed", "the program wrote on the sandbox's own channel")
_SUBTYPES = {"MemoryError": "memory_limit"}
_ADDRESS = re.compile(r"0x[0-9a-f]{8,}")
"""Where an object happens to lie differs from run to run, and a verdict must not."""


class _LoadError(Exception):
    """The program did not even load, so that every test of it ends alike: with this verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


class _DoubtfulError(Exception):
    """A test ended in a way that may be the machine's fault; holds the verdict if it ends so again, alone."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


class Worker:
    """Judges jobs, one after the other, in the children of one zygote."""

    def __init__(self, config: ExecutionConfig, zygote: ZygoteProcess, gate: Gate) -> None:
        self._config, self._zygote, self._gate = config, zygote, gate
        self._cpu_s = 0.0

    def run(self, job: Job) -> Verdict:
        """The verdict on one program.

        Raises:
            SandboxError: the sandbox failed; nothing is known about the program.
        """
        started, self._cpu_s = time.monotonic(), 0.0
        verdicts: list[Verdict] = []
        while len(verdicts) < len(job.tests):
            verdicts += self._next_verdicts(job, len(verdicts))
            if verdicts[-1].outcome is not Outcome.PASSED_TEST and self._config.stop == "first_failure":
                break
        outcomes = tuple(verdict.outcome for verdict in verdicts)
        return replace(
            min(verdicts, key=_outcome),
            test_outcomes=outcomes + (None,) * (len(job.tests) - len(verdicts)),
            cpu_s=self._cpu_s,
            wall_s=time.monotonic() - started,
            isolation=self._zygote.level,
        )

    def _next_verdicts(self, job: Job, first: int) -> list[Verdict]:
        try:
            with self._gate.shared():
                return self._run_child(job, first)
        except _DoubtfulError:
            pass
        try:
            with self._gate.alone():
                return self._run_child(job, first)
        except _DoubtfulError as again:
            return [again.verdict]

    def _run_child(self, job: Job, first: int) -> list[Verdict]:
        """Verdicts of the tests from `first` on that one child settles, at least one.

        The first test of a child is as good as alone in it, so its verdict stands. Of the others only a pass does:
        a program may fail because of what it left behind itself, and the caller tries again in a fresh child.
        """
        tests = _same_kind(job.tests[first:])
        prepared = [_prepare(test, job.fn_name) for test in tests]
        run = _RUNS[type(tests[0])]
        message = _job_message(job, tests, prepared, self._config)
        contact = Contact(self._zygote, message, self._config, is_eager=_needs_answers(prepared))
        verdicts: list[Verdict] = []
        try:
            for index, test in enumerate(tests):
                verdict = run(self, contact, job, index, test)
                if verdicts and verdict.outcome is not Outcome.PASSED_TEST:
                    break
                verdicts.append(verdict)
                if verdict.outcome is not Outcome.PASSED_TEST or contact.is_silent:
                    break
        except _DoubtfulError:
            if not verdicts:
                raise
        except _LoadError as error:
            verdicts = verdicts or [error.verdict] * len(job.tests)
        finally:
            contact.close()
            self._cpu_s += contact.cpu_s
        return verdicts

    def _receive(self, contact: Contact, index: int) -> dict[str, Any] | Verdict:
        """The message on test `index`, or what its absence means; `EndedError` is left to the caller."""
        try:
            message = contact.receive()
        except OutOfTimeError as out:
            if out.is_wall:
                raise _DoubtfulError(_TIMEOUT) from None
            return _TIMEOUT
        except values.MalformedError:
            return _FORGED
        if message.get("fatal"):
            raise _LoadError(_fatal(message))
        if message.get("error"):
            return _error(message["error"])
        return message if message.get("test") == index else _FORGED

    def _run_stdin(self, contact: Contact, job: Job, index: int, test: StdinTest) -> Verdict:
        try:
            message = self._receive(contact, index)
        except EndedError as end:
            message = _death(end.status) or {}
        printed = contact.output(message.get("end") if isinstance(message, dict) else None)
        if printed is None:
            return _TOO_MUCH_OUTPUT
        if isinstance(message, Verdict):
            return message
        if job.checker:
            return self._check(job.checker, test.stdin, test.stdout, printed.decode("utf-8", "replace"))
        return _PASSED if judge.compare_stdout(printed, test.stdout, self._config.comparator) else _FAILED

    def _run_call(self, contact: Contact, job: Job, index: int, test: CallTest) -> Verdict:
        got = self._value(contact, index)
        if isinstance(got, Verdict):
            return got
        if job.checker:
            return self._check(job.checker, list(test.args), test.expected, got.value)
        return _PASSED if _equal(got.value, test.expected, self._config.comparator) else _FAILED

    def _run_assert(self, contact: Contact, job: Job, index: int, test: AssertTest) -> Verdict:
        comparison = assertions.split(test, job.fn_name)
        if comparison is None:
            return self._run_judged(contact, job, index, test)
        got = self._value(contact, index)
        if isinstance(got, Verdict):
            return got
        return _PASSED if assertions.holds(got.value, comparison.expected) else _FAILED

    def _value(self, contact: Contact, index: int) -> _Value | Verdict:
        """What the call of test `index` returned, as plain data."""
        try:
            message = self._receive(contact, index)
            if isinstance(message, Verdict):
                return message
            return _Value(values.decode(message["value"]))
        except EndedError as end:
            return _death(end.status) or _ENDED_IN_A_CALL
        except (ValueError, TypeError, KeyError, RecursionError, ArithmeticError, AttributeError, IndexError):
            return _FORGED

    def _check(self, checker: str, stdin: Any, expected: Any, printed: Any) -> Verdict:
        """Verdict of the problem's own checker, in a child that the program never enters."""
        arguments = [values.encode(value) for value in (stdin, expected, printed)]
        message = {"kind": "module", "code": checker, "fn_name": "check", "tests": [{"args": arguments}], "cpu_s": 10}
        contact = Contact(self._zygote, message, self._config, JUDGE_SLOT)
        try:
            got = self._value(contact, 0)
        finally:
            contact.close()
        if isinstance(got, Verdict):
            return Verdict(Outcome.FAILED_TEST, None, f"the checker refused: {got.message}")
        return _PASSED if got.value is True else _FAILED

    def _run_judged(self, contact: Contact, job: Job, index: int, test: AssertTest) -> Verdict:
        """Run the test's code in a child of its own, handing calls and returned values between the two children."""
        message = {"kind": "judge", "code": test.code, "fn_name": job.fn_name, "cpu_s": self._config.cpu_limit_s + 10}
        judge_contact = Contact(self._zygote, message, self._config, JUDGE_SLOT, is_eager=True)
        try:
            verdict = self._hand_over(contact, judge_contact)
        finally:
            judge_contact.close()
        contact.send({"end": 1})
        if verdict.outcome is not Outcome.PASSED_TEST or contact.is_silent:
            return verdict
        got = self._value(contact, index)
        return got if isinstance(got, Verdict) else verdict

    def _hand_over(self, contact: Contact, judge_contact: Contact) -> Verdict:
        while True:
            try:
                message = judge_contact.receive()
            except OutOfTimeError:
                return _TIMEOUT
            except EndedError as end:
                return _death(end.status) or _FAILED
            if "verdict" in message:
                return _judged(message)
            contact.send(message)
            try:
                answer = self._receive_answer(contact)
            except EndedError as end:
                return _death(end.status) or _ENDED_IN_A_CALL
            if isinstance(answer, Verdict):
                return answer
            judge_contact.send(answer)

    def _receive_answer(self, contact: Contact) -> dict[str, Any] | Verdict:
        try:
            message = contact.receive()
        except OutOfTimeError as out:
            if out.is_wall:
                raise _DoubtfulError(_TIMEOUT) from None
            return _TIMEOUT
        except values.MalformedError:
            return _FORGED
        if message.get("fatal"):
            raise _LoadError(_fatal(message))
        if "test" in message:  # it did not get as far as answering: the setup raised
            return _error(message["error"]) if message.get("error") else _FORGED
        return message


@dataclass(frozen=True, slots=True)
class _Value:
    """A decoded value, told apart from a verdict."""

    value: Any


_ENDED_IN_A_CALL = Verdict(Outcome.RUNTIME_ERROR, "exit", "exit code 0 inside a call")
_RUNS: dict[type, Callable[..., Verdict]] = {
    StdinTest: Worker._run_stdin,
    CallTest: Worker._run_call,
    AssertTest: Worker._run_assert,
}


def _outcome(verdict: Verdict) -> Outcome:
    assert verdict.outcome is not None
    return verdict.outcome


def _same_kind(tests: tuple[UnitTest, ...]) -> list[Any]:
    """The tests from the first on that a child for the first can run."""
    kind = type(tests[0])
    for index, test in enumerate(tests):
        if type(test) is not kind:
            return list(tests[:index])
    return list(tests)


def _prepare(test: UnitTest, fn_name: str | None) -> Any:
    """What the program's process is told of a test: never the answer."""
    if isinstance(test, StdinTest):
        return test.stdin
    if isinstance(test, CallTest):
        return {"args": [values.encode(argument) for argument in test.args]}
    comparison = assertions.split(test, fn_name)
    return {"setup": test.setup} | ({"expression": comparison.expression} if comparison else {})


def _needs_answers(prepared: list[Any]) -> bool:
    """Whether a child with these tests will wait for calls from a judge."""
    return any(isinstance(test, dict) and "setup" in test and "expression" not in test for test in prepared)


def _job_message(job: Job, tests: list[Any], prepared: list[Any], config: ExecutionConfig) -> dict[str, Any]:
    kind = type(tests[0])
    return {
        "kind": "stdin" if kind is StdinTest else "module",
        "code": job.code,
        "fn_name": job.fn_name,
        "prelude": kind is CallTest,
        "tests": prepared,
        "cpu_s": int(config.cpu_limit_s * len(tests)) + 10,
    }


def _equal(got: Any, expected: Any, comparator: Any) -> bool:
    try:
        return judge.compare_value(got, expected, comparator)
    except (ArithmeticError, RecursionError, TypeError, ValueError):
        return False


def _fatal(message: dict[str, Any]) -> Verdict:
    found = _error(message["error"])
    is_compile = message["fatal"] in ("compile", "missing")
    outcome = Outcome.COMPILE_ERROR if is_compile else Outcome.RUNTIME_ERROR
    return replace(found, outcome=outcome)


def _error(error: Any) -> Verdict:
    """Verdict on a described exception; the description comes from the program's process and may be anything."""
    if not isinstance(error, dict):
        return _FORGED
    name, line = str(error.get("type"))[:100], error.get("line")
    subtype = _SUBTYPES.get(name, name.lower())
    message = _ADDRESS.sub("0x...", str(error.get("message"))[:500])
    return Verdict(Outcome.RUNTIME_ERROR, subtype, message, line if isinstance(line, int) else None)


def _judged(message: dict[str, Any]) -> Verdict:
    if message["verdict"] == "passed":
        return _PASSED
    found = _error(message["error"])
    if message["verdict"] == "raised":
        return found
    return Verdict(Outcome.FAILED_TEST, None, found.message)


def _death(status: int) -> Verdict | None:
    """What a wait status says about a program; None for a good end.

    Raises:
        _DoubtfulError: it was killed from outside, by the kernel for want of memory or by a person.
    """
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        verdict = Verdict(Outcome.RUNTIME_ERROR, "killed", f"killed by {signal_name(number)}")
        if number == signal.SIGKILL:
            raise _DoubtfulError(verdict)
        return _TIMEOUT if number == signal.SIGXCPU else verdict
    code = os.WEXITSTATUS(status)
    return Verdict(Outcome.RUNTIME_ERROR, "exit", f"exit code {code}") if code else None
