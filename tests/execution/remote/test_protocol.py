"""HTTP by strict rules: one request a connection, one answer, whatever the bytes are."""

import contextlib
import http.client
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl.execution.remote import protocol
from coderl.execution.remote.protocol import RefusedError, Request, Server, body_length, parse_head

TOKEN = "open-sesame"
AUTH = f"Authorization: Bearer {TOKEN}\r\n".encode()
GET = b"GET /v1/health HTTP/1.1\r\n" + AUTH


def lines(body: bytes) -> Iterator[dict[str, Any]]:
    """Echo each byte; `!` cannot be used, `?` is a bug of the service."""
    for byte in body:
        if byte == ord("!"):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "no !")
        if byte == ord("?"):
            raise KeyError("secret detail")
        yield {"byte": byte}


@contextlib.contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Server]:
    routes: dict[tuple[str, str], protocol.Handler] = {
        ("GET", "/v1/health"): lambda body: {"health": "good"},
        ("POST", "/v1/run"): lines,
    }
    with Server((host, 0), TOKEN, routes) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def exchange(server: Server, raw: bytes, *, half_close: bool = True) -> bytes:
    """Send bytes as they are; return all that comes back until the service closes."""
    with socket.create_connection(server.server_address[:2], timeout=30) as connection:  # type: ignore[arg-type]
        try:
            connection.sendall(raw)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except OSError:  # it answered and closed before it had everything
            pass
        received = b""
        while True:
            try:
                more = connection.recv(1 << 16)
            except ConnectionResetError:
                return received
            if not more:
                return received
            received += more


