"""The pool: order, streaming, faults, and what is left when it is gone."""

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from coderl.execution import (
    ExecutionConfig,
    Executor,
    Job,
    Limits,
    run,
)
from coderl.execution.pool import check
from coderl.execution.sandbox.process import ZygoteProcess
from coderl.types import (
    AssertTest,
    CallTest,
    InputError,
    Outcome,
    SandboxError,
    StdinTest,
    Verdict,
)

ECHO = (StdinTest("a\n", "a\n"),)


def processes_with(marker: str) -> list[int]:
    """Living processes with `marker` among their arguments."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def wait_until(condition: object, limit_s: float = 20) -> bool:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def test_the_short_door() -> None:
    results = run(["print(input())", "print(", "print(1)"], [StdinTest("a", "a")], limits=Limits(cpu_limit_s=1))
    assert [r.outcome for r in results] == [Outcome.PASSED_TEST, Outcome.COMPILE_ERROR, Outcome.FAILED_TEST]
    assert results[0].isolation in ("strong", "portable")
    assert results[0].cpu_s > 0


def test_results_come_in_the_order_of_the_jobs() -> None:
    jobs = [
        Job(f"import time\ntime.sleep({0.1 if i % 4 == 0 else 0})\nprint({i})", (StdinTest("", "3"),))
        for i in range(12)
    ]
    with Executor(ExecutionConfig(num_workers=3)) as executor:
        outcomes = [result.outcome for result in executor.run(jobs)]
    assert [i for i, outcome in enumerate(outcomes) if outcome is Outcome.PASSED_TEST] == [3]
    assert len(outcomes) == 12


def test_jobs_are_taken_as_they_are_needed() -> None:
    """An endless stream of jobs works, and few are taken ahead of what was asked for."""
    taken = 0

    def stream() -> Iterator[Job]:
        nonlocal taken
        while True:
            taken += 1
            yield Job(f"print(input())  # {taken}", ECHO)

    with Executor(ExecutionConfig(num_workers=1)) as executor:
        results = executor.run(stream())
        first = [next(results) for _ in range(5)]
    assert all(result.fault is None for result in first)
    assert taken <= 5 + 64 + 64 + 1


def test_equal_programs_run_once() -> None:
    with Executor(ExecutionConfig(num_workers=2)) as executor:
        results = list(executor.run([Job("print(input())", ECHO)] * 5 + [Job("print(2)", ECHO)]))
    assert len({id(result) for result in results[:5]}) == 1
    assert results[5] is not results[0]


def test_a_job_without_tests_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one test"):
        Job("print(1)", ())


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (Job("", (CallTest((), 1),)), "fn_name"),
        (Job("", (AssertTest("assert ("),)), "not Python"),
        (Job("", ECHO, checker="def check("), "checker"),
        (
            Job("", (CallTest((), functools.reduce(lambda v, _: [v], range(300), [])),), "f"),
            "nested more than 200 deep",
        ),
    ],
)
def test_a_job_that_cannot_be_run_is_named(job: Job, text: str) -> None:
    """It is a fault, and the jobs beside it are judged; `check` says the same to a person."""
    with Executor(ExecutionConfig(num_workers=1)) as executor:
        refused, judged = executor.run([job, Job("print(input())", ECHO)])
    assert refused.outcome is None
    assert text in str(refused.fault)
    assert judged.outcome is Outcome.PASSED_TEST
    with pytest.raises(InputError, match=text):
        check(job)


def test_an_executor_that_was_not_entered_says_so() -> None:
    with pytest.raises(RuntimeError, match="context manager"):
        list(Executor().run([Job("", ECHO)]))


def test_a_killed_zygote_costs_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is run again on a fresh zygote; a fault is counted."""
    started: list[ZygoteProcess] = []
    original = ZygoteProcess.__init__

    def start(self: ZygoteProcess, *arguments: Any) -> None:
        original(self, *arguments)
        started.append(self)

    monkeypatch.setattr(ZygoteProcess, "__init__", start)
    with Executor(ExecutionConfig(num_workers=1)) as executor:
        assert isinstance(next(executor.run([Job("print(input())", ECHO)])), Verdict)
        inside = psutil.Process(started[0]._process.pid).children(recursive=True)
        started[0]._process.kill()
        assert not psutil.wait_procs(inside, timeout=30)[1], "what runs in its namespaces dies a moment later"
        (result,) = executor.run([Job("print(input()) # again", ECHO)])
        assert result.fault is None
        assert result.outcome is Outcome.PASSED_TEST
        assert executor.num_faults == 1
    assert len(started) == 2


