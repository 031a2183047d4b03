"""Verdicts that nobody can argue with: by kinds of programs that a grader may get wrong."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coderl.execution import ExecutionConfig, Executor, Job, clock
from coderl.execution.audit.cases import load_battery
from coderl.execution.audit.graders import verdict_of
from coderl.execution.gate import Gate
from coderl.execution.sandbox.process import ZygoteProcess
from coderl.types import AssertTest, CallTest, Outcome, SandboxError, StdinTest, UnitTest, Verdict

CE, RE, FAIL, PASS = Outcome


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(ExecutionConfig(num_workers=2)) as entered:
        yield entered


def judged(executor: Executor, code: str, *tests: UnitTest, fn_name: str | None = None) -> Verdict:
    (verdict,) = executor.run([Job(code, tests, fn_name)])
    return verdict


def script(executor: Executor, code: str, given: str = "", printed: str = "1\n") -> Verdict:
    return judged(executor, code, StdinTest(given, printed))


# ------------------------------------------------------------------------------------------------ one try at each test

ANSWERS = (False, True, True, False, False, True, False, True)
STDIN = tuple(StdinTest(f"{n}\n", "YES" if answer else "NO") for n, answer in enumerate(ANSWERS))
CALLS = tuple(CallTest((n,), answer) for n, answer in enumerate(ANSWERS))
ASSERTS = tuple(AssertTest(f"assert f({n}) == {answer}") for n, answer in enumerate(ANSWERS))
JUDGED = tuple(AssertTest(f"got = f({n})\nassert got == {answer}") for n, answer in enumerate(ANSWERS))


@pytest.mark.parametrize("stop", ["first_failure", "never"])
@pytest.mark.parametrize(
    ("code", "tests"),
    [
        ("import sys\ninput()\nprint('YES' if hasattr(sys, 'seen') else 'NO')\nsys.seen = 1", STDIN),
        ("def f(n, seen=[]):\n    seen.append(n)\n    return len(seen) > 1", CALLS),
        ("def f(n, seen=[]):\n    seen.append(n)\n    return len(seen) > 1", ASSERTS),
        ("def f(n, seen=[]):\n    seen.append(n)\n    return len(seen) > 1", JUDGED),
        (
            "class Solution:\n    n = 0\n    def f(self, x):\n        Solution.n += 1\n        return Solution.n > 1",
            CALLS,
        ),
    ],
)
def test_an_answer_by_which_try_it_is_never_passes(code: str, tests: tuple[UnitTest, ...], stop: Any) -> None:
    with Executor(ExecutionConfig(num_workers=1, stop=stop)) as executor:
        verdict = judged(executor, code, *tests, fn_name="f")
    assert verdict.outcome is FAIL


def test_a_coin_passes_six_tests_once_in_sixty_four(executor: Executor) -> None:
    """Of 192 tries 3 pass on one guess a test; on two guesses it would be one in eight."""
    code = "import os\ndef f(n): return os.urandom(1)[0] % 2 == 0  # "
    verdicts = list(executor.run(Job(f"{code}{n}", CALLS[:6], "f") for n in range(192)))
    assert sum(verdict.outcome is PASS for verdict in verdicts) <= 10


@pytest.mark.parametrize("tests", [CALLS, ASSERTS, JUDGED])
def test_a_program_that_trips_over_its_own_state_is_judged_by_its_tests_alone(
    executor: Executor, tests: tuple[UnitTest, ...]
) -> None:
    code = f"runs = []\ndef f(n):\n    runs.append(n)\n    return {ANSWERS}[n] if len(runs) == 1 else None"
    assert judged(executor, code, *tests, fn_name="f").outcome is PASS


def num_children(monkeypatch: pytest.MonkeyPatch, job: Job, stop: Any) -> tuple[int, Verdict]:
    count = 0
    original = ZygoteProcess.fork

    def fork(self: ZygoteProcess, slot: int) -> int:
        nonlocal count
        count += 1
        return original(self, slot)

    with Executor(ExecutionConfig(num_workers=1, stop=stop)) as executor:
        monkeypatch.setattr(ZygoteProcess, "fork", fork)
        (verdict,) = executor.run([job])
    return count, verdict


def test_what_passes_costs_one_child_and_what_never_passes_few(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = tuple(CallTest((n,), n) for n in range(100))
    count, verdict = num_children(monkeypatch, Job("def f(n): return n", tests, "f"), "first_failure")
    assert (count, verdict.outcome) == (1, PASS)
    count, verdict = num_children(monkeypatch, Job("def f(n): return -1", tests, "f"), "never")
    assert verdict.test_outcomes == (FAIL,) * 100
    assert count == 4, "all together, and three of those that failed again"
    count, verdict = num_children(monkeypatch, Job("def f(n): return n if n != 7 else 1 // 0", tests, "f"), "never")
    assert verdict.test_outcomes == (*[PASS] * 7, RE, *[PASS] * 92)
    assert count == 2
    scripts = tuple(StdinTest(f"{n}\n", f"{n}\n") for n in range(20))
    count, verdict = num_children(monkeypatch, Job("n = int(input())\nprint(n)\n1 // (n - 3)", scripts), "never")
    assert verdict.test_outcomes == (*[PASS] * 3, RE, *[PASS] * 16)
    assert count == 2


# ----------------------------------------------------------------------------------------------------- forged messages

FORGE = """
import os, stat
def files():
    for fd in range(3, 4096):
        try:
            yield fd, os.fstat(fd).st_mode
        except OSError:
            pass
