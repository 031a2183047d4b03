"""What a verdict costs where it used to cost too much: starts, failures that are all counted, sleepers, references.

    python benchmarks/verdicts.py [--problems FILE ...] [--json FILE]

Processor time is of this process and of all below it; the fork floor runs the same programs and tests in one `os.fork`
each, without a sandbox and believing what they say, interleaved with ours.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from coderl import problems as data
from coderl.evaluation.pass_at_k import estimate
from coderl.execution import ExecutionConfig, Executor, Job
from coderl.execution.sandbox.process import _USUAL
from coderl.types import AssertTest, CallTest, Outcome, StdinTest
from execution import cpu_s

ROUNDS = 3
FLOOR = """
import gc, json, os, resource, sys
jobs = json.load(sys.stdin)
for name in jobs.pop("modules"):
    __import__(name)
gc.collect(), gc.freeze()
def used():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
start = used()
for code, tests in jobs["jobs"]:
    pid = os.fork()
    if pid == 0:
        try:
            names = {"__name__": "solution"}
            for text in (code, *tests):
                exec(compile(text, "<program>", "exec"), names)
            os._exit(0)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
print(used() - start)
"""
SHOWN = (StdinTest("", "1"),)


def start() -> dict[str, float]:
    """Return the processor milliseconds until an executor of one worker is there, and until its first result."""
    before = cpu_s()
    with Executor(ExecutionConfig(num_workers=1)) as executor:
        there = cpu_s() - before
        next(executor.run([Job("print(1)", SHOWN)]))
        return {"start_cpu_ms": 1e3 * there, "first_result_cpu_ms": 1e3 * (cpu_s() - before)}


def never() -> dict[str, float]:
    """Return how much more 100 failing tests cost than 100 passing ones where all are run."""
    tests = tuple(CallTest((n,), n) for n in range(100))
    spent = {"n": 0.0, "-1": 0.0, "n // 0": 0.0}
    with Executor(ExecutionConfig(num_workers=1, stop="never")) as executor:
        for turn in range(20 * ROUNDS):
            for body in spent:
                before = cpu_s()
                next(executor.run([Job(f"def f(n): return {body}  # {turn}", tests, "f")]))
                spent[body] += cpu_s() - before
    passing = spent.pop("n")
    return {f"never_{name}": value / passing for name, value in zip(("wrong", "raising"), spent.values(), strict=True)}


def sleepers(num_workers: int, seconds: float, every: int, limit_s: float) -> float:
    """Return the wall seconds of 200 programs of which every so many sleeps."""
    sleep = f"import time\ntime.sleep({seconds})\nprint(1)  # "
    jobs = [Job((sleep if n % every == 1 else "print(1)  # ") + str(n), SHOWN) for n in range(200)]
    with Executor(ExecutionConfig(num_workers=num_workers, wall_limit_s=limit_s)) as executor:
        before = time.monotonic()
        for _verdict in executor.run(jobs):
            pass
        return time.monotonic() - before


def coin(number: int) -> dict[str, float]:
    """Return the share of programs that pass six yes/no tests by chance, with its 95 % interval; 1/64 is right."""
    code = "import os\nprint('YES' if os.urandom(1)[0] % 2 else 'NO')  # "
    tests = tuple(StdinTest(str(i), "YES" if i % 2 else "NO") for i in range(6))
    with Executor(ExecutionConfig()) as executor:
        jobs = (Job(code + str(i), tests) for i in range(number))
        passed = [float(verdict.outcome is Outcome.PASSED_TEST) for verdict in executor.run(jobs)]
    found = estimate(passed)
    return {"passed": sum(passed), "of": number, "share": found.mean, "low": found.low, "high": found.high}


def references(path: str) -> dict[str, float]:
    """Return how many reference solutions of assertion problems pass, and their cost beside the fork floor."""
    jobs = [Job(p.solutions[0], p.hidden_tests, p.problem.fn_name) for p in data.load(path) if p.solutions]
    texts = [(j.code, [f"{t.setup}\n{t.code}" for t in j.tests if isinstance(t, AssertTest)]) for j in jobs]
    message = json.dumps({"modules": _USUAL, "jobs": texts})
    command = [os.path.realpath(sys._base_executable), "-I", "-S", "-c", FLOOR]  # type: ignore[attr-defined]
    ours, floor, passed = [], [], 0
    with Executor(ExecutionConfig(num_workers=1)) as executor:
        list(executor.run(jobs))
        for _round in range(ROUNDS):
            done = subprocess.run(command, input=message, capture_output=True, text=True, check=True)
            floor.append(float(done.stdout))
            before = cpu_s()
            passed = sum(verdict.outcome is Outcome.PASSED_TEST for verdict in executor.run(jobs))
            ours.append(cpu_s() - before)
    each = 1e3 / len(jobs)
    return {
        "programs": len(jobs), "passed": passed, "cpu_ms": min(ours) * each, "floor_cpu_ms": min(floor) * each,
        "of_floor": min(ours) / min(floor),
    }  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", nargs="*", default=[], help="files of problems whose tests are assertions")
    parser.add_argument("--coins", type=int, default=3000, help="programs that guess")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report: dict[str, object] = {**start(), **never()}
    report["stragglers_wall_s"] = sleepers(8, 2.0, 20, 30.0)
    report["hanging_wall_s"] = sleepers(2, 60.0, 25, 2.0)
    report["coin"] = coin(options.coins)
    report |= {Path(path).name: references(path) for path in options.problems}
    print(json.dumps(report, indent=1))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
