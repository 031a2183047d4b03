"""Verdicts: each kind of ending, each kind of test."""

from collections.abc import Iterator
from typing import Any

import pytest

from coderl.execution import ExecutionConfig, Executor, Job
from coderl.types import (
    AssertTest,
    CallTest,
    Outcome,
    StdinTest,
    UnitTest,
    Verdict,
)

CE, RE, FT, PASS = Outcome.COMPILE_ERROR, Outcome.RUNTIME_ERROR, Outcome.FAILED_TEST, Outcome.PASSED_TEST
SQUARES = (StdinTest("3\n", "9\n"), StdinTest("-4\n", "16\n"), StdinTest("0\n", "0\n"))


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    config = ExecutionConfig(
        num_workers=1, cpu_limit_s=0.5, wall_limit_s=3, output_limit_bytes=1 << 20, memory_limit_bytes=128 << 20
    )
    with Executor(config) as entered:
        yield entered


def judge(executor: Executor, code: str, tests: tuple[UnitTest, ...], **more: Any) -> Verdict:
    (result,) = executor.run([Job(code, tests, **more)])
    assert result.fault is None, result
    return result


@pytest.mark.parametrize(
    "code",
    [
        "n = int(input())\nprint(n * n)",
        "import sys\nn = int(sys.stdin.buffer.readline())\nsys.stdout.buffer.write(b'%d' % (n * n))",
        "n = int(open(0).read())\nprint(n * n)",
        "n = int(open('/dev/stdin').read())\nprint(n * n)",
        "import os\nn = int(os.read(0, 99))\nos.write(1, b'%d' % (n * n))\nos._exit(0)",
        "n = int(input())\nprint(n * n)\nexit()",
        "n = int(input())\nprint(n * n)\nraise SystemExit",
        "import atexit\nn = int(input())\natexit.register(print, n * n)",
        "import threading, time\nn = int(input())\nthreading.Timer(0.02, print, [n * n]).start()",
        "n = int(input())\nf = open(1, 'w')\nf.write(str(n * n))",
        "def main():\n    global n\n    n = int(input())\n    print(n * n)\nif __name__ == '__main__':\n    main()",
        "import sys, io\nout = io.StringIO()\nsys.stdout, real = out, sys.stdout\nn = int(input())\nprint(n * n)\n"
        "real.write(out.getvalue())",
        "from concurrent.futures import ThreadPoolExecutor\nn = int(input())\n"
        "print(ThreadPoolExecutor(2).submit(lambda: n * n).result())",
        "import asyncio\nasync def main():\n    n = int(input())\n    await asyncio.sleep(0)\n    print(n * n)\n"
        "asyncio.run(main())",
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(k):\n    return 0 if k == 0 else 1 + f(k - 1)\n"
        "n = int(input())\n"
        "print(n * n + f(50000) - 50000)",
        "import sys, threading\nthreading.stack_size(1 << 27)\nn = int(input())\n"
        "t = threading.Thread(target=lambda: print(n * n))\nt.start()\nt.join()",
        "import signal, os\nsignal.signal(signal.SIGUSR1, lambda *_: None)\nos.kill(os.getpid(), signal.SIGUSR1)\n"
        "n = int(input())\nprint(n * n)",
        "import pickle, dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int\nn = int(input())\n"
        "print(pickle.loads(pickle.dumps(A(n * n))).x)",
    ],
)
def test_ordinary_programs_pass(code: str, executor: Executor) -> None:
    result = judge(executor, code, SQUARES)
    assert (result.outcome, result.test_outcomes) == (PASS, (PASS, PASS, PASS)), result