def forge(raw, as_file=False):
    sockets = [fd for fd, mode in files() if stat.S_ISSOCK(mode)]
    if as_file:
        for fd, mode in files():
            if stat.S_ISREG(mode):
                os.ftruncate(fd, 0)
                at = 0
                while at < len(raw):
                    at += os.pwrite(fd, raw[at:at + (1 << 20)], at)
        raw = b'{"file":%d}' % len(raw)
    for fd in sockets:
        os.write(fd, raw)
"""


@pytest.mark.parametrize(
    "raw",
    [
        '{"file":-5}',
        '{"file":1e9}',
        '{"file":true}',
        '{"file":99999999999999999999}',
        '{"fatal":"x"}',
        '{"fatal":"load"}',
        '{"fatal":["compile"],"error":{"type":"a","message":"b","line":1}}',
        '{"fatal":"load","error":{"type":1,"message":"b","line":1}}',
        '{"test":0,"error":7}',
        '{"test":0,"error":{"type":"x","message":null,"line":1}}',
        '{"test":0,"error":{"type":"x","message":"","line":1e999}}',
        '{"test":0,"error":{"type":"x","message":"","line":' + "9" * 400 + "}}",
        '{"test":0,"value":3,"cpu":NaN}',
        '{"test":0,"value":3,"cpu":-1.5}',
        '{"test":0,"value":3,"cpu":"1"}',
        '{"test":0,"cpu":Infinity}',
        '{"test":0}',
        '{"test":[0],"value":3}',
        '{"test":0,"value":{"t":"Decimal","v":"x"}}',
        '{"test":0,"value":{"t":"argument","v":0}}',
        '{"test":0,"value":{"t":"type","v":["os","system"]}}',
        '{"hello":1}',
        '{"verdict":"passed","error":null}',
        '{"answer":1,"error":null,"value":1}',
        "[]",
        "nonsense",
        '{"test":0,"value":3,"values":3}',
        '{"fault":"no"}',
    ],
)
@pytest.mark.parametrize(
    "test", [CallTest((3,), 9), AssertTest("assert f(3) == 9"), AssertTest("x = f(3)\nassert x == 9")]
)
def test_a_forged_message_is_the_programs_fault_and_not_the_sandboxs(
    executor: Executor, raw: str, test: UnitTest
) -> None:
    code = FORGE + f"def f(n):\n    forge({raw.encode()!r})\n    return n * n + 1"
    verdict = judged(executor, code, test, fn_name="f")
    assert verdict.fault is None
    assert verdict.outcome in (RE, FAIL)
    json.dumps([verdict.message, verdict.error_subtype]).encode().decode()
    assert executor.num_faults == 0


@pytest.mark.parametrize(
    "value",
    [
        {"t": "set", "v": [n * ((1 << 61) - 1) for n in range(60_000)]},
        {"t": "Fraction", "v": ["0x" + "f" * 4_000_000, "0x" + "e" * 4_000_000]},
        [[]] * 10_000_000,
        "[" * 1_000_000,
        [1e-320] * 4_000_000,
    ],
    ids=["collisions", "fraction", "lists", "depth", "floats"],
)
def test_a_forged_value_does_not_keep_the_judge_busy(executor: Executor, value: Any) -> None:
    """In processor time of this process, which only waits, reads and compares."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    code = (
        FORGE
        + _compressed('{"test":0,"error":null,"value":' + text + "}")
        + "def f(n):\n    forge(raw, True)\n    import time\n    time.sleep(0.5)\n"
    )
    before = time.process_time()
    verdict = judged(executor, code, CallTest((3,), [3]), fn_name="f")
    assert verdict.outcome in (RE, FAIL)
    assert time.process_time() - before < 1.5


