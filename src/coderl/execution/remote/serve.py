"""The executor as a small HTTP service: whole programs with their inputs in, answers out, never an expected output.

    POST /v1/run      {"programs": [{"code", "fn_name", "prelude", "tests": [{"stdin"} or {"args"}]}],
                       "max_answer_bytes"} -> one JSON line a program, in order, as they finish
    GET  /v1/health   -> limits, level of isolation, workers

A line has `test_outcomes` (PASSED_TEST where there is an answer to judge), `answers` (`{"stdout"}` in base64,
`{"value"}` or `{"too_long"}`), what is known of an error, and the resources used; or `fault`. Both need the header
`Authorization: Bearer TOKEN`; a connection carries one request (see `protocol`). The service listens on the loopback
address unless told otherwise, and speaks plain HTTP: put it behind a proxy with TLS before it leaves the machine.
Comparison is the client's: see `client`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import secrets
import sys
import threading
from collections.abc import Iterator
from http import HTTPStatus
from types import TracebackType
from typing import Any

from coderl.execution.config import ExecutionConfig, Job
from coderl.execution.pool import Executor, check
from coderl.execution.remote import protocol
from coderl.execution.sandbox import values
from coderl.types import (
    CallTest,
    InputError,
    StdinTest,
    Verdict,
)

_MAX_ANSWER_BYTES = 1 << 40


class OpenRunner:
    """Runs programs on tests without expected outputs and keeps what they answered.

    The comparator of its executor calls every answer right and notes it under the name that stands in the place of the
    expected output. A test that comes after a wrong answer is thus run in the same child; the client, who knows, asks
    for it again.
    """

    def __init__(self, config: ExecutionConfig) -> None:
        self._answers: dict[str, Any] = {}
        """Name of a test under way -> what was answered; None before."""
        self._names = 0
        self._lock = threading.Lock()
        open_config = config.model_copy(update={"stop": "first_failure", "comparator": self._note})
        self.executor = Executor(open_config)

    def _note(self, got: Any, name: Any) -> bool:
        if name in self._answers:  # else who asked is gone
            self._answers[name] = got
        return True

    def run(self, programs: list[dict[str, Any]], max_answer_bytes: int) -> Iterator[dict[str, Any]]:
        """Yield the reply to each program, in order.

        Raises:
            InputError: a program is not as the interface says.
        """
        work: list[tuple[Job, list[str]]] = []
        try:
            work += [self._job(program) for program in programs]
            for names, result in zip(
                [names for _, names in work], self.executor.run(job for job, _ in work), strict=True
            ):
                yield _reply(result, [self._answers.pop(name) for name in names], max_answer_bytes)
        finally:
            for name in (name for _, names in work for name in names):
                self._answers.pop(name, None)

    def _job(self, program: dict[str, Any]) -> tuple[Job, list[str]]:
        given = program.get("tests")
        texts = [program.get("code"), program.get("fn_name") or "", program.get("prelude") or ""]
        if not all(isinstance(text, str) and _is_encodable(text) for text in texts):
            raise InputError("code, fn_name and prelude must be text")
        if not isinstance(given, list) or not given or not all(isinstance(test, dict) for test in given):
            raise InputError("tests must be a list of objects, at least one")
        code, fn_name, prelude = texts
        with self._lock:
            names = [f"{self._names + n}" for n in range(len(given))]
            self._names += len(given)
        job = Job(code, tuple(map(_open_test, given, names)), fn_name or None, prelude=prelude)
        check(job)
        self._answers.update(dict.fromkeys(names))
        return job, names


def _is_encodable(text: str) -> bool:
    """Whether a text can be handed to a program: a lone surrogate that stands for no byte cannot."""
    try:
        return text.encode("utf-8", "surrogateescape") is not None
    except UnicodeEncodeError:
        return False


def _open_test(given: dict[str, Any], name: str) -> StdinTest | CallTest:
    if "stdin" in given:
        if not isinstance(given["stdin"], str):
            raise InputError("stdin must be text")
        return StdinTest(given["stdin"], name)
    if not isinstance(given.get("args"), list):
        raise InputError("a test must have stdin, a text, or args, a list")
    try:
        return CallTest(tuple(values.decode(argument) for argument in given["args"]), name)
    except Exception as error:  # what decoding forged values raises is anybody's guess; that they are forged is not
        raise InputError(f"args are not encoded values ({type(error).__name__})") from None


def _reply(result: Verdict, answers: list[Any], max_answer_bytes: int) -> dict[str, Any]:
    if result.outcome is None:
        return {"fault": result.fault}
    fields = {name: getattr(result, name) for name in Verdict.__slots__ if name != "fault"}
    return fields | {"answers": [_answer(answer, max_answer_bytes) for answer in answers]}


def _answer(got: Any, max_answer_bytes: int) -> dict[str, Any] | None:
    if got is None:
        return {"value": None}
    if isinstance(got, bytes):
        if len(got) > max_answer_bytes:
            return {"too_long": len(got)}
        return {"stdout": base64.b64encode(got).decode("ascii")}
    encoded = values.encode(got)
    size = len(values.dumps(encoded))
    return {"too_long": size} if size > max_answer_bytes else {"value": encoded}


# ------------------------------------------------------------------------------------------------------------- http


def _parsed(body: bytes) -> tuple[list[dict[str, Any]], int]:
    """The programs of a request, and how long an answer may be.

    Raises:
        RefusedError: the body is not as the interface says.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise protocol.RefusedError(HTTPStatus.BAD_REQUEST, "the body is not JSON") from None
    programs, limit = (request.get(name) if isinstance(request, dict) else None for name in _REQUEST)
    if not isinstance(programs, list) or not all(isinstance(program, dict) for program in programs):
        raise protocol.RefusedError(HTTPStatus.BAD_REQUEST, "programs must be a list of objects")
    if type(limit) is not int or not 0 < limit <= _MAX_ANSWER_BYTES:
        raise protocol.RefusedError(HTTPStatus.BAD_REQUEST, "max_answer_bytes must be a number of bytes")
    return programs, limit