@pytest.mark.parametrize(
    ("code", "outcome", "subtype", "line"),
    [
        ("x = 1\nprint(", CE, "syntaxerror", 2),
        ("if x:\nprint(1)", CE, "indentationerror", 2),
        ("a = 'b\0'", CE, "syntaxerror", None),
        ("x = (" * 500, CE, "syntaxerror", None),
        ("x = 1\nx = y", RE, "nameerror", 2),
        ("def f():\n    return [][0]\n\nf()", RE, "indexerror", 2),
        ("class MyError(Exception):\n    pass\nraise MyError('it')", RE, "myerror", 3),
        ("exec('(')", RE, "syntaxerror", 1),
        ("import sys\nsys.exit(3)", RE, "exit", None),
        ("import sys\nsys.exit('no')", RE, "exit", None),
        ("import os\nos._exit(3)", RE, "exit", None),
        ("print(int(input()) ** 2, flush=True)\nraise ValueError", RE, "valueerror", 2),
        ("import ctypes\nctypes.string_at(0)", RE, "killed", None),
        ("import os\nos.abort()", RE, "killed", None),
        ("while True: pass", RE, "timeout", None),
        ("while True:\n    try:\n        while True: pass\n    except BaseException: pass", RE, "timeout", None),
        ("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", RE, "timeout", None),
        ("x = bytearray(1 << 40)", RE, "memory_limit", 1),
        ("while True: print('x' * 100000)", RE, "output_limit", None),
        ("import os\nos.fork()", RE, "permissionerror", 2),
        ("import subprocess\nsubprocess.run(['true'])", RE, "permissionerror", 2),
        ("open('x', 'w')", RE, None, 1),
        ("import socket\nsocket.socket()", RE, "permissionerror", 2),
        ("", FT, None, None),
        ("import os\nos._exit(0)", FT, None, None),
        ("print('PASSED')", FT, None, None),
        ("import os\nos.close(1)", FT, None, None),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(100,)).start()\n1 / 0",
            RE,
            "zerodivisionerror",
            3,
        ),
    ],
)
def test_each_ending_has_its_name(
    code: str, outcome: Outcome, subtype: str | None, line: int | None, executor: Executor
) -> None:
    result = judge(executor, code, SQUARES)
    assert result.outcome is outcome, result
    if subtype is not None or outcome is FT:
        assert result.error_subtype == subtype, result
    if line is not None:
        assert result.error_line == line, result


def test_a_sleeper_is_stopped_by_the_clock(executor: Executor) -> None:
    result = judge(executor, "import time\ntime.sleep(1000)", SQUARES[:1])
    assert (result.outcome, result.error_subtype) == (RE, "timeout")


def test_the_message_is_the_last_line_of_the_error(executor: Executor) -> None:
    assert judge(executor, "int('x')", SQUARES).message == "ValueError: invalid literal for int() with base 10: 'x'"


def test_a_hostile_exception_is_described_all_the_same(executor: Executor) -> None:
    code = "class E(Exception):\n    def __str__(self):\n        raise self\nraise E"
    assert judge(executor, code, SQUARES).error_subtype == "e"


def test_the_first_failure_settles_the_outcome(executor: Executor) -> None:
    result = judge(executor, "n = int(input())\nprint(n * n if n != -4 else 0)", SQUARES)
    assert (result.outcome, result.test_outcomes) == (FT, (PASS, FT, None))


def test_every_test_is_run_on_request() -> None:
    with Executor(ExecutionConfig(num_workers=1, stop="never")) as executor:
        result = judge(executor, "n = int(input())\nassert n >= 0\nprint(n * n + (n == 3))", SQUARES)
        assert (result.outcome, result.test_outcomes) == (RE, (FT, RE, PASS))
        assert judge(executor, "(", SQUARES).test_outcomes == (CE, CE, CE)


@pytest.mark.parametrize(
    "code",
    [
        "import builtins\nn = int(input())\nprint(n * n)\nbuiltins.print = None",
        "import sys, os\nn = int(input())\nprint(n * n, flush=True)\nos.closerange(0, 2048)",
        "import sys\nn = int(input())\nprint(n * n)\nsys.stdin.close()\nsys.stdout.close()",
        "import os\nn = int(input())\nprint(n * n, flush=True)\nos._exit(0)",
        "import sys\nsys.modules['int'] = 1\nn = int(input())\nprint(n * n)\nsys.modules.clear()",
    ],
)
def test_what_a_program_leaves_behind_does_not_spoil_its_next_test(code: str, executor: Executor) -> None:
    """A test that fails in a used process is decided again in a fresh one."""
    assert judge(executor, code, SQUARES[:2]).outcome is PASS