def _compressed(text: str) -> str:
    import base64
    import zlib

    packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    return f"import zlib, base64\nraw = zlib.decompress(base64.b64decode({packed!r}))\n"


@pytest.mark.parametrize("body", ["return n", "while True: pass"])
def test_a_program_that_takes_every_thread_does_not_choose_a_fault(body: str) -> None:
    """The child that runs the test's code, or that times the machine, is forked while all its threads are there."""
    code = (
        "import threading\nstop = threading.Event()\nthreading.stack_size(32768)\ntry:\n"
        "    while True: threading.Thread(target=stop.wait, daemon=True).start()\n"
        f"except RuntimeError: pass\ndef f(n):\n    {body}"
    )
    with Executor(ExecutionConfig(num_workers=1, cpu_limit_s=0.5)) as executor:
        verdict = judged(executor, code, AssertTest("x = f(3)\nassert x == 9"), fn_name="f")
        assert verdict.outcome in (RE, FAIL), verdict
        assert executor.num_faults == 0


# ------------------------------------------------------------------------------------------------- as the interpreter


@pytest.mark.parametrize(
    "code",
    [
        "import codecs, sys\nsys.stdout = codecs.getwriter('utf-8')(sys.stdout.detach())\nprint(1)",
        "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, line_buffering=False)\nsys.stdout.write('1')",
        "import sys\nclass W:\n    def __init__(s, f): s.f, s.b = f, []\n    def write(s, t): s.b.append(t)\n"
        "    def flush(s): s.f.write(''.join(s.b)); s.f.flush(); s.b = []\nsys.stdout = W(sys.stdout)\nprint(1)",
        "class A:\n    def __del__(self): raise ValueError\na = A()\nprint(1)",
        "import sys\nclass A:\n    def __del__(self): print(sys.argv and 1)\na = A()",
        "f = open(1, 'w', closefd=False)\nf.write('1')\nf.me = lambda: f",
        "f = open(1, 'w', closefd=False)\nf.write('1')\ndef g(): pass",
        "import sys\nsys.stdout.close()",
        "import sys, os\nos.write(1, b'1')\nsys.stdout = None",
        "\ufeffprint(1)",
        "open('/dev/stdout', 'w').write('1')",
        "print(1, flush=True)\nopen('/dev/stdout', 'w').close()",
        "open('/dev/stderr', 'w').write('x')\nprint(1)",
        "print(1)\nprint(len(open('/dev/stdin').read()), end='', file=open('/dev/stderr', 'w'))",
        "import tempfile\nwith tempfile.TemporaryFile('w+') as f:\n    print(f.write('1'))",
        "import tempfile, os\nwith tempfile.TemporaryDirectory() as d: os.mkdir(d + '/a')\nprint(1)",
        "print(len(open(__file__).readlines()))",
        "print(len(str(10 ** 5000)) - 5000)",
        "print(int('9' * 5000) % 2)",
        "def d(n): return 0 if n == 0 else 1 + d(n - 1)\nprint(d(998) - 997)",
        "import sys\nprint(sys.getrecursionlimit() // 1000)",
        "import atexit\natexit.register(print, 1)\natexit.register(lambda: 1 // 0)",
        "import threading\nthreading.Timer(0.01, print, [1]).start()",
    ],
)
def test_a_script_ends_and_reads_as_one(executor: Executor, code: str) -> None:
    wanted = "" if "stdout.close" in code else "1"
    assert script(executor, code, "x\n", wanted).outcome is PASS


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nprint(1)\nsys.stdout.flush = lambda: 1 // 0",
        "def d(n): return d(n + 1)\nd(0)",
        "print(1)\nraise SystemExit(3)",
    ],
)
def test_a_script_that_ends_badly_does_so_here(executor: Executor, code: str) -> None:
    assert script(executor, code).outcome is RE


