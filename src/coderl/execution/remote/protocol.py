"""HTTP as the execution service speaks it: one request a connection, read by strict rules, always answered.

What is not exactly a request is refused, never guessed at: lines end in CRLF, a length is written once and in digits,
no body comes in chunks or with a GET. A connection is closed after its answer, so nothing in it can become a second
request. A stranger has ten seconds and 16 KiB to show the token, and only `MAX_STRANGERS` connections at a time do so.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

MAX_BODY_BYTES = 256 << 20
MAX_STRANGERS = 64
"""Connections that have not shown the token yet; a further one is told that the service is busy."""
MAX_REQUESTS = 16
"""Requests with the token that are read or run at a time."""
_MAX_HEAD_BYTES = 16 << 10
_MAX_HEADERS = 64
_HEAD_S = 10.0
_BODY_S = 600.0
_LINGER_S = 1.0
_LINGER_READS = 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request that keeps the rules."""

    method: str
    path: str
    headers: dict[str, str]
    """By name in lower case."""
    has_chunks: bool
    """The client understands an answer in chunks (HTTP/1.1)."""


class RefusedError(Exception):
    """A request that gets an answer of refusal."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


_FIRST_LINE = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]{0,1000}) HTTP/1\.([01])")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_ONCE = ("content-length", "transfer-encoding", "authorization", "host")
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)


def parse_head(head: bytes) -> Request:
    """Return the request whose head is given, without the empty line at its end.

    Raises:
        RefusedError: it breaks a rule of HTTP, or has twice what says where a request ends or who sends it.
    """
    first, *lines = head.split(b"\r\n")
    found = _FIRST_LINE.fullmatch(first)
    if found is None:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "the request line is malformed")
    if len(lines) > _MAX_HEADERS:
        raise RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {_MAX_HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "a header is malformed")
        key = name.decode("ascii").lower()
        if key in _ONCE and key in headers:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"two headers {key}")
        headers[key] = value.strip(b" \t").decode("latin-1")
    method, path, minor = (part.decode("ascii") for part in found.groups())
    return Request(method, path, headers, has_chunks=minor == "1")


def body_length(request: Request) -> int:
    """Return how many bytes of body follow a head.

    Raises:
        RefusedError: the request does not say so in the one way that is understood, or there are too many.
    """
    length = request.headers.get("content-length")
    if "transfer-encoding" in request.headers:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "a body comes with its length, not in a transfer encoding")
    if length is not None and not _LENGTH.fullmatch(length):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "the content length is not a number in digits")
    if request.method != "POST":
        if int(length or 0):
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"a {request.method} has no body")
        return 0
    if length is None:
        raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "a POST comes with the length of its body")
    if int(length) > MAX_BODY_BYTES:
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BODY_BYTES} bytes")
    return int(length)


# ------------------------------------------------------------------------------------------------------ connections

Handler = Callable[[bytes], Iterator[dict[str, Any]] | dict[str, Any]]
"""Answers the body of a request: with one object, or with lines of objects whose first is made before the answer
begins. It raises `RefusedError` for what it cannot use."""


class Server(socketserver.TCPServer):
    """The listening socket: each connection is a thread of its own, as many as there are places.

    Args:
        address: host and port.
        token: what a client must show.
        routes: what answers a method and a path.

    Raises:
        OSError: the address cannot be used.
    """

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], token: str, routes: dict[tuple[str, str], Handler]) -> None:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        self.address_family, _, _, _, resolved = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        self.token, self.routes = token, routes
        self.strangers = threading.BoundedSemaphore(MAX_STRANGERS)
        self.places = threading.BoundedSemaphore(MAX_REQUESTS)
        super().__init__(resolved[:2], _Connection)  # type: ignore[arg-type]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread, or tell it at once that there is none."""
        if self.strangers.acquire(blocking=False):
            try:
                threading.Thread(target=self._serve, args=(request, client_address), daemon=True).start()
                return
            except RuntimeError:  # the machine has no thread to give
                self.strangers.release()
        log.info("%s - 503, too many connections", client_address[0])
        with contextlib.suppress(OSError):
            request.settimeout(0.1)
            request.sendall(_refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections"))
        self.shutdown_request(request)

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError as error:
            log.debug("the connection of %s broke: %s", client_address[0], error)
        finally:
            self.shutdown_request(request)


class _Connection(socketserver.BaseRequestHandler):
    """One connection: its only request, and the answer."""

    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    request: socket.socket

    def setup(self) -> None:
        self.status = 0
        self.what = "-"
        self.num_bytes = 0
        self.is_stranger = True
        self.started = time.monotonic()

    def handle(self) -> None:
        try:
            self._answer()
        except RefusedError as refused:
            self._refuse(refused.status, refused.reason)
        except TimeoutError:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "too slow")
        except OSError:
            raise
        except Exception:
            log.exception("a request failed")
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the service failed; see its log")

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        """Answer with a status; where the answer has begun, end it without its end, so that the client notices."""
        if self.status:
            log.warning("an answer broke off: %s", reason)
            return
        self._send(_refusal(status, reason), status)
        with contextlib.suppress(OSError):  # closing on bytes that nobody read would cost the client the answer
            self.request.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + _LINGER_S
            for _ in range(_LINGER_READS):
                if not self._receive(1 << 16, deadline):
                    break

    def finish(self) -> None:
        """Free the place, and write the one line of the log: no header, no query, no body, for these hold secrets."""
        if self.is_stranger:
            self.server.strangers.release()
        seconds = time.monotonic() - self.started
        log.info("%s %s %d %d bytes %.2f s", self.client_address[0], self.what, self.status, self.num_bytes, seconds)

    def _answer(self) -> None:
        deadline = self.started + _HEAD_S
        request, rest = self._read_head(deadline)
        path = request.path.partition("?")[0]
        self.what = f"{request.method} {path if any(path == known for _, known in self.server.routes) else '(unknown)'}"
        length = body_length(request)
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, b"Bearer " + self.server.token.encode()):
            raise RefusedError(HTTPStatus.UNAUTHORIZED, "a bearer token is needed")
        handler = self.server.routes.get((request.method, request.path))
        if handler is None:
            is_known = any(request.path == known for _, known in self.server.routes)
            status = HTTPStatus.METHOD_NOT_ALLOWED if is_known else HTTPStatus.NOT_FOUND
            raise RefusedError(status, status.phrase.lower())
        self.is_stranger = False
        self.server.strangers.release()
        if not self.server.places.acquire(blocking=False):
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "busy")
        try:
            if request.headers.get("expect", "").lower() == "100-continue":
                self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._reply(handler(self._read_body(rest, length)), has_chunks=request.has_chunks)
        finally:
            self.server.places.release()

    def _read_head(self, deadline: float) -> tuple[Request, bytes]:
        received = b""
        while True:
            head, is_whole, rest = received.partition(b"\r\n\r\n")
            if len(head) > _MAX_HEAD_BYTES:
                raise RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {_MAX_HEAD_BYTES} bytes")
            if is_whole:
                return parse_head(head), rest
            more = self._receive(4096, deadline)
            if not more:
                raise RefusedError(HTTPStatus.BAD_REQUEST, "the connection ended before the request did")
            received += more

    def _read_body(self, start: bytes, length: int) -> bytes:
        body = bytearray(start[:length])
        deadline = time.monotonic() + _BODY_S
        while len(body) < length:
            more = self._receive(min(1 << 20, length - len(body)), deadline)
            if not more:
                raise RefusedError(HTTPStatus.BAD_REQUEST, f"the body ended after {len(body)} of {length} bytes")
            body += more
        self.num_bytes = length
        return bytes(body)

    def _receive(self, size: int, deadline: float) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.request.settimeout(left)
        return self.request.recv(size)

    # -------------------------------------------------------------------------------------------------- the answer

    def _reply(self, found: Iterator[dict[str, Any]] | dict[str, Any], *, has_chunks: bool) -> None:
        self.request.settimeout(_BODY_S)
        if isinstance(found, dict):
            self._send(_message(HTTPStatus.OK, found), HTTPStatus.OK)
            return
        first = next(
            found, None
        )  # a request that cannot be used is refused here, while there is still a status to send
        kind = {"Content-Type": "application/x-ndjson"} | ({"Transfer-Encoding": "chunked"} if has_chunks else {})
        self._send(_head(HTTPStatus.OK, kind), HTTPStatus.OK)
        for reply in [] if first is None else _chain(first, found):
            line = json.dumps(reply).encode("ascii") + b"\n"
            self.request.sendall(b"%x\r\n%s\r\n" % (len(line), line) if has_chunks else line)
        if has_chunks:
            self.request.sendall(b"0\r\n\r\n")

    def _send(self, message: bytes, status: HTTPStatus) -> None:
        self.status = status
        self.request.settimeout(_LINGER_S if self.is_stranger else _BODY_S)
        self.request.sendall(message)


def _chain(first: dict[str, Any], rest: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield first
    yield from rest


def _refusal(status: HTTPStatus, reason: str) -> bytes:
    retry = {"Retry-After": "1"} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
    return _message(status, {"error": reason}, retry)


def _message(status: HTTPStatus, content: dict[str, Any], headers: dict[str, str] | None = None) -> bytes:
    body = json.dumps(content).encode("ascii")
    own = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    return _head(status, own) + body


def _head(status: HTTPStatus, headers: dict[str, str]) -> bytes:
    """No header names a program or its version: that helps nobody but who looks for one with a known hole."""
    lines = [f"HTTP/1.1 {int(status)} {status.phrase}", "Connection: close", "Cache-Control: no-store"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii")