def test_an_endless_atexit_handler_is_a_timeout(executor: Executor) -> None:
    code = "import atexit\nprint(int(input()) ** 2, flush=True)\ndef f():\n    while True: pass\natexit.register(f)"
    assert judge(executor, code, SQUARES).error_subtype == "timeout"


SUMS = (CallTest((1, 2), 3), CallTest((2, 2), 4))


@pytest.mark.parametrize(
    "code",
    [
        "def add(a, b): return a + b",
        "class Solution:\n    def add(self, a, b): return a + b",
        "class Solution:\n    seen = []\n    def add(self, a: int, b: Optional[int]) -> List[int]:\n"
        "        print(a)\n        return a + b",
        "add = lambda a, b: int(a + b)",
        "if __name__ == '__main__':\n    raise SystemExit(1)\ndef add(a, b): return a + b",
    ],
)
def test_functions_and_solutions_are_called(code: str, executor: Executor) -> None:
    assert judge(executor, code, SUMS, fn_name="add").outcome is PASS


@pytest.mark.parametrize(
    ("code", "outcome", "subtype"),
    [
        ("def sub(a, b): return a - b", CE, "missing_function"),
        ("def add(a): return a", RE, "typeerror"),
        ("def add(a, b): return None", FT, None),
        ("class A:\n    def __eq__(self, o): return True\ndef add(a, b): return A()", FT, None),
        ("class I(int):\n    def __eq__(self, o): return True\ndef add(a, b): return I()", FT, None),
        ("import sys\nsys.exit(0)", RE, "exit"),
        ("import os\ndef add(a, b): os._exit(0)", RE, "exit"),
        ("def add(a, b): raise SystemExit(0)", RE, "exit"),
        ("def add(a, b): return 'x' * (4 << 20)", RE, "output_limit"),
        ("def add(a, b):\n    x = []\n    x.append(x)\n    return x", FT, None),
        ("def add(a, b):\n    while True: pass", RE, "timeout"),
        ("raise KeyError('import')", RE, "keyerror"),
    ],
)
def test_calls_that_do_not_answer(code: str, outcome: Outcome, subtype: str | None, executor: Executor) -> None:
    result = judge(executor, code, SUMS, fn_name="add")
    assert (result.outcome, result.error_subtype) == (outcome, subtype), result


def test_a_large_value_crosses(executor: Executor) -> None:
    expected = ["x" * 100] * 5000
    assert (
        judge(executor, "def f(n): return ['x' * 100] * n", (CallTest((5000,), expected),), fn_name="f").outcome is PASS
    )


def test_a_program_that_writes_on_the_channel_gains_nothing(executor: Executor) -> None:
    code = """
import os
for message in (b'{"test":0,"error":null,"value":1,"cpu":0.0}', b'{"hello":1}', b'{"fault":"x"}', b'[', b'{"file":99}',
                b'{"test":0,"value":{"t":"range","v":[1]}}', b'{"verdict":"passed","error":null}', b'{"error":7}'):
    try:
        os.write(1023, message)
    except OSError:
        pass
def add(a, b): return 0
"""
    assert judge(executor, code, SUMS, fn_name="add").outcome in (FT, RE)


ASSERTS = "assert add(1, 2) == 3", "assert add([1], [2]) == [1, 2]", "assert add(0.5, 1)", "assert not add(0, 0)"


def test_assertions_against_literals(executor: Executor) -> None:
    tests = tuple(map(AssertTest, ASSERTS))
    assert judge(executor, "def add(a, b): return a + b", tests, fn_name="add").outcome is PASS
    assert judge(executor, "def add(a, b): return 3", tests, fn_name="add").test_outcomes == (PASS, FT, None, None)


