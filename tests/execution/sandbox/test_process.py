"""The levels, and what a program cannot do; every victim is a canary made for the test."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coderl.execution import (
    ExecutionConfig,
    Executor,
    Job,
    doctor,
    print_doctor,
)
from coderl.execution.config import LAYERS, Isolation, Layer
from coderl.execution.gate import Gate
from coderl.execution.sandbox import process as sandbox_module
from coderl.execution.sandbox.contact import Contact
from coderl.execution.sandbox.process import (
    Plan,
    RefusedError,
    ZygoteProcess,
    flavour_of,
    negotiate,
)
from coderl.execution.worker import Worker
from coderl.types import (
    AssertTest,
    CallTest,
    Outcome,
    SandboxError,
    StdinTest,
    Verdict,
)

PORTABLE: tuple[Layer, ...] = ("landlock", "seccomp")
LEVELS: list[tuple[Layer, ...]] = [LAYERS, PORTABLE, ("namespaces", "seccomp")]


@pytest.mark.parametrize(
    ("layers", "level"),
    [
        ((True, True, True), "strong"),
        ((False, True, True), "portable"),
        ((True, False, True), "portable"),
        ((True, True, False), "unsafe"),
        ((False, False, True), "unsafe"),
        ((False, False, False), "unsafe"),
    ],
)
def test_the_level_follows_from_the_layers(layers: tuple[bool, bool, bool], level: Isolation) -> None:
    assert Plan(*layers).level == level


def test_a_level_that_cannot_be_reached_is_refused_with_the_missing_piece() -> None:
    with (
        pytest.raises(SandboxError, match="namespaces"),
        Executor(ExecutionConfig(layers=PORTABLE, min_isolation="strong")),
    ):
        pass
    with pytest.raises(SandboxError, match="landlock"), Executor(ExecutionConfig(layers=("seccomp",))):
        pass


def test_a_machine_without_a_layer_gets_the_next_level_and_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without(ZygoteProcess):
        def __init__(self, config: ExecutionConfig, plan: Plan, flavour: int = 0) -> None:
            if plan.namespaces:
                raise RefusedError("namespaces", "Operation not permitted")
            super().__init__(config, plan, flavour)

    monkeypatch.setattr(sandbox_module, "ZygoteProcess", Without)
    plan, zygote = negotiate(ExecutionConfig())
    zygote.close()
    assert plan.level == "portable"
    with pytest.raises(SandboxError, match=r"Operation not permitted.*user.max_user_namespaces"):
        negotiate(ExecutionConfig(min_isolation="strong"))


@pytest.mark.parametrize("layers", LEVELS)
def test_the_self_test_finds_no_way_out(layers: tuple[Layer, ...]) -> None:
    findings = doctor(ExecutionConfig(layers=layers))
    assert [f.name for f in findings if f.name.startswith("a program") and not f.is_good] == []
    assert len([f for f in findings if f.name.startswith("a program")]) > 12


def test_the_self_test_sees_what_is_open() -> None:
    """A probe that always says `stopped` would prove nothing: without layers it must find the ways out."""
    findings = {f.name: f.is_good for f in doctor(ExecutionConfig(layers=(), min_isolation="unsafe"))}
    for name in ("read a private file", "write a file", "start a process", "open an internet socket", "run a command"):
        assert not findings[f"a program may not {name}"], name


def test_the_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_doctor() == 0
    assert "isolation level" in capsys.readouterr().out


def ways_out(canary: Path, layers: tuple[Layer, ...]) -> Verdict:
    code = f"""
