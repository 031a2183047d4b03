"""The client of `serve`, with the interface of `Executor`: it sends programs and inputs, and judges what comes back.

Expected outputs stay here. A test that does not pass in a child that ran others before is asked for again alone, and if
it passes then, every test is, as the local executor does. Jobs with code of the tests' own (a checker, assertions) are
run by a local executor, for that code holds answers.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from coderl.execution import judge
from coderl.execution.config import LEVELS, ExecutionConfig, Job, prelude_of
from coderl.execution.pool import Executor
from coderl.execution.sandbox import values
from coderl.types import (
    CallTest,
    InputError,
    Outcome,
    SandboxError,
    StdinTest,
    Verdict,
)

_LIMIT_NAMES = ("cpu_limit_s", "wall_limit_s", "memory_limit_bytes", "output_limit_bytes")
_NUM_TRIES = 2


class ClientConfig(BaseModel):
    """Where the service is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    """Such as http://127.0.0.1:8321."""
    token: str
    """The service's bearer token."""
    batch_size: int = Field(default=32, ge=1)
    """Programs a request."""
    num_requests: int = Field(default=2, ge=1)
    """Requests at a time, so that the service always has work."""
    read_timeout_s: float = Field(default=600.0, gt=0)
    """How long the service may be silent."""
    retry_s: float = Field(default=60.0, gt=0)
    """How long to ask again while the service is busy or cannot be reached."""


@dataclass
class _State:
    """How far the judging of a job has come."""

    job: Job
    verdicts: list[Verdict] = field(default_factory=list)
    is_doubted: bool = False
    """The next test failed in a child that had run others: it is asked for again, alone."""
    is_alone: bool = False
    """It passed then: every test is asked for alone, from the first on."""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    isolation: str = "unsafe"
    num_faults: int = 0
    is_settled: bool = False
    result: Verdict | None = None

    @property
    def tests(self) -> tuple[Any, ...]:
        """The tests to ask for next, in one child."""
        first = len(self.verdicts)
        return self.job.tests[first : first + 1] if self.is_doubted or self.is_alone else self.job.tests[first:]

    def add(self, verdict: Verdict, stop: str) -> None:
        """Take the verdict on the next test."""
        self.verdicts.append(verdict)
        self.is_doubted = False
        is_last = len(self.verdicts) == len(self.job.tests)
        self.is_settled = is_last or (stop == "first_failure" and verdict.outcome is not Outcome.PASSED_TEST)