def test_nothing_of_one_program_is_left_for_the_next() -> None:
    with Executor(ExecutionConfig(num_workers=1)) as single:
        leave = (
            "import os\nd = os.environ['TMPDIR']\nos.makedirs(d + '/a/b')\nopen(d + '/a/x', 'w').write('1')\nprint(1)"
        )
        look = "import os\nprint(1 + len(os.listdir(os.environ['TMPDIR'])))"
        assert [v.outcome for v in single.run([Job(code, (StdinTest("", "1"),)) for code in (leave, look)])] == [
            PASS
        ] * 2


@pytest.mark.parametrize(
    "code",
    [
        "class Solution:\n    def __init__(self, k): self.k = k\n    def f(self, x): return x",
        "import builtins\nbuiltins.ONE = 1\ndef f(x): return x * ONE",
        "def f(x): return List and gcd(x, 0)",
        "def gcd(a, b): return 5\ndef f(x): return x if gcd(1, 1) == 5 else 0",
    ],
)
def test_call_programs_find_what_their_judges_gave_them(executor: Executor, code: str) -> None:
    assert judged(executor, code, CallTest((3,), 3), CallTest((4,), 4), fn_name="f").outcome is PASS


def test_a_name_of_the_prelude_is_not_the_programs_function(executor: Executor) -> None:
    assert judged(executor, "x = 1", CallTest((4, 2), 2), fn_name="gcd").outcome is CE
    code = "class Solution:\n    def __init__(self): self.k = None + 1\n    def f(self, x): return x"
    verdict = judged(executor, code, CallTest((4,), 4), fn_name="f")
    assert (verdict.outcome, verdict.error_subtype) == (RE, "typeerror")


# ------------------------------------------------------------------------------------------------------ values returned


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import numpy as np\ndef f(): return np.array([[1, 2], [3, 4]])", [[1, 2], [3, 4]]),
        ("import numpy as np\ndef f(): return [np.int64(1), np.float32(0.5), np.bool_(True)]", [1, 0.5, True]),
        ("import numpy as np\ndef f(): return round(np.float64(2.625), 1)", 2.6),
        ("from enum import *\nclass E(IntEnum):\n    A = 4\ndef f(): return E.A", 4),
        ("from enum import *\nclass E(StrEnum):\n    A = 'a'\ndef f(): return [E.A]", ["a"]),
        ("from http import HTTPStatus\ndef f(): return HTTPStatus.OK", 200),
        (
            "class D(dict):\n    def __missing__(s, k): return 0\ndef f():\n    d = D()\n    d['a'] += 1\n    return d",
            {"a": 1},
        ),
        ("def f(): return {1.5: 1, None: 2, True: 3, 'x': 4, 7: 5}", {"1.5": 1, "null": 2, "true": 3, "x": 4, "7": 5}),
        ("from collections import *\nP = namedtuple('P', 'x y')\ndef f(): return [P(1, 2)]", [[1, 2]]),
    ],
)
def test_a_value_that_equals_the_expected_one_is_right(executor: Executor, code: str, expected: Any) -> None:
    assert judged(executor, code, CallTest((), expected), fn_name="f").outcome is PASS


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("class A(int):\n    def __eq__(s, o): return True\ndef f(): return A(1)", 2),
        ("class A(list):\n    def __eq__(s, o): return True\ndef f(): return A([1])", [2]),
        ("class A:\n    def __eq__(s, o): return True\ndef f(): return A()", 2),
        ("def f(): return True", 1),
        ("def f(): return float('nan')", float("nan")),
        ("def f(): return {1: 2, '1': 3}", {"1": 3}),
        ("def f(): return [0] * 100_000", [0]),
        ("def f():\n    x = []\n    x.append(x)\n    return x", []),
    ],
)
def test_a_value_that_does_not_is_wrong(executor: Executor, code: str, expected: Any) -> None:
    assert judged(executor, code, CallTest((), expected), fn_name="f").outcome is FAIL