import ctypes, os, shutil
def attempts():
    yield lambda: open({str(canary)!r}).read()
    yield lambda: open({str(canary)!r}, "w")
    yield lambda: os.truncate({str(canary)!r}, 0)
    yield lambda: os.remove({str(canary)!r})
    yield lambda: os.rename({str(canary)!r}, {str(canary) + "2"!r})
    yield lambda: os.chmod({str(canary)!r}, 0)
    yield lambda: os.mkdir({str(canary.parent / "new")!r})
    yield lambda: os.symlink("/etc/passwd", {str(canary.parent / "link")!r})
    yield lambda: os.listdir({str(canary.parent)!r})
    yield lambda: open("/etc/passwd").read()
    yield lambda: open("/proc/1/environ", "rb").read()
    yield lambda: os.kill(-1, 0)
    yield lambda: os.kill(os.getppid(), 0)
    yield lambda: os.setuid(0)
    yield lambda: os.fork() or os._exit(0)
    yield lambda: os.posix_spawn("/bin/true", ["true"], {{}})
    yield lambda: os.execv("/bin/true", ["true"])
    yield lambda: os.sched_setaffinity(os.getppid(), {{0}})
    yield lambda: os.memfd_create("x")
    yield lambda: os.open("/dev/shm/x", os.O_CREAT | os.O_WRONLY)
def f():
    done = []
    for number, attempt in enumerate(attempts()):
        try:
            attempt()
            done.append(number)
        except BaseException:
            pass
    return done