class RemoteExecutor:
    """Runs jobs on a service and judges them here. Use as a context manager.

    Raises:
        InputError: on entering, where nothing answers at the URL, the token is wrong, or the service has other limits.
        SandboxError: on entering, where the service isolates less than the config asks for.
    """

    def __init__(self, client: ClientConfig, config: ExecutionConfig | None = None) -> None:
        self.client = client
        self.config = config or ExecutionConfig()
        self.isolation = "unsafe"
        """The level of the service; known once entered."""
        self._local: Executor | None = None
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> RemoteExecutor:
        health = self._health()
        for name in _LIMIT_NAMES:
            theirs, asked = health["limits"][name], getattr(self.config, name)
            if theirs != asked:
                raise InputError(f"{self.client.url} runs with {name} = {theirs}, asked was {asked}")
        self.isolation = health["isolation"]
        if LEVELS.index(health["isolation"]) < LEVELS.index(self.config.min_isolation):
            raise SandboxError(
                f"{self.client.url} has isolation {self.isolation}, needed is {self.config.min_isolation}"
            )
        self._threads = ThreadPoolExecutor(self.client.num_requests, thread_name_prefix="coderl-client")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        if self._local is not None:
            self._local.__exit__(None, None, None)
        self._threads = self._local = None

    def run(self, jobs: Iterable[Job]) -> Iterator[Verdict]:
        """Yield one result a job, in the order of the jobs; a service that is lost gives faults.

        Raises:
            RuntimeError: the executor was not entered.
        """
        if self._threads is None:
            raise RuntimeError("use the executor as a context manager: with RemoteExecutor(client) as executor")
        source = iter(jobs)
        under_way: deque[Future[list[Verdict]]] = deque()
        try:
            while True:
                while len(under_way) < 2 * self.client.num_requests:
                    chunk = list(islice(source, self.client.batch_size))
                    if not chunk:
                        break
                    under_way.append(self._threads.submit(self._run_chunk, chunk, self._local_for(chunk)))
                if not under_way:
                    return
                yield from under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()

    # ----------------------------------------------------------------------------------------------------- judging

    def _local_for(self, chunk: list[Job]) -> Executor | None:
        """The local executor, started when the first job needs it."""
        if self._local is None and not all(map(_is_remote, chunk)):
            self._local = Executor(self.config).__enter__()
        return self._local

    def _run_chunk(self, chunk: list[Job], local: Executor | None) -> list[Verdict]:
        states = [_State(job) for job in chunk]
        own = [state for state in states if not _is_remote(state.job)]
        if own:
            assert local is not None
            for state, result in zip(own, local.run([state.job for state in own]), strict=True):
                state.result = result
        while waiting := [state for state in states if state.result is None]:
            self._round(waiting)
        return [state.result for state in states if state.result is not None]

    def _round(self, waiting: list[_State]) -> None:
        """Ask for what is missing of each job and take it in."""
        replies = self._ask(waiting)
        for state, reply in zip(waiting, replies, strict=True):
            try:
                self._take(state, reply)
            except (KeyError, TypeError, ValueError, RecursionError, ArithmeticError) as error:
                _note_fault(state, f"the service's reply is malformed: {type(error).__name__}: {error}")

    def _take(self, state: _State, reply: dict[str, Any]) -> None:
        if "fault" in reply:
            return _note_fault(state, str(reply["fault"]), is_final=bool(reply.get("is_final")))
        state.cpu_s, state.wall_s = state.cpu_s + float(reply["cpu_s"]), state.wall_s + float(reply["wall_s"])
        state.isolation = str(reply["isolation"])
        failure = Verdict(None, reply["error_subtype"], str(reply["message"]), reply["error_line"])
        asked = zip(state.tests, reply["test_outcomes"], reply["answers"], strict=True)
        found = [self._verdict(test, number, answer, failure) for test, number, answer in asked if number is not None]
        if not found:
            raise ValueError("no test was run")
        if state.is_doubted and found[0].outcome is Outcome.PASSED_TEST:
            state.verdicts, state.is_doubted, state.is_alone = [], False, True
            return None
        for offset, verdict in enumerate(found):
            # The first test of a child is as good as alone in it, and an error was decided alone on the service.
            if offset and verdict.outcome is Outcome.FAILED_TEST:
                state.is_doubted = True
                break
            state.add(verdict, self.config.stop)
            if verdict.outcome is Outcome.FAILED_TEST:
                break
        if state.is_settled:
            state.result = _result(state)
        return None

    def _verdict(self, test: StdinTest | CallTest, number: int, answer: dict[str, Any], failure: Verdict) -> Verdict:
        outcome = Outcome(number)
        if outcome is not Outcome.PASSED_TEST:
            return replace(failure, outcome=outcome)
        return Verdict(outcome if self._is_right(test, answer) else Outcome.FAILED_TEST)

    def _is_right(self, test: StdinTest | CallTest, answer: dict[str, Any]) -> bool:
        if "too_long" in answer:
            return False
        if isinstance(test, StdinTest):
            return judge.compare_stdout(base64.b64decode(answer["stdout"]), test.stdout, self.config.comparator)
        return judge.compare_returned(values.decode(answer["value"]), test, self.config.comparator)

    # -------------------------------------------------------------------------------------------------------- wire

    def _ask(self, waiting: list[_State]) -> list[dict[str, Any]]:
        """Return the service's reply for each job, faults where it gave none."""
        programs = [_program(state, self.config) for state in waiting]
        # A power of two over all of them tells the service nothing of one expected output.
        longest = max(_expected_size(test) for state in waiting for test in state.tests)
        limit = max(1 << 20, 1 << (4 * longest).bit_length())
        replies: list[dict[str, Any]] = []
        deadline, pause = time.monotonic() + self.client.retry_s, 0.1
        while len(replies) < len(programs):
            before = len(replies)
            try:
                self._post({"programs": programs[before:], "max_answer_bytes": limit}, replies)
            except (OSError, http.client.HTTPException, ValueError) as error:
                if len(replies) > before:
                    deadline, pause = time.monotonic() + self.client.retry_s, 0.1
                if time.monotonic() > deadline:
                    fault = {"fault": f"{self.client.url} cannot be reached: {error}", "is_final": True}
                    return replies + [fault] * (len(programs) - len(replies))
                time.sleep(pause)
                pause = min(2 * pause, 5.0)
        return replies

    def _post(self, message: dict[str, Any], replies: list[dict[str, Any]]) -> None:
        """Append the lines of the reply to `replies` as they come, so that a broken connection loses no more."""
        connection = self._connection()
        try:
            body = json.dumps(message).encode("ascii")
            connection.request("POST", "/v1/run", body, {**self._headers(), "Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status == 503:
                raise ConnectionError("busy")
            if response.status != 200:
                fault = f"{self.client.url} refused: {response.status} {response.read(300).decode('utf-8', 'replace')}"
                replies += [{"fault": fault, "is_final": True}] * len(message["programs"])
                return
            for _ in message["programs"]:
                line = response.readline()
                if not line.endswith(b"\n"):
                    raise ConnectionError("the connection broke")
                replies.append(json.loads(line))
        finally:
            connection.close()

    def _health(self) -> dict[str, Any]:
        connection = self._connection()
        try:
            connection.request("GET", "/v1/health", headers=self._headers())
            response = connection.getresponse()
            text = response.read(1 << 16)
            if response.status != 200:
                raise InputError(f"{self.client.url}: {response.status} {text[:200].decode('utf-8', 'replace')}")
            return json.loads(text)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.client.url}: no execution service answers there ({error})") from None
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.client.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{self.client.url!r} is no URL of a service (expected http://host:port)")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname, parts.port, timeout=self.client.read_timeout_s)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.client.token}"}


def _is_remote(job: Job) -> bool:
    return job.checker is None and all(isinstance(test, StdinTest | CallTest) for test in job.tests)


def _program(state: _State, config: ExecutionConfig) -> dict[str, Any]:
    """What goes over the wire: the program and the inputs that are missing, no output."""
    tests = [
        {"stdin": test.stdin}
        if isinstance(test, StdinTest)
        else {"args": [values.encode(value) for value in test.args]}
        for test in state.tests
    ]
    program = {"code": state.job.code, "fn_name": state.job.fn_name, "tests": tests}
    prelude = prelude_of(state.job, config)
    return program | ({"prelude": prelude} if prelude else {})


def _expected_size(test: StdinTest | CallTest) -> int:
    return len(test.stdout if isinstance(test, StdinTest) else json.dumps(values.encode(test.expected)))


def _note_fault(state: _State, text: str, *, is_final: bool = False) -> None:
    """Count a fault; the job is tried once more, unless that was done."""
    state.num_faults += 1
    if is_final or state.num_faults >= _NUM_TRIES:
        state.result = Verdict(None, fault=text)


def _result(state: _State) -> Verdict:
    outcomes = [verdict.outcome for verdict in state.verdicts]
    worst = min((verdict for verdict in state.verdicts), key=lambda verdict: verdict.outcome or Outcome.COMPILE_ERROR)
    return replace(
        worst,
        test_outcomes=(*outcomes, *[None] * (len(state.job.tests) - len(outcomes))),
        cpu_s=state.cpu_s,
        wall_s=state.wall_s,
        isolation=state.isolation,
    )
