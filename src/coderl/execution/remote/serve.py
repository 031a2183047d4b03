"""The executor as a small HTTP service: whole programs with their inputs in, answers out, never an expected output.

    POST /v1/run      {"programs": [{"code", "fn_name", "tests": [{"stdin"} or {"args"}]}], "max_answer_bytes"}
                      -> one JSON line a program, in order, as they finish
    GET  /v1/health   -> limits, level of isolation, workers

A line has `test_outcomes` (PASSED_TEST where there is an answer to judge), `answers` (`{"stdout"}` in base64,
`{"value"}` or `{"too_long"}`), what is known of an error, and the resources used; or `fault`. Both need the header
`Authorization: Bearer TOKEN`. The service listens on the loopback address unless told otherwise, and speaks plain HTTP:
put it behind a proxy with TLS before it leaves the machine. Comparison is the client's: see `client`.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import logging
import secrets
import threading
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from coderl.execution.config import ExecutionConfig, Job
from coderl.execution.pool import Executor
from coderl.execution.sandbox import values
from coderl.types import (
    CallTest,
    InputError,
    StdinTest,
    Verdict,
)

MAX_REQUEST_BYTES = 256 << 20
_MAX_REQUESTS = 16
_log = logging.getLogger(__name__)


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
        work = [self._job(program) for program in programs]
        try:
            for names, result in zip(
                [names for _, names in work], self.executor.run(job for job, _ in work), strict=True
            ):
                yield _reply(result, [self._answers.pop(name) for name in names], max_answer_bytes)
        finally:
            for name in (name for _, names in work for name in names):
                self._answers.pop(name, None)

    def _job(self, program: dict[str, Any]) -> tuple[Job, list[str]]:
        try:
            code, fn_name, given = program["code"], program.get("fn_name"), program["tests"]
            with self._lock:
                names = [f"{self._names + n}" for n in range(len(given))]
                self._names += len(given)
            if not isinstance(code, str) or not isinstance(fn_name, str | None) or not given:
                raise TypeError("code and fn_name are text, and there is at least one test")
            job = Job(code, tuple(map(_open_test, given, names)), fn_name)
            self._answers.update(dict.fromkeys(names))
            return job, names
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"a program is not as the interface says: {type(error).__name__}: {error}") from None


def _open_test(given: dict[str, Any], name: str) -> StdinTest | CallTest:
    if "stdin" in given:
        if not isinstance(given["stdin"], str):
            raise TypeError("stdin is text")
        return StdinTest(given["stdin"], name)
    return CallTest(tuple(values.decode(argument) for argument in given["args"]), name)


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
        try:
            self._server = _Server((host, port), self._runner, self.config, self.token)
        except (OSError, OverflowError) as error:
            raise InputError(f"cannot listen on {host}:{port}: {error}") from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="coderl-service", daemon=True)

    @property
    def url(self) -> str:
        """Where the service listens."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def isolation(self) -> str:
        """The level that was reached; known once entered."""
        return self._runner.executor.isolation

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

    Raises:
        InputError: the address cannot be used.
        SandboxError: the isolation that the config asks for cannot be had.
    """
    with Service(config, host=host, port=port, token=token) as service:
        print(f"{service.url}  isolation {service.isolation}, {service.config.num_workers} workers", flush=True)
        if token is None:
            print(f"token {service.token}", flush=True)
        if host not in ("127.0.0.1", "::1", "localhost"):
            print("warning: this address is open to others, and plain HTTP shows them the token", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            service.serve_forever()
    return 0


class _Server(ThreadingHTTPServer):
    """The sockets and what the handlers need."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], runner: OpenRunner, config: ExecutionConfig, token: str) -> None:
        super().__init__(address, _Handler)
        self.runner, self.config, self.token = runner, config, token
        self.free_places = threading.BoundedSemaphore(_MAX_REQUESTS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a connection that broke; the client asks again."""
        _log.debug("connection of %s broke", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 600

    @property
    def _service(self) -> _Server:
        assert isinstance(self.server, _Server)
        return self.server

    def log_message(self, format: str, *args: Any) -> None:
        """Leave the terminal alone."""
        _log.debug(format, *args)

    def do_GET(self) -> None:
        """Answer /v1/health."""
        if not self._is_allowed("/v1/health"):
            return
        config = self._service.config
        limits = {name: getattr(config, name) for name in _LIMIT_NAMES}
        self._send(
            HTTPStatus.OK, {"isolation": self._service.runner.executor.isolation, "limits": limits} | _size(config)
        )

    def do_POST(self) -> None:
        """Answer /v1/run."""
        body = self._body()
        if body is None or not self._is_allowed("/v1/run"):
            return None
        if not self._service.free_places.acquire(blocking=False):
            return self._send(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "busy"}, {"Retry-After": "1"})
        try:
            self._run(body)
        finally:
            self._service.free_places.release()
        return None

    def _run(self, body: bytes) -> None:
        try:
            request = json.loads(body)
            replies = self._service.runner.run(list(request["programs"]), int(request["max_answer_bytes"]))
            first = next(replies, None)
        except (InputError, ValueError, TypeError, KeyError, RecursionError) as error:
            return self._send(HTTPStatus.BAD_REQUEST, {"error": f"{type(error).__name__}: {error}"})
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for reply in [] if first is None else _chain(first, replies):
            line = json.dumps(reply).encode("ascii") + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")
        return None

    def _body(self) -> bytes | None:
        """The request's body; None, and an answer sent, where it is missing or too large."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length[:12]) > MAX_REQUEST_BYTES:
            self.close_connection = True
            self._send(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": f"at most {MAX_REQUEST_BYTES} bytes, with a length"}
            )
            return None
        if not self._has_token():  # a stranger's megabytes are not even read
            self.close_connection = True
            self._send(HTTPStatus.UNAUTHORIZED, {"error": "a bearer token is needed"})
            return None
        return self.rfile.read(int(length))

    def _has_token(self) -> bool:
        given = self.headers.get("Authorization", "").encode("utf-8", "replace")
        return hmac.compare_digest(given, b"Bearer " + self._service.token.encode())

    def _is_allowed(self, path: str) -> bool:
        if not self._has_token():
            self._send(HTTPStatus.UNAUTHORIZED, {"error": "a bearer token is needed"})
            return False
        if self.path != path:
            self._send(HTTPStatus.NOT_FOUND, {"error": f"no {self.path}"})
            return False
        return True

    def _send(self, status: HTTPStatus, message: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        body = json.dumps(message).encode("ascii")
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


_LIMIT_NAMES = ("cpu_limit_s", "wall_limit_s", "memory_limit_bytes", "output_limit_bytes")


def _size(config: ExecutionConfig) -> dict[str, Any]:
    return {"num_workers": config.num_workers}


def _chain(first: dict[str, Any], rest: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield first
    yield from rest