_REQUEST = ("programs", "max_answer_bytes")


class Service:
    """The service on an address. Use as a context manager, or `serve_forever`.

    Raises:
        InputError: the address cannot be used.
        SandboxError: on entering, where the isolation that the config asks for cannot be had.
    """

    def __init__(
        self, config: ExecutionConfig | None = None, *, host: str = "127.0.0.1", port: int = 0, token: str | None = None
    ) -> None:
        self.config = config or ExecutionConfig()
        self.token = token or secrets.token_urlsafe(24)
        self._runner = OpenRunner(self.config)
        routes: dict[tuple[str, str], protocol.Handler] = {
            ("GET", "/v1/health"): lambda body: self._health(),
            ("POST", "/v1/run"): self._run,
        }
        try:
            self._server = protocol.Server((host, port), self.token, routes)
        except (OSError, OverflowError) as error:
            raise InputError(f"cannot listen on {host}:{port}: {error}") from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="coderl-service", daemon=True)

    @property
    def url(self) -> str:
        """Where the service listens."""
        host, port = self._server.server_address[:2]
        return f"http://[{host}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    @property
    def isolation(self) -> str:
        """The level that was reached; known once entered."""
        return self._runner.executor.isolation

    def _health(self) -> dict[str, Any]:
        limits = {name: getattr(self.config, name) for name in _LIMIT_NAMES}
        return {"isolation": self.isolation, "limits": limits, "num_workers": self.config.num_workers}

    def _run(self, body: bytes) -> Iterator[dict[str, Any]]:
        programs, limit = _parsed(body)
        try:
            yield from self._runner.run(programs, limit)
        except InputError as error:
            raise protocol.RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from None

    def __enter__(self) -> Service:
        try:
            self._runner.executor.__enter__()
        except BaseException:
            self._server.server_close()
            raise
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._runner.executor.__exit__(None, None, None)

    def serve_forever(self) -> None:
        """Wait until the service ends (by an interrupt)."""
        self._thread.join()


def main_serve(
    config: ExecutionConfig | None = None, *, host: str = "127.0.0.1", port: int = 8321, token: str | None = None
) -> int:
    """Serve until interrupted; print the address, and the token where it was made here. Return 0.

    Each request is a line on standard error: who, what, status, size, time.

    Raises:
        InputError: the address cannot be used.
        SandboxError: the isolation that the config asks for cannot be had.
    """
    protocol.log.addHandler(logging.StreamHandler(sys.stderr))
    protocol.log.setLevel(logging.INFO)
    with Service(config, host=host, port=port, token=token) as service:
        print(f"{service.url}  isolation {service.isolation}, {service.config.num_workers} workers", flush=True)
        if token is None:
            print(f"token {service.token}", flush=True)
        if host not in ("127.0.0.1", "::1", "localhost"):
            print("warning: this address is open to others, and plain HTTP shows them the token", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            service.serve_forever()
    return 0


_LIMIT_NAMES = ("cpu_limit_s", "wall_limit_s", "memory_limit_bytes", "output_limit_bytes")