# ---------------------------------------------------------------------- assertions on what belongs to the program

PROGRAM = """
class T:
    def __init__(self, v=0): self.v = v
    def get(self): return self.v
    def __len__(self): return 3
    def __iter__(self): return iter([1, 2])
    def __getitem__(self, i): return i * 2
    def __add__(self, other): return T(self.v + other.v)
    def __lt__(self, other): return self.v < other.v
    def __eq__(self, other): return isinstance(other, T) and self.v == other.v
    def __hash__(self): return 1
    def __enter__(self): return self
    def __exit__(self, *_): return False
    def __str__(self): return f"T{self.v}"
class U(T): pass
class MyError(ValueError):
    def __init__(self, text, code=7):
        super().__init__(text)
        self.code = code
def f(x): return T(x)
def sort(x): x.sort()
def same(x):
    x.append(1)
    return x
def deep(x): x[0][0] = 9
def gen(n): yield from range(n)
def endless():
    n = 0
    while True:
        yield n
        n += 1
def bad(): raise MyError("no")
def zero(): return 1 / 0
def arr():
    import numpy as np
    return np.array([1.0, 2.0])
def views(): return {"b": 1, "a": 2}
def counter():
    n = [0]
    def count():
        n[0] += 1
        return n[0]
    return count
def day():
    import datetime
    return datetime.date(2020, 1, 1)
async def later(): return 5
def apply(h, x): return h(x)
class Always:
    def __eq__(self, other): return True
    def __contains__(self, other): return True
def always(): return Always()
"""


@pytest.mark.parametrize(
    ("wanted", "test"),
    [
        (PASS, "t = f(1)\nassert t.v == 1"),
        (FAIL, "t = f(1)\nassert t.v == 2"),
        (PASS, "assert isinstance(f(1), T) and not isinstance(f(1), U) and not isinstance(5, T)"),
        (FAIL, "assert isinstance(f(1), U)"),
        (PASS, "assert type(f(1)) is T and f(1).__class__.__name__ == 'T' and issubclass(U, T)"),
        (PASS, "assert T(1).get() == 1 and vars(T(3)) == {'v': 3}"),
        (FAIL, "assert T(1).get() == 3"),
        (PASS, "try:\n    bad()\nexcept MyError as e:\n    assert str(e) == 'no' and e.code == 7\nelse:\n    assert 0"),
        (PASS, "try:\n    bad()\nexcept ValueError:\n    pass\nelse:\n    assert 0"),
        (RE, "try:\n    zero()\nexcept MyError:\n    pass"),
        (PASS, "try:\n    zero()\nexcept ZeroDivisionError as e:\n    assert str(e) == 'division by zero'"),
        (PASS, "a = [3, 1]\nsort(a)\nassert a == [1, 3]"),
        (FAIL, "a = [3, 1]\nsort(a)\nassert a == [3, 1]"),
        (PASS, "a = []\nb = same(a)\nassert b is a and a == [1]"),
        (PASS, "row = [1]\ndeep([row, [2]])\nassert row == [9]"),
        (PASS, "assert list(gen(3)) == [0, 1, 2] and max(gen(5)) == 4"),
        (PASS, "g = gen(3)\nassert next(g) == 0 and next(g) == 1\nassert list(g) == [2]"),
        (PASS, "import itertools\nassert list(itertools.islice(endless(), 3)) == [0, 1, 2]"),
        (PASS, "import numpy as np\nassert np.allclose(arr(), [1, 2]) and arr().shape == (2,)"),
        (FAIL, "import numpy as np\nassert np.allclose(arr(), [1, 3])"),
        (FAIL, "assert arr() == [1, 2]"),
        (PASS, "assert sorted(views()) == ['a', 'b'] and sorted(views().values()) == [1, 2]"),
        (PASS, "assert len(f(1)) == 3 and list(f(1)) == [1, 2] and f(1)[4] == 8 and 2 in f(1)"),
        (PASS, "assert (f(1) + T(2)).v == 3 and str(f(5)) == 'T5'"),
        (PASS, "with f(4) as t:\n    assert t.get() == 4"),
        (PASS, "t = f(1)\nt.v = 8\nassert t.v == 8"),
        (PASS, "count = counter()\nassert count() == 1 and count() == 2"),
        (PASS, "import datetime\nassert day() == datetime.date(2020, 1, 1)"),
        (FAIL, "assert f(1) == 1"),
        (FAIL, "assert always() == 1"),
        (FAIL, "assert f(1) == T(2)"),
        (None, "assert f(1) == T(1)"),
        (None, "assert f(1) < f(2)"),
        (FAIL, "assert not f(1) < f(2)"),
        (None, "import asyncio\nassert asyncio.run(later()) == 5"),
        (None, "got = apply(lambda x: x + 1, 1)\nassert got == 2"),
        (None, "class S(T): pass\nassert S(1).get() == 1"),
    ],
)
def test_an_assertion_means_what_python_means_by_it(executor: Executor, wanted: Outcome | None, test: str) -> None:
    """Without believing the program; what only its own word could decide is a fault that says why."""
    verdict = judged(executor, PROGRAM, AssertTest(test), fn_name="f")
    assert verdict.outcome is wanted, verdict
    if wanted is None:
        assert verdict.fault is not None
        assert "trusting" in verdict.fault


