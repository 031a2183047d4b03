"""One child of a program and the tests that it runs: what its messages say, and what each of them is worth."""

from __future__ import annotations

import functools
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from coderl.execution import assertions, clock, judge
from coderl.execution.config import ExecutionConfig, Job, prelude_of
from coderl.execution.sandbox import values
from coderl.execution.sandbox.contact import Contact, EndedError, OutOfTimeError
from coderl.execution.sandbox.messages import MAX_PARTS, TooLargeError
from coderl.execution.sandbox.process import TESTER_SLOT, ZygoteProcess, signal_name
from coderl.types import AssertTest, CallTest, Outcome, StdinTest, UnitTest, Verdict

_PASSED = Verdict(Outcome.PASSED_TEST)
_FAILED = Verdict(Outcome.FAILED_TEST)
_TOO_LARGE = Verdict(Outcome.FAILED_TEST, None, "the answer is far longer than the right one")
_TIMEOUT = Verdict(Outcome.RUNTIME_ERROR, "timeout", "the time limit was exceeded")
_TOO_MUCH_OUTPUT = Verdict(Outcome.RUNTIME_ERROR, "output_limit", "the output limit was exceeded")
_FORGED = Verdict(Outcome.RUNTIME_ERROR, "killed", "the program wrote on the sandbox's own channel")
_ENDED_IN_A_CALL = Verdict(Outcome.RUNTIME_ERROR, "exit", "exit code 0 inside a call")
_BACKSTOP = 8
"""Times the limits of all tests: the kernel's own limit on a child, should nobody look at its clock."""
_SUBTYPES = {"MemoryError": "memory_limit"}
_ADDRESS = re.compile(r"0x[0-9a-f]{8,}")
"""Where an object happens to lie differs from run to run, and a verdict must not."""
_DECODE_ERRORS = (ValueError, TypeError, KeyError, RecursionError, ArithmeticError, AttributeError, IndexError)


class DoubtfulError(Exception):
    """A test ended in a way that may be the machine's fault; holds the verdict if it ends so again."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


class LoadError(Exception):
    """The program did not even load, so that every test of it ends alike: with this verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