def statuses(answer: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def test_answers(server: Server) -> None:
    """Health is one object, a run is a line an item in chunks; a client of HTTP/1.0 gets the lines alone."""
    answer = exchange(server, GET + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
    assert answer.endswith(b'\r\n\r\n{"health": "good"}')
    answer = exchange(server, b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: 2\r\n\r\nab")
    assert answer.endswith(b'\r\n\r\nd\r\n{"byte": 97}\n\r\nd\r\n{"byte": 98}\n\r\n0\r\n\r\n')
    answer = exchange(server, b"POST /v1/run HTTP/1.0\r\n" + AUTH + b"Content-Length: 1\r\n\r\na")
    assert b"chunked" not in answer
    assert answer.endswith(b'\r\n\r\n{"byte": 97}\n')


def test_no_header_names_a_program_or_a_version(server: Server) -> None:
    """Not in an answer, not in a refusal."""
    for raw in (GET + b"\r\n", b"x\r\n\r\n"):
        head = exchange(server, raw).partition(b"\r\n\r\n")[0].lower()
        assert b"python" not in head
        assert b"server:" not in head


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /v1/health HTTP/1.1\r\n\r\n", 401),
        (b"GET /v1/health HTTP/1.1\r\nAuthorization: Bearer open-sesam\r\n\r\n", 401),
        (b"POST /v1/run HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde", 401),
        (b"GET /v1/other HTTP/1.1\r\n" + AUTH + b"\r\n", 404),
        (b"GET /v1/run HTTP/1.1\r\n" + AUTH + b"\r\n", 405),
        (b"DELETE /v1/run HTTP/1.1\r\n" + AUTH + b"\r\n", 405),
        (b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"\r\n", 411),
        (b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: 268435457\r\n\r\n", 413),
        (b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: 100000000000000000\r\n\r\n", 413),
        (b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: " + b"0" * 19 + b"5\r\n\r\nabcde", 400),
        (b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: +5\r\n\r\nabcde", 400),
        (b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: 5, 5\r\n\r\nabcde", 400),
        (b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: 0x5\r\n\r\nabcde", 400),
        (b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: \xb2\r\n\r\nabcde", 400),
        (b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length:\r\n\r\nabcde", 400),
        (b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde", 400),
        (b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: 5\r\ncontent-length: 0\r\n\r\nabcde", 400),
        (
            b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: 9\r\n\r\nabc", 400),
        (b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: 1\r\n\r\n!", 400),
        (b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: 1\r\n\r\n?", 500),
        (GET + AUTH + b"\r\n", 400),
        (GET + b"Content-Length: 5\r\n\r\nabcde", 400),
        (GET + b" folded: 1\r\n\r\n", 400),
        (GET + b"no colon\r\n\r\n", 400),
        (GET + b"a b: 1\r\n\r\n", 400),
        (GET + b"a : 1\r\n\r\n", 400),
        (GET + b"a: \x00\r\n\r\n", 400),
        (GET + b"a: 1\nContent-Length: 5\r\n\r\n", 400),
        (GET + b"a: 1\r\n" * 65 + b"\r\n", 431),
        (GET + b"a: " + b"1" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /v1/health HTTP/1.1\n\n", 400),
        (b"GET /v1/health\r\n\r\n", 400),
        (b"GET  /v1/health HTTP/1.1\r\n\r\n", 400),
        (b"GET http://x/v1/health HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/health HTTP/2.0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"", 400),
    ],
)
def test_what_is_refused_gets_one_answer_with_a_status(server: Server, raw: bytes, status: int) -> None:
    """What was sent is never taken for less, for more, or for something else than it says."""
    answer = exchange(server, raw)
    assert statuses(answer) == [status]
    body = answer.partition(b"\r\n\r\n")[2]
    assert set(json.loads(body)) == {"error"}
    assert b"secret detail" not in answer


def test_nothing_behind_a_request_is_a_request(server: Server) -> None:
    """Neither a body on a GET, nor what follows a body, nor a second request on the connection."""
    inner = GET + b"\r\n"
    length = b"Content-Length: %d\r\n" % len(inner)
    assert statuses(exchange(server, GET + length + b"\r\n" + inner)) == [400]
    assert statuses(exchange(server, inner + inner)) == [200]
    assert statuses(exchange(server, b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: 1\r\n\r\na" + inner)) == [
        200
    ]


def test_an_answer_that_breaks_off_has_no_end(server: Server) -> None:
    """The status was sent; the client sees that the last chunk is missing."""
    answer = exchange(server, b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: 2\r\n\r\na!")
    assert statuses(answer) == [200]
    assert not answer.endswith(b"0\r\n\r\n")
    connection = http.client.HTTPConnection(*server.server_address[:2])  # type: ignore[arg-type]
    connection.request("POST", "/v1/run", b"a?", {"Authorization": f"Bearer {TOKEN}"})
    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()
    connection.close()


def test_a_length_beyond_the_limit_is_refused_before_the_body_is_read(server: Server) -> None:
    """The client has not sent it yet."""
    raw = b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: 999999999999\r\n\r\n"
    assert statuses(exchange(server, raw, half_close=False)) == [413]


def test_strangers_have_few_places_and_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all places taken a further one is told so at once; a silent one is told that it is too slow and put out."""
    monkeypatch.setattr(protocol, "MAX_STRANGERS", 2)
    monkeypatch.setattr(protocol, "_HEAD_S", 5.0)
    with serving() as server, contextlib.ExitStack() as opened:
        address: Any = server.server_address[:2]
        silent = [opened.enter_context(socket.create_connection(address, timeout=30)) for _ in range(2)]
        silent[0].sendall(b"GET /v1")
        # connections are taken in the order in which they came, so by now both places are gone
        assert statuses(exchange(server, GET + b"\r\n")) == [503]
        assert [statuses(connection.recv(1000)) for connection in silent] == [[408], [408]]
        for _ in range(2):  # the places come back
            assert server.strangers.acquire(timeout=30)


def test_the_log_has_a_line_a_request_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Who, what, status, size; no token, no query, no path that the service does not know, no body."""
    requests = [
        b"POST /v1/run HTTP/1.1\r\n" + AUTH + b"Content-Length: 3\r\n\r\nabc",
        b"GET /v1/health?token=hunter2 HTTP/1.1\r\nAuthorization: Bearer hunter2\r\n\r\n",
        b"GET /hunter2 HTTP/1.1\r\nX: hunter2\r\n\r\n",
        b"hunter2\r\n\r\n",
    ]
    with caplog.at_level(logging.INFO, protocol.log.name), serving() as server:
        for number, request in enumerate(requests, start=1):
            exchange(server, request)
            for _ in range(3000):  # it is written after the answer
                if len(caplog.records) >= number:
                    break
                time.sleep(0.01)
    written = [re.sub(r"[\d.]+ s$", "S s", record.getMessage()) for record in caplog.records]
    assert written == [
        "127.0.0.1 POST /v1/run 200 3 bytes S s",
        "127.0.0.1 GET /v1/health 401 0 bytes S s",
        "127.0.0.1 GET (unknown) 401 0 bytes S s",
        "127.0.0.1 - 400 0 bytes S s",
    ]


def test_the_loopback_address_of_ipv6() -> None:
    """`::1` can be bound and asked."""
    with contextlib.ExitStack() as opened:
        try:
            server = opened.enter_context(serving("::1"))
        except OSError:
            pytest.skip("this machine has no IPv6")
        assert statuses(exchange(server, GET + b"\r\n")) == [200]


# ------------------------------------------------------------------------------------------------------------- fuzz

PIECES = [
    b"GET", b"POST", b" ", b"/v1/health", b"/v1/run", b"HTTP/1.1", b"\r\n", b"\n", b"\r", b":", b"\t", b"\x00", b"\xff",
    b"Content-Length: ", b"Transfer-Encoding: chunked", b"5", b"0", b"-1", b"Expect: 100-continue", b"\r\n\r\n", b"a",
    b"!", AUTH, GET, b"POST /v1/run HTTP/1.1\r\n" + AUTH, b"Content-Length: 1\r\n\r\na",
]  # fmt: skip
noise = st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=14).map(b"".join)


@settings(deadline=None, max_examples=300)
@given(raw=noise)
def test_any_bytes_get_at_most_one_answer_and_the_service_goes_on(server: Server, raw: bytes) -> None:
    """Bounded, on the loopback address: each exchange ends with one status (and `100 Continue` where it was asked)."""
    answer = exchange(server, raw)
    assert [status for status in statuses(answer) if status != 100] in (
        [[200], [400], [401], [404], [405], [411], [413], [500]]
    )


def test_the_service_still_answers(server: Server) -> None:
    """After all of the above, with every place free again."""
    assert statuses(exchange(server, GET + b"\r\n")) == [200]
    for places, number in ((server.places, protocol.MAX_REQUESTS), (server.strangers, protocol.MAX_STRANGERS)):
        assert [places.acquire(timeout=30) for _ in range(number)] == [True] * number
        places.release(number)


@given(noise)
@settings(deadline=None)
def test_a_head_is_a_request_or_refused(head: bytes) -> None:
    """Nothing else is raised, and what is accepted says where its body ends in one way."""
    try:
        request = parse_head(head)
        length = body_length(request)
    except RefusedError:
        return
    assert isinstance(request, Request)
    assert 0 <= length <= protocol.MAX_BODY_BYTES
    assert head.lower().count(b"content-length:") <= 1 or length == 0