@pytest.mark.parametrize(
    ("wanted", "test"),
    [
        (PASS, "assert f(1) == T(1)"),
        (FAIL, "assert f(1) == T(2)"),
        (PASS, "import asyncio\nassert asyncio.run(later()) == 5"),
        (PASS, "assert apply(lambda x: x + 1, 1) == 2"),
        (RE, "bad()"),
        (PASS, "assert always() == 1"),
    ],
)
def test_trusting_believes_the_program(wanted: Outcome, test: str) -> None:
    with Executor(ExecutionConfig(num_workers=1, assertions="trusting")) as executor:
        assert judged(executor, PROGRAM, AssertTest(test), fn_name="f").outcome is wanted


def test_a_test_that_cannot_be_judged_leaves_the_failure_of_another(executor: Executor) -> None:
    unknown, wrong = AssertTest("assert f(1) == T(1)"), AssertTest("assert f(1).v == 2")
    assert judged(executor, PROGRAM, unknown, wrong, fn_name="f").outcome is FAIL
    verdict = judged(executor, PROGRAM, AssertTest("assert f(1).v == 1"), unknown, fn_name="f")
    assert (verdict.outcome, verdict.test_outcomes) == (None, ())
    assert "says of its objects" in str(verdict.fault)


# ---------------------------------------------------------------------------------------------------- the machine

SPIN = "import time\nwhile time.process_time() < {}: pass\nprint(1)"


def test_a_limit_is_in_seconds_of_a_quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.6 s are too much at a limit of 0.4, but not where the machine takes twice as long for everything just now."""
    config = ExecutionConfig(num_workers=1, cpu_limit_s=0.4)
    for slowness, outcome in ((1.0, RE), (2.0, PASS)):
        monkeypatch.setattr(clock, "slowness", lambda *_args, slowness=slowness: slowness)
        monkeypatch.setattr("coderl.execution.sandbox.contact._BUSY_SLOWNESS", 1.0)
        with Executor(config) as executor:
            assert script(executor, SPIN.format(0.6)).outcome is outcome
            endless = script(executor, "while True: pass")
            assert (endless.outcome, endless.error_subtype) == (RE, "timeout")


def test_the_speed_of_the_machine_is_measured_beside_a_program() -> None:
    with Executor(ExecutionConfig(num_workers=1, cpu_limit_s=0.2)) as executor:
        verdict = script(executor, "while True: pass")
        assert verdict.error_subtype == "timeout"
        assert script(executor, "print(1)").outcome is PASS
        assert executor.num_faults == 0


def test_a_sleeping_program_gives_its_place_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker, and five programs that sleep: more than one of them is under way at a time."""
    inside: list[int] = [0]

    class Counting(Gate):
        @contextlib.contextmanager
        def shared(self) -> Iterator[Any]:
            with super().shared() as leave:
                inside.append(inside[-1] + 1)
                yield leave
            inside.append(inside[-1] - 1)

    monkeypatch.setattr("coderl.execution.pool.Gate", Counting)
    code = "import time\ntime.sleep(1.5)\nprint(1)  # "
    with Executor(ExecutionConfig(num_workers=1)) as executor:
        verdicts = list(executor.run(Job(f"{code}{n}", (StdinTest("", "1"),)) for n in range(5)))
    assert [v.outcome for v in verdicts] == [PASS] * 5
    assert max(inside) > 1