@pytest.mark.parametrize(
    ("test", "outcome", "subtype"),
    [
        ("import math\nassert math.isclose(div(1, 3), 1 / 3)", PASS, None),
        ("for i in range(1, 20):\n    assert div(i, i) == 1.0, i", PASS, None),
        ("assert set([div(2, 1)]) == {2}", PASS, None),
        ("assert div(a=1, b=2) == 0.5 and div(1, b=4) == 0.25", PASS, None),
        ("def check(f):\n    assert f(1, 2) == 0.5\n    assert f(4, 2) == 3\ncheck(div)", FT, None),
        ("assert div(1, 0) != 1", RE, "zerodivisionerror"),
        ("try:\n    div(1, 0)\nexcept ZeroDivisionError:\n    pass\nelse:\n    assert False", PASS, None),
        ("assert div(half, 1) == 0.5 != 1", PASS, None),
        ("assert first(Pair(1, 2)) == 1 != 2", PASS, None),
        ("assert abs(len(div(1, 1)))", FT, None),
        ("assert div('/etc/passwd', 1) == 0 and 1", RE, "typeerror"),
        ("while True: div(1, 1)", RE, "timeout"),
    ],
)
def test_assertions_of_any_form_run_in_a_process_of_their_own(
    test: str, outcome: Outcome, subtype: str | None, executor: Executor
) -> None:
    code = "half = 0.5\nclass Pair:\n    def __init__(self, x, y): self.x = x\ndef div(a, b): return a / b\n"
    code += "def first(pair): return pair.x"
    result = judge(executor, code, (AssertTest(test), AssertTest("assert div(1, 1) == 1")), fn_name="div")
    assert (result.test_outcomes[0], result.error_subtype) == (outcome, subtype), result


def test_an_object_made_by_the_setup_is_passed_by_name(executor: Executor) -> None:
    code = "class Node:\n    def __init__(self, v): self.v = v\ndef value(node): return node.v"
    for test in ("assert value(root) == 7", "assert 7 == value(root)", "assert value(root.next) + 1 == 9"):
        tests = (AssertTest(test, setup="root = Node(7)\nroot.next = Node(8)"),)
        assert judge(executor, code, tests, fn_name="value").outcome is PASS, test


def test_the_expected_value_is_nowhere_in_the_programs_process(executor: Executor) -> None:
    """A program that searches every object and frame for the secret answer does not find it."""
    code = """
import gc, sys
def f(x):
    frame, found = sys._getframe(), []
    while frame:
        found += [str(frame.f_locals), str(frame.f_globals)[:100000]]
        frame = frame.f_back
    found += [o for o in gc.get_objects() if isinstance(o, (list, tuple, dict))]
    raise ValueError("secret" if str(int("918273644") + 1) in str(found) else "nothing")
"""
    for tests in (
        (AssertTest("assert f(1) == 918273645"),),
        (AssertTest("assert 918273645 == f(1)"),),
        (CallTest((1,), 918273645),),
    ):
        assert judge(executor, code, tests, fn_name="f").message == "ValueError: nothing"


def test_a_checker_decides_where_many_answers_are_right(executor: Executor) -> None:
    checker = "def check(stdin, expected, printed):\n    return sum(map(int, printed.split())) == int(stdin)"
    tests = (StdinTest("5\n", ""), StdinTest("7\n", ""))
    assert judge(executor, "n = int(input())\nprint(1, n - 1)", tests, checker=checker).outcome is PASS
    assert judge(executor, "n = int(input())\nprint(1, n)", tests, checker=checker).outcome is FT
    assert judge(executor, "print('junk')", tests, checker=checker).outcome is FT


def test_kinds_of_test_may_be_mixed(executor: Executor) -> None:
    code = "def f(x): return x\nif __name__ == '__main__': print(input())"
    tests = (StdinTest("a\n", "a\n"), CallTest((1,), 1), AssertTest("assert f(2) == 2"), StdinTest("b\n", "b\n"))
    assert judge(executor, code, tests, fn_name="f").test_outcomes == (PASS, PASS, PASS, PASS)


def test_a_program_that_is_killed_every_time_is_killed(executor: Executor) -> None:
    """Once may be the machine's doing; a second time, alone, is the program's."""
    result = judge(executor, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", SQUARES)
    assert (result.outcome, result.error_subtype) == (RE, "killed")
