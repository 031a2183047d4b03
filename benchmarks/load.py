"""Does a busy machine change a verdict? Batteries and reference solutions, beside processes that only burn time.

    python benchmarks/load.py --loops 16 --rounds 3 [--level portable] [--battery DIR ...] [--problems FILE ...]

Prints one line a round, and each wrong verdict with what would be right. Run it as an ordinary user, too: what can be
isolated differs.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coderl import problems as data
from coderl.execution import ExecutionConfig, Executor, Job
from coderl.execution.audit.cases import Case
from coderl.execution.audit.graders import verdict_of
from coderl.execution.audit.run import audit
from coderl.execution.config import LAYERS, Layer

WITHOUT: dict[str, tuple[Layer, ...]] = {"strong": (), "portable": ("namespaces",)}


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Keep so many processes burning time."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def wrong_cases(battery: Path | None, config: ExecutionConfig) -> tuple[int, list[str]]:
    """Return how many cases a battery has, and those that were judged wrongly."""
    with Executor(config) as executor:

        def grade(case: Case) -> str:
            (verdict,) = executor.run([Job(code=case.code, tests=case.tests, fn_name=case.fn_name)])
            return verdict_of(verdict)

        report = audit(grade, battery)
    found = [
        f"{case.name}: {case.verdict} with {case.survivors} processes and {case.canaries} canaries, "
        f"right is {' or '.join(case.accept)} with none"
        for case in report.wrong
    ]
    return len(report.cases), found


def wrong_references(path: str, config: ExecutionConfig) -> tuple[int, list[str]]:
    """Return how many problems a file has, and those whose reference solution does not pass."""
    problems = [p for p in data.load(path) if p.solutions]
    jobs = [Job(p.solutions[0], p.hidden_tests, p.problem.fn_name) for p in problems]
    with Executor(config) as executor:
        verdicts = [verdict_of(verdict) for verdict in executor.run(jobs)]
    pairs = zip(problems, verdicts, strict=True)
    return len(jobs), [f"{p.problem.problem_id}: {verdict}" for p, verdict in pairs if verdict != "PassedTest"]


def main() -> int:
    """Measure and print; return 1 if any verdict was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--loops", type=int, default=16, help="busy processes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--level", choices=sorted(WITHOUT), default="strong")
    parser.add_argument("--battery", type=Path, nargs="*", default=[], help="further batteries: folders")
    parser.add_argument("--problems", nargs="*", default=[], help="files whose reference solutions must pass")
    options = parser.parse_args()
    layers: tuple[Layer, ...] = tuple(layer for layer in LAYERS if layer not in WITHOUT[options.level])
    config = ExecutionConfig(layers=layers, min_isolation=options.level)
    cases = config.model_copy(
        update={"num_workers": 1, "cpu_limit_s": 2.0, "wall_limit_s": 8.0, "memory_limit_bytes": 512 << 20}
    )
    num_wrong = 0
    print(f"{options.loops} busy loops, level {options.level}, user {os.getuid()}", flush=True)
    with busy(options.loops):
        for turn in range(options.rounds):
            started, parts, wrong = time.monotonic(), [], []
            for battery in [None, *options.battery]:
                count, found = wrong_cases(battery, cases)
                parts.append(f"{battery.name if battery else 'our battery'} {count - len(found)} of {count}")
                wrong += found
            for path in options.problems:
                count, found = wrong_references(path, config)
                parts.append(f"{Path(path).name} {count - len(found)} of {count}")
                wrong += found
            print(f"round {turn + 1}: {', '.join(parts)}; {time.monotonic() - started:.0f} s", flush=True)
            for line in wrong:
                print(f"  {line}", flush=True)
            num_wrong += len(wrong)
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