def test_who_runs_alone_waits_for_those_that_compute_and_not_for_sleepers() -> None:
    gate = Gate(1)
    with gate.shared() as leave:
        leave()
        with gate.shared() as leave_too:
            leave_too()
            with gate.alone():
                pass


def test_an_executor_in_a_forked_process_says_so_at_once() -> None:
    with Executor(ExecutionConfig(num_workers=1)) as executor:
        pid = os.fork()
        if pid == 0:
            try:
                list(executor.run([Job("print(1)", (StdinTest("", "1"),))]))
            except SandboxError:
                os._exit(7)
            finally:
                os._exit(8)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert script(executor, "print(1)").outcome is PASS


@pytest.mark.parametrize(("limit", "text"), [(256, "PASSED_TEST"), (48, "`ulimit -n` is 48")])
def test_few_open_files_are_enough_or_are_named(limit: int, text: str) -> None:
    code = (
        f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))\n"
        "from coderl.execution import run\nfrom coderl.types import *\n"
        "try: print(run(['print(1)'], [StdinTest('', '1')], num_workers=2)[0].outcome.name)\n"
        "except SandboxError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert text in done.stdout


@pytest.mark.parametrize(
    ("test", "text"),
    [
        (StdinTest("ab\ud800", "1"), "character 3 of standard input"),
        (AssertTest("assert f(1) == " + "-" * 100_000 + "1"), "not Python"),
        (AssertTest("assert f("), "not Python"),
    ],
)
def test_a_record_that_cannot_be_run_is_a_fault_that_names_it(executor: Executor, test: UnitTest, text: str) -> None:
    good = Job("print(1)", (StdinTest("", "1"),))
    bad = Job("print(1)", (StdinTest("", "1"), test) if isinstance(test, StdinTest) else (AssertTest("1"), test), "f")
    first, refused, last = executor.run([good, bad, good])
    assert (first.outcome, last.outcome) == (PASS, PASS)
    assert refused.outcome is None
    assert "test 2 of 2" in str(refused.fault)
    assert text in str(refused.fault)


# ---------------------------------------------------------------------------------------------------- given cases


def test_the_given_cases_are_judged_right(executor: Executor, shared_data: Path) -> None:
    kinds = {"StdinTest": StdinTest, "CallTest": CallTest, "AssertTest": AssertTest}
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)  # one case has an argument of 5,001 digits
    try:
        rows = [json.loads(line) for line in (shared_data / "cases/verdicts.jsonl").read_text().splitlines()]
    finally:
        sys.set_int_max_str_digits(before)
    for row in rows:
        tests = []
        for test in row["tests"]:
            kind = kinds[test.pop("kind")]
            tests.append(kind(**{key: tuple(v) if key == "args" else v for key, v in test.items()}))
        verdict = judged(executor, row["code"], *tests, fn_name=row["fn_name"])
        assert verdict.outcome is Outcome[row["want"]], (row["name"], verdict)


def test_the_second_adversarial_battery_is_judged_right(shared_data: Path) -> None:
    config = ExecutionConfig(num_workers=2, cpu_limit_s=2.0, wall_limit_s=8.0)
    cases = load_battery(shared_data / "adversarial_2")
    with Executor(config) as executor:
        verdicts = executor.run(Job(case.code, case.tests, case.fn_name) for case in cases)
        for case, verdict in zip(cases, verdicts, strict=True):
            assert verdict_of(verdict) in case.accept, (case.name, verdict)