class Trial:
    """A child that runs tests of one kind, in order. Use as a context manager.

    Raises:
        SandboxError: there is no memory for the job, or the zygote is gone.
    """

    def __init__(
        self,
        zygote: ZygoteProcess,
        config: ExecutionConfig,
        job: Job,
        tests: list[UnitTest],
        on_idle: Callable[[], None] | None = None,
    ) -> None:
        self._zygote, self._config, self._job = zygote, config, job
        self._is_out_of_step = False
        self._run = {StdinTest: self._run_stdin, CallTest: self._run_call, AssertTest: self._run_assert}[type(tests[0])]
        prepared = [_prepare(test, job.fn_name, config) for test in tests]
        is_eager = any(isinstance(test, dict) and test.keys() == {"setup"} for test in prepared)
        message = _job_message(job, tests, prepared, config)
        slowness = functools.partial(clock.slowness, zygote, config)
        on_idle = None if is_eager else on_idle  # it waits for the tester, which computes
        self._contact = Contact(zygote, message, config, is_eager=is_eager, on_idle=on_idle, slowness=slowness)

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_error: object) -> None:
        self._contact.close()

    @property
    def cpu_s(self) -> float:
        """Processor time of the child so far."""
        return self._contact.cpu_s

    @property
    def is_over(self) -> bool:
        """True where the child can run no further test."""
        return self._contact.is_silent or self._is_out_of_step

    def verdict(self, index: int, test: Any) -> Verdict:
        """The verdict on the child's next test, which is its test number `index`.

        Raises:
            DoubtfulError: the machine may be at fault.
            LoadError: the program did not load.
            SandboxError: the zygote is gone.
        """
        return self._run(index, test)

    def _receive(self, index: int, max_parts: int = MAX_PARTS) -> dict[str, Any] | Verdict:
        """The message on test `index`, or what its absence means; `EndedError` is left to the caller."""
        message = self._receive_any(max_parts)
        if isinstance(message, Verdict):
            return message
        return message if message.get("test") == index else _FORGED

    def _receive_any(self, max_parts: int = MAX_PARTS) -> dict[str, Any] | Verdict:
        try:
            message = self._contact.receive(max_parts)
        except OutOfTimeError as out:
            if out.is_sure:
                return _TIMEOUT
            raise DoubtfulError(_TIMEOUT) from None
        except TooLargeError:
            return _TOO_LARGE if max_parts < MAX_PARTS else _TOO_MUCH_OUTPUT
        except values.MalformedError:
            return _FORGED
        if "fatal" in message:
            found = _error(message["error"])
            is_compile = message["fatal"] in ("compile", "missing")
            raise LoadError(replace(found, outcome=Outcome.COMPILE_ERROR) if is_compile else found)
        if "test" not in message and message.get("error") and "answer" not in message:
            return _error(message["error"])
        return message

    # ---------------------------------------------------------------------------------------------------- each kind

    def _run_stdin(self, index: int, test: StdinTest) -> Verdict:
        end = None
        try:
            message = self._receive(index)
            if not isinstance(message, Verdict):
                end = message.get("end")
                message = _error(message["error"]) if message.get("error") else message
        except EndedError as ended:
            message = _death(ended.status) or {}
        printed = self._contact.output(end)
        if printed is None:
            return _TOO_MUCH_OUTPUT
        if isinstance(message, Verdict):
            return message
        if self._job.checker:
            return self._check(self._job.checker, test.stdin, test.stdout, printed.decode("utf-8", "replace"))
        return _PASSED if judge.compare_stdout(printed, test.stdout, self._config.comparator) else _FAILED

    def _run_call(self, index: int, test: CallTest) -> Verdict:
        is_open = self._job.checker is not None or callable(self._config.comparator)
        got = self._values(index, "value", MAX_PARTS if is_open else _parts([test.expected]))
        if isinstance(got, Verdict):
            return got
        if self._job.checker:
            return self._check(self._job.checker, list(test.args), test.expected, got[0])
        return _PASSED if _equal(got[0], test, self._config.comparator) else _FAILED

    def _run_assert(self, index: int, test: AssertTest) -> Verdict:
        if self._config.assertions == "trusting":
            got = self._values(index, "value", MAX_PARTS)
            if isinstance(got, Verdict) and got.error_subtype == "assertion":
                return Verdict(Outcome.FAILED_TEST, None, got.message)
            return got if isinstance(got, Verdict) else _PASSED
        comparisons = assertions.split(test, self._job.fn_name)
        if comparisons is None:
            return self._run_tester(index, test)
        got = self._values(index, "values", _parts([each.expected for each in comparisons]))
        if isinstance(got, Verdict):
            return got
        error = got.pop()
        for comparison, value in zip(comparisons, got, strict=False):
            if not comparison.holds(value):
                return _FAILED
        if error:
            return _error(error)
        return _PASSED if len(got) == len(comparisons) else _FORGED

    def _values(self, index: int, field: str, max_parts: int) -> list[Any] | Verdict:
        """What the calls of test `index` returned, as plain data: one value, or several and then the error, if any."""
        try:
            message = self._receive(index, max_parts)
            if isinstance(message, Verdict):
                return message
            if field == "values":
                return [*map(values.decode, message["values"]), message.get("error")]
            return _error(message["error"]) if message.get("error") else [values.decode(message["value"])]
        except EndedError as end:
            return _death(end.status) or _ENDED_IN_A_CALL
        except _DECODE_ERRORS:
            return _FORGED

    # ------------------------------------------------------------------------------- with a second child, the tester

    def _check(self, checker: str, stdin: Any, expected: Any, printed: Any) -> Verdict:
        """Verdict of the problem's own checker, in a child that the program never enters."""
        arguments = [values.encode(value) for value in (stdin, expected, printed)]
        message = {"kind": "module", "code": checker, "fn_name": "check", "tests": [{"args": arguments}], "cpu_s": 10}
        contact = Contact(self._zygote, message, self._config, TESTER_SLOT)
        try:
            reply = contact.receive()
            error = reply.get("error") and str(reply["error"]["message"])
            is_right = not error and reply.get("value") is True
        except OutOfTimeError:
            is_right, error = False, "it took too long"
        except (EndedError, values.MalformedError):
            is_right, error = False, "it died"
        finally:
            contact.close()
        return _PASSED if is_right else replace(_FAILED, message=f"the checker refused: {error}" if error else "")

    def _run_tester(self, index: int, test: AssertTest) -> Verdict:
        """Run the test's code in a child of its own, handing questions and answers between the two children."""
        cpu_s = int(_BACKSTOP * self._config.cpu_limit_s) + 10
        message = {"kind": "tester", "code": test.code, "fn_name": self._job.fn_name, "cpu_s": cpu_s}
        tester = Contact(self._zygote, message, self._config, TESTER_SLOT, is_eager=True)
        try:
            verdict = self._hand_over(tester)
        finally:
            tester.close()
        self._is_out_of_step = verdict.outcome is Outcome.RUNTIME_ERROR  # it may be on the next test already
        if self.is_over:
            return verdict
        self._contact.send({"end": 1})
        got = self._values(index, "value", MAX_PARTS)
        return got if isinstance(got, Verdict) else verdict

    def _hand_over(self, tester: Contact) -> Verdict:
        while True:
            try:
                message = tester.receive()
            except OutOfTimeError:
                return _TIMEOUT
            except EndedError as end:
                return _death(end.status) or _FAILED
            if "verdict" in message:
                return _judged(message)
            self._contact.send(message)
            try:
                answer = self._receive_any()
            except EndedError as end:
                return _death(end.status) or _ENDED_IN_A_CALL
            if isinstance(answer, Verdict):
                return answer
            if answer.get("answer") != message["ask"]:  # it did not get as far as answering: the setup raised
                return _error(answer["error"]) if answer.get("error") else _FORGED
            tester.send(answer)