def test_a_sandbox_that_keeps_failing_is_a_value_and_not_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    with Executor(ExecutionConfig(num_workers=1)) as executor:
        monkeypatch.setattr(ZygoteProcess, "fork", lambda *_: (_ for _ in ()).throw(SandboxError("no more processes")))
        (result,) = executor.run([Job("print(input())", ECHO)])
        assert result.fault is not None
        assert "no more processes" in result.fault
        monkeypatch.undo()
        (result,) = executor.run([Job("print(input())", ECHO)])
        assert result.fault is None


def test_a_full_disk_or_memory_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    with Executor(ExecutionConfig(num_workers=1)) as executor:

        def full(*_arguments: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("coderl.execution.sandbox.process.Slot.fill", full)
        (result,) = executor.run([Job("print(input())", ECHO)])
    assert result.fault is not None
    assert "No space left" in result.fault


def test_too_little_address_space_is_a_fault_and_not_a_timeout() -> None:
    code = (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from coderl.execution import Executor\nfrom coderl.types import SandboxError\n"
        "try:\n    with Executor(): pass\nexcept SandboxError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ulimit -v" in done.stdout


def test_zygotes_are_replaced_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    original = ZygoteProcess.__init__

    def start(self: ZygoteProcess, *arguments: Any) -> None:
        nonlocal count
        count += 1
        original(self, *arguments)

    monkeypatch.setattr(ZygoteProcess, "__init__", start)
    with Executor(ExecutionConfig(num_workers=1, recycle_after=4)) as executor:
        assert len(list(executor.run(Job(f"print({i})", ECHO) for i in range(12)))) == 12
    assert count == 4, "the first is also probed: 3 + 4 + 4 + 1 programs"


def test_nothing_is_left_when_the_pool_is_closed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with Executor(ExecutionConfig(num_workers=2)) as executor:
            list(executor.run(Job(f"print({i})", ECHO) for i in range(8)))
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_survives_the_sudden_death_of_the_parent(tmp_path: Path) -> None:
    """kill -9 of a process whose programs loop forever leaves none of them, nor a zygote."""
    code = (
        "import sys\nfrom coderl.execution import *\nfrom coderl.types import *\n"
        "with Executor(ExecutionConfig(num_workers=2, cpu_limit_s=600, wall_limit_s=600)) as executor:\n"
        "    jobs = [Job(f'while True: pass # {i}', (StdinTest('', ''),)) for i in range(2)]\n"
        "    print('up', flush=True)\n    list(executor.run(jobs))"
    )
    before = set(processes_with("zygote.py"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        assert wait_until(lambda: len(set(processes_with("zygote.py")) - before) >= 4)
        mine = set(processes_with("zygote.py")) - before
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert wait_until(lambda: not mine & set(processes_with("zygote.py")))


def test_leaving_early_is_safe() -> None:
    """Results that nobody asked for are dropped, and the pool ends."""
    with Executor(ExecutionConfig(num_workers=1)) as executor:
        results = executor.run(Job(f"print({i})", ECHO) for i in range(50))
        next(results)
    assert not executor._threads


def test_jobs_that_come_after_the_executor_was_closed_are_faults_and_do_not_hang() -> None:
    """Another thread may still be asking when the executor ends; every job it gives then is answered."""
    executor = Executor(ExecutionConfig(num_workers=1)).__enter__()
    tests = (StdinTest("", "1\n"),)
    results = executor.run(Job(f"print(1) # {n}", tests) for n in range(400))
    first = next(results)
    executor.__exit__(None, None, None)
    rest = list(results)
    assert first.fault is None
    assert len(rest) == 399
    assert rest[-1].fault is not None


def test_results_as_completed_do_not_wait_for_a_slow_program_before_them() -> None:
    slow = Job("import time\ntime.sleep(1)\nprint(1)", (StdinTest("", "1"),))
    quick = [Job(f"print({i})", (StdinTest("", str(i % 3)),)) for i in range(40)]
    with Executor(ExecutionConfig(num_workers=2)) as executor:
        found = list(executor.as_completed([slow, *quick]))
    assert found[0][0] != 0
    assert sorted(position for position, _ in found) == list(range(41))
    passed = {position for position, result in found if result.outcome is Outcome.PASSED_TEST}
    assert passed == {0, 1, 2, 3}