"""
    with Executor(ExecutionConfig(num_workers=1, layers=layers)) as executor:
        (result,) = executor.run([Job(code, (CallTest((), []),), fn_name="f")])
    assert result.fault is None
    return result


@pytest.mark.parametrize("layers", LEVELS)
def test_no_canary_is_touched(layers: tuple[Layer, ...], tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("alive")
    for path in (canary, tmp_path, *tmp_path.parents[:3]):
        path.chmod(0o777)
    assert ways_out(canary, layers).outcome is Outcome.PASSED_TEST
    assert canary.read_text() == "alive"
    assert os.listdir(tmp_path) == ["canary"]


def test_no_secret_of_the_environment_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_KEY", "sk-canary")
    code = "import os\nprint(any('canary' in v for v in os.environ.values()))"
    with Executor(ExecutionConfig(num_workers=1)) as executor:
        (result,) = executor.run([Job(code, (StdinTest("", "False"),))])
    assert result.fault is None
    assert result.outcome is Outcome.PASSED_TEST


def test_modules_that_nobody_preloaded_can_be_imported() -> None:
    code = "import sqlite3, xml.dom.minidom, zoneinfo\nprint(zoneinfo.__name__)"
    for layers in LEVELS:
        with Executor(ExecutionConfig(num_workers=1, layers=layers)) as executor:
            (result,) = executor.run([Job(code, (StdinTest("", "zoneinfo"),))])
        assert result.fault is None
        assert result.outcome is Outcome.PASSED_TEST, result


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, to become somebody else")
@pytest.mark.parametrize("layers", LEVELS)
def test_an_ordinary_user_gets_the_same_sandbox(layers: tuple[Layer, ...]) -> None:
    """Run by a user without any privilege, with an interpreter that this user may read."""
    python = "/usr/bin/python3.11"
    if not os.access(python, os.X_OK):
        pytest.skip("no interpreter of the same version outside of root's home")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    source = Path(__file__).resolve().parents[3] / "src"
    code = (
        f"from coderl.execution import *\nfindings = doctor(ExecutionConfig(layers={layers!r}))\n"
        "print([f.name for f in findings if f.name.startswith('a program') and not f.is_good], findings[0].detail)"
    )
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-B", "-c", code]
    environment = {"PYTHONPATH": f"{source}:{packages}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")
    assert done.stdout.split() == ["[]", "strong" if len(layers) == 3 else "portable"], done.stderr


VERDICTS = {"CompileError": 0, "RuntimeError": 1, "FailedTest": 2, "PassedTest": 3}


@pytest.mark.parametrize("layers", LEVELS[:2])
def test_the_adversarial_examples_get_the_right_verdict(layers: tuple[Layer, ...], shared_data: Path) -> None:
    """Idioms pass, cheats and bombs do not, escapes are stopped; what it calls Timeout is a RuntimeError here."""
    folder = shared_data / "adversarial"
    cases = json.loads((folder / "index.json").read_text())
    jobs = []
    for case in cases:
        pairs = zip(case["inputs"], case["outputs"], strict=True)
        is_stdin = case["kind"] == "stdin"
        tests = tuple(StdinTest(a, b) if is_stdin else CallTest(tuple(a), b) for a, b in pairs)
        jobs.append(Job((folder / "programs" / case["file"]).read_text(), tests, fn_name=case.get("fn_name")))
    config = ExecutionConfig(
        num_workers=2, cpu_limit_s=1.0, wall_limit_s=20.0, memory_limit_bytes=128 << 20, layers=layers
    )
    wrong = []
    with Executor(config) as executor:
        for case, result in zip(cases, executor.run(jobs), strict=True):
            assert result.fault is None, (case["name"], result)
            accepted = {VERDICTS.get(name, 1) for name in case["accept"]}
            if result.outcome not in accepted:
                wrong.append((case["name"], result))
    assert wrong == []


@pytest.mark.parametrize(
    ("code", "flavour"),
    [
        ("import sys, heapq", 0),
        ("from dataclasses import dataclass", 1),
        ("def f():\n    import math, statistics as s", 1),
        ("import numpy as np", 2),
        ("from numpy.linalg import norm", 2),
        ("print('import numpy')", 0),
        ("x = 1  # from numpy import array", 0),
    ],
)
def test_a_program_gets_the_zygote_that_has_its_modules(code: str, flavour: int) -> None:
    assert flavour_of(code) == flavour


def test_numpy_works_where_it_is_installed() -> None:
    code = "import numpy as np\nprint(int(np.arange(5).sum()), np.linalg.norm([3.0, 4.0]))"
    with Executor(ExecutionConfig(num_workers=1)) as executor:
        (result,) = executor.run([Job(code, (StdinTest("", "10 5.0"),))])
    assert result.fault is None
    assert result.outcome is Outcome.PASSED_TEST, result


JUDGED = (AssertTest("def check(f):\n    for i in range(20):\n        assert f(i) == i * 'x' * 99\ncheck(f)"),)


def test_what_a_killed_program_left_unread_does_not_reach_the_next() -> None:
    config = ExecutionConfig(num_workers=1)
    plan, zygote = negotiate(config)
    try:
        sleeper = {"kind": "module", "code": "import time\ntime.sleep(60)", "fn_name": None, "tests": [], "cpu_s": 9}
        contact = Contact(zygote, sleeper, config)
        contact.send({"call": 1, "path": "stale", "args": [], "kwargs": {}})
        contact.send({"end": 1})
        contact.close()
        worker = Worker(config, zygote, Gate(1))
        assert worker.run(Job("def f(i):\n    return i * 'x' * 99", JUDGED, "f")).outcome is Outcome.PASSED_TEST
        assert worker.run(Job("def f(i):\n    return i * 'y' * 99", JUDGED, "f")).outcome is Outcome.FAILED_TEST
    finally:
        zygote.close()
    assert plan.level != "unsafe"


@pytest.mark.parametrize(
    "sabotage",
    [
        "socket.socket(fileno=fd).shutdown(2)",
        "os.write(fd, b''), os.write(fd, b'{\"hello\":1}')",
        "os.set_blocking(fd, False)",
        "fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)",
        "socket.socket(fileno=fd).setsockopt(1, 7, 1)",
        "socket.socket(fileno=fd).setsockopt(1, 16, 0)",
        "os.ftruncate(fd, 1 << 20), os.lseek(fd, 1 << 20, 0)",
    ],
)
def test_a_program_cannot_spoil_the_files_that_the_next_one_gets(sabotage: str) -> None:
    code = f"import fcntl, os, socket\nfor fd in range(3, 1100):\n  try:\n    {sabotage}\n  except OSError:\n    pass"
    with Executor(ExecutionConfig(num_workers=1)) as executor:
        _, *after = executor.run(
            [
                Job(code, (StdinTest("", ""),)),
                Job("def f(i):\n    return i * 'x' * 99", JUDGED, "f"),
                Job("def f(i):\n    return i * 'y' * 99", JUDGED, "f"),
                Job("print(input())", (StdinTest("6", "6"),)),
            ]
        )
        assert executor.num_faults == 0
    outcomes = [result.outcome for result in after]
    assert outcomes == [Outcome.PASSED_TEST, Outcome.FAILED_TEST, Outcome.PASSED_TEST]