def _prepare(test: UnitTest, fn_name: str | None, config: ExecutionConfig) -> Any:
    """What the program's process is told of a test: never the answer, unless the config says to trust it."""
    if isinstance(test, StdinTest):
        return test.stdin
    if isinstance(test, CallTest):
        return {"args": [values.encode(argument) for argument in test.args]}
    if config.assertions == "trusting":
        return {"setup": test.setup, "code": test.code}
    comparisons = assertions.split(test, fn_name)
    expressions = {"expressions": [each.expression for each in comparisons]} if comparisons else {}
    return {"setup": test.setup} | expressions


def _job_message(job: Job, tests: list[Any], prepared: list[Any], config: ExecutionConfig) -> dict[str, Any]:
    kind = type(tests[0])
    return {
        "kind": "stdin" if kind is StdinTest else "module",
        "code": job.code,
        "before": prelude_of(job, config),
        "fn_name": job.fn_name,
        "prelude": kind is CallTest,
        "tests": prepared,
        "goes_on": config.stop == "never",
        "cpu_s": int(_BACKSTOP * config.cpu_limit_s * len(tests)) + 10,
    }


def _parts(expected: list[Any]) -> int:
    """How many parts a message with an answer like these may have: what is far longer is wrong, and is not read."""
    encoded = values.dumps(values.encode(expected))
    return min(MAX_PARTS - 1, 4096 + 8 * (encoded.count(b",") + encoded.count(b"[") + encoded.count(b"{")))


def _equal(got: Any, test: CallTest, comparator: Any) -> bool:
    try:
        return judge.compare_returned(got, test, comparator)
    except (ArithmeticError, RecursionError, TypeError, ValueError):
        return False


def _error(error: dict[str, Any]) -> Verdict:
    """Verdict on a described exception; its texts are the program's and may hold anything."""
    name = _clean(error["type"])[:100]
    message = _ADDRESS.sub("0x...", _clean(error["message"])[:500])
    return Verdict(Outcome.RUNTIME_ERROR, _SUBTYPES.get(name, name.lower()), message, error.get("line"))


def _clean(text: str) -> str:
    """The text without lone surrogates, which no file and no table can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _judged(message: dict[str, Any]) -> Verdict:
    if message["verdict"] == "passed":
        return _PASSED
    found = _error(message["error"])
    if message["verdict"] == "raised":
        return found
    if message["verdict"] == "unjudged":
        return Verdict(None, fault=f'{found.message} (assertions = "trusting" runs it in the program\'s own process)')
    return Verdict(Outcome.FAILED_TEST, None, found.message)


def _death(status: int) -> Verdict | None:
    """What a wait status says about a program; None for a good end.

    Raises:
        DoubtfulError: it was killed from outside, by the kernel for want of memory or by a person.
    """
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        verdict = Verdict(Outcome.RUNTIME_ERROR, "killed", f"killed by {signal_name(number)}")
        if number == signal.SIGKILL:
            raise DoubtfulError(verdict)
        return _TIMEOUT if number == signal.SIGXCPU else verdict
    code = os.WEXITSTATUS(status)
    return Verdict(Outcome.RUNTIME_ERROR, "exit", f"exit code {code}") if code else None
