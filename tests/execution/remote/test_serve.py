"""The service and its client: the local executor's verdicts, no answer on the wire, no fault taken for a verdict."""

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from coderl.execution.config import ExecutionConfig, Job
from coderl.execution.pool import Executor
from coderl.execution.remote.client import ClientConfig, RemoteExecutor
from coderl.execution.remote.serve import Service
from coderl.types import (
    AssertTest,
    CallTest,
    InputError,
    Outcome,
    StdinTest,
    Verdict,
)

CONFIG = ExecutionConfig(num_workers=1, cpu_limit_s=1.0, wall_limit_s=8.0)
ADD_ONE = tuple(StdinTest(f"{n}\n", f"{n + 987654321}\n") for n in range(4))
PAIRS = (CallTest((1, 2.5), ["swordfish", 3]), CallTest(("é", None), {"4": [1.0, None]}))
STATEFUL = "seen = []\ndef f(n):\n    seen.append(n)\n    return len(seen)\n"

JOBS = [
    Job("print(int(input()) + 987654321)", ADD_ONE),
    Job("print(1)", ADD_ONE),
    Job("n = int(input())\nprint(n + 987654321 if n < 2 else 0)", ADD_ONE),
    Job("n = int(input())\nprint(n + 987654321)\n1 // (n - 2)", ADD_ONE),
    Job("print(", ADD_ONE),
    Job("while True: pass", ADD_ONE[:1]),
    Job("import os; os._exit(0)", ADD_ONE),
    Job("def f(a, b):\n    return ('swordfish', 3) if a == 1 else {4: [1, b]}", PAIRS, "f"),
    Job("def f(a, b):\n    return None", PAIRS, "f"),
    Job("def g(a, b):\n    return None", PAIRS, "f"),
    Job("def f(a, b):\n    raise KeyError(a)", PAIRS, "f"),
    Job("x = 1 / 0\ndef f(a, b):\n    return 1", PAIRS, "f"),
    # right only in a fresh child each: the third and fourth answers are wrong where a child runs several tests
    Job(STATEFUL, (CallTest((1,), 1), CallTest((2,), 1), CallTest((3,), 1)), "f"),
    Job(STATEFUL, (CallTest((1,), 1), CallTest((2,), 2), CallTest((3,), 1)), "f"),
    Job("def f(n):\n    return None", (CallTest((1,), None),), "f"),
    Job("def f(n):\n    return n * 2", (AssertTest("assert f(2) == 4"), AssertTest("assert f(3) > 5")), "f"),
    Job(
        "print(input()[::-1])",
        (StdinTest("ab", "never"),),
        None,
        "def check(given, wanted, got): return got == 'ba\\n'",
    ),
]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service(CONFIG) as service:
        yield service


def client_of(service: Service, **changes: Any) -> ClientConfig:
    return ClientConfig(**{"url": service.url, "token": service.token, "batch_size": 4, "retry_s": 1.0, **changes})


def settled(results: Iterator[Verdict]) -> list[Verdict]:
    return [replace(r, cpu_s=0.0, wall_s=0.0) for r in results if r.fault is None]


@pytest.mark.parametrize("stop", ["first_failure", "never"])
def test_verdicts_are_those_of_the_local_executor(service: Service, stop: str) -> None:
    """Every kind of job ends the same way here and there: outcomes, errors, and which tests ran."""
    config = CONFIG.model_copy(update={"stop": stop})
    with Executor(config) as local, RemoteExecutor(client_of(service), config) as remote:
        expected, got = settled(local.run(JOBS)), settled(remote.run(JOBS))
        assert remote.isolation == local.isolation
    assert len(got) == len(JOBS)
    assert got == expected
    assert [result.outcome for result in got[:5]] == [Outcome(n) for n in (3, 2, 2, 1, 0)]


def test_no_expected_output_is_on_the_wire(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client sends holds programs and inputs and none of the answers, whole or in part."""
    sent: list[bytes] = []
    request = http.client.HTTPConnection.request

    def spy(self: Any, method: str, url: str, body: Any = None, headers: Any = None) -> None:
        sent.append(body or b"")
        request(self, method, url, body, headers or {})

    monkeypatch.setattr(http.client.HTTPConnection, "request", spy)
    secret = (StdinTest("1\n", "open sesame\n"), StdinTest("2\n", "swordfish\n"))
    jobs = [
        Job("print('x')", secret),
        Job("def f(n):\n    return 'x'", (CallTest((1,), "abracadabra"), CallTest((2,), ["shibboleth"])), "f"),
        Job("def f(n):\n    return 'x'", (AssertTest("assert f(1) == 'friend'"),), "f"),
        Job("print('x')", secret[:1], None, "def check(given, wanted, got): return got == 'mellon'"),
    ]
    with RemoteExecutor(client_of(service), CONFIG) as remote:
        assert [result.outcome for result in settled(remote.run(jobs))] == [Outcome.FAILED_TEST] * 4
    wire = b"".join(sent)
    assert b"print('x')" in wire
    for word in (b"sesame", b"swordfish", b"abracadabra", b"shibboleth", b"friend", b"mellon", b"check"):
        assert word not in wire


def test_nothing_is_kept_after_a_request(service: Service) -> None:
    """Answers are forgotten once they are sent, also where the client goes away in the middle."""
    with RemoteExecutor(client_of(service), CONFIG) as remote:
        results = remote.run(Job(f"print({n})", ADD_ONE) for n in range(40))
        next(results)
        results.close()  # type: ignore[attr-defined]
        assert len(settled(remote.run(JOBS[:2]))) == 2
    with RemoteExecutor(client_of(service), CONFIG) as remote:
        assert len(settled(remote.run(JOBS[:2]))) == 2
    assert all(value is None for value in service._runner._answers.values())


def test_a_wrong_token_gets_nothing(service: Service) -> None:
    """Without the token neither health nor a run is answered, and the client says so at once."""
    with pytest.raises(InputError, match="401"), RemoteExecutor(client_of(service, token="guess"), CONFIG):
        pass
    connection = http.client.HTTPConnection(*service._server.server_address[:2])  # type: ignore[arg-type]
    connection.request("POST", "/v1/run", b"{}")
    assert connection.getresponse().status == 401
    connection.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"nonsense", 400),
        (b"{}", 400),
        (b'{"programs": [{"code": "x"}], "max_answer_bytes": 1}', 400),
        (b'{"programs": [{"code": "x", "tests": []}], "max_answer_bytes": 1}', 400),
        (b'{"programs": [{"code": 3, "tests": [{"stdin": ""}]}], "max_answer_bytes": 1}', 400),
        (
            b'{"programs": [{"code": "x", "tests": [{"args": [{"t": "no"}]}], "fn_name": "f"}], "max_answer_bytes": 1}',
            400,
        ),
        (b'{"programs": [{"code": "x", "tests": [{"args": []}]}], "max_answer_bytes": 1}', 400),
        (b'{"programs": [], "max_answer_bytes": 1}', 200),
        (b'{"programs": [], "max_answer_bytes": 1e999}', 400),
        (b'{"programs": [], "max_answer_bytes": NaN}', 400),
        (b'{"programs": [], "max_answer_bytes": true}', 400),
        (b'{"programs": [], "max_answer_bytes": -1}', 400),
        (b'{"programs": [], "max_answer_bytes": ' + b"9" * 5000 + b"}", 400),
        (b'{"programs": {}, "max_answer_bytes": 1}', 400),
        (b'{"programs": [3], "max_answer_bytes": 1}', 400),
        (b"[" * 100_000, 400),
        (b"[]", 400),
        (b"", 400),
        (b"\xff", 400),
        *(
            (b'{"programs": [{"code": "x", "fn_name": "f", "tests": [%s]}], "max_answer_bytes": 1}' % test, 400)
            for test in (
                b'{"args": [{"t": "Decimal", "v": "abc"}]}',
                b'{"args": [1]}, {"args": 3}',
                b'{"args": [{"t": "Opaque", "v": []}]}',
                b'{"args": [{"v": 1}]}',
                b'{"stdin": ["1"]}',
                b'{"stdin": "\\ud800"}',
                b'{"other": 1}',
                b'"stdin"',
                b"null",
            )
        ),
        (b'{"programs": [{"code": "x", "tests": {"stdin": ""}}], "max_answer_bytes": 1}', 400),
        (b'{"programs": [{"code": "\\ud800", "tests": [{"stdin": ""}]}], "max_answer_bytes": 1}', 400),
    ],
)
def test_malformed_requests_are_refused(service: Service, body: bytes, status: int) -> None:
    """A request that is not as the interface says is 400, and the service goes on."""
    connection = http.client.HTTPConnection(*service._server.server_address[:2])  # type: ignore[arg-type]
    connection.request("POST", "/v1/run", body, {"Authorization": f"Bearer {service.token}"})
    assert connection.getresponse().status == status
    connection.close()


def test_long_answers_do_not_travel(service: Service) -> None:
    """An answer far longer than any expected one is a wrong answer, and its bytes stay on the service."""
    with RemoteExecutor(client_of(service), CONFIG) as remote:
        (result,) = settled(remote.run([Job("print('x' * (3 << 20))", (StdinTest("", "x"),))]))
    assert result.outcome is Outcome.FAILED_TEST


def test_another_policy_is_refused(service: Service) -> None:
    """A client that asks for other limits or for more isolation than there is does not run at all."""
    limits = CONFIG.model_copy(update={"cpu_limit_s": 2.0})
    with pytest.raises(InputError, match="cpu_limit_s"), RemoteExecutor(client_of(service), limits):
        pass
    with (
        pytest.raises(InputError, match="no execution service"),
        RemoteExecutor(client_of(service, url="http://127.0.0.1:9"), CONFIG),
    ):
        pass
    with pytest.raises(InputError, match="no URL"), RemoteExecutor(client_of(service, url="ftp:x"), CONFIG):
        pass


def test_a_service_that_goes_away_gives_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the service ends midway, jobs without a verdict are faults, in order, never outcomes."""
    service = Service(CONFIG).__enter__()
    try:
        with RemoteExecutor(client_of(service, retry_s=0.2, num_requests=1), CONFIG) as remote:
            results = remote.run(Job(f"print(int(input()) + 987654321) # {n}", ADD_ONE) for n in range(40))
            got = [next(results)]
            service.__exit__(None, None, None)
            got += results
    finally:
        monkeypatch.undo()
    assert len(got) == 40
    assert got[-1].fault is not None
    assert all(r.outcome is Outcome.PASSED_TEST for r in got if r.fault is None)


@pytest.mark.parametrize(
    "reply",
    [
        {"fault": "broken"},
        {"test_outcomes": [None], "answers": [None], "cpu_s": 0, "wall_s": 0, "isolation": "x"}
        | {"error_subtype": None, "message": "", "error_line": None},
        {"test_outcomes": [], "answers": []},
        {},
    ],
)
def test_odd_replies_are_faults(service: Service, monkeypatch: pytest.MonkeyPatch, reply: dict[str, Any]) -> None:
    """A fault, a reply about no test and a malformed one end as a fault after a second try."""
    asked = []

    def ask(self: Any, waiting: list[Any]) -> list[dict[str, Any]]:
        asked.append(len(waiting))
        return [json.loads(json.dumps(reply))] * len(waiting)

    monkeypatch.setattr(RemoteExecutor, "_ask", ask)
    with RemoteExecutor(client_of(service), CONFIG) as remote:
        (result,) = remote.run([Job("x", ADD_ONE[:1])])
    assert result.fault is not None
    assert asked == [1, 1]


def test_the_command_prints_where_it_listens_and_ends_on_an_interrupt() -> None:
    """`main_serve` shows address, level and a token of its own, answers with it, and ends cleanly on SIGINT.

    The handler is set here, as a shell's background job (and all it starts) ignores the signal.
    """
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from coderl.execution.remote.serve import main_serve; raise SystemExit(main_serve(port=0))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, _, level = process.stdout.readline().partition("  ")
        token = process.stdout.readline().split()[1]
        assert "isolation" in level
        with RemoteExecutor(ClientConfig(url=url, token=token)) as remote:
            (result,) = remote.run([JOBS[0]])
        assert result.fault is None
        assert result.outcome is Outcome.PASSED_TEST
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
