"""What kill -9 changes: nothing. Kills a run, its zygotes and its programs at random, resumes, compares tables.

    python benchmarks/kills.py [--trials 200] --json FILE

Each trial runs `coderl execute`'s stage on the same programs in a process of its own, kills that process, a zygote or
a program at a random moment, starts the stage again until it is done, and compares its verdicts byte for byte with
those of a run that nobody disturbed. It also counts processes that outlive a trial.
"""

import argparse
import ctypes
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from programs import corpus
from rich.progress import track

from coderl import records, tables
from coderl.execution import ExecutionConfig
from coderl.stages.console import Reporter
from coderl.stages.execute import execute
from coderl.types import LabelledProblem, Problem, Program
from execution import below, tests_of

TARGETS = ("parent", "zygote", "program")
PART_SIZE = 24
PR_SET_CHILD_SUBREAPER = 36


def write_programs(folder: Path, repeats: int) -> list[LabelledProblem]:
    """Write the corpus, a problem a program, as a `sample` stage; return the problems."""
    samples = corpus() * repeats
    problems = [
        LabelledProblem(Problem(f"p{i}", "", fn_name=sample.fn_name), hidden_tests=tests_of(sample))
        for i, sample in enumerate(samples)
    ]
    # A comment keeps repeated programs from being recognised as one.
    rows = [Program(f"p{i}", 0, f"{sample.code}\n# {i}") for i, sample in enumerate(samples)]
    table = tables.PartedTable(folder / "programs", Program)
    for index, start in enumerate(range(0, len(rows), PART_SIZE)):
        table.write(index, rows[start : start + PART_SIZE])
    return problems


def start(out: Path, programs: Path, problems: list[LabelledProblem], config: ExecutionConfig) -> int:
    """Run the stage in a forked process; return its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        execute(out, programs=programs, problems=problems, config=config, reporter=Reporter(quiet=True))
        status = 0
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def victim(parent: int, target: str, rng: random.Random) -> int | None:
    """Return a process to kill: the deepest ones are programs, those between are zygotes."""
    if target == "parent":
        return parent
    levels = below(parent)
    found = levels[2:] if target == "program" else levels[:2]
    pids = [pid for level in found for pid in level]
    return rng.choice(pids) if pids else None


def trial(out: Path, target: str, delay_s: float, rng: random.Random, run: tuple) -> bool:
    """Run the stage to its end with one kill on the way; return whether something was killed."""
    pid = start(out, *run)
    deadline, killed = time.monotonic() + delay_s, False
    while not killed:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        if time.monotonic() >= deadline and (prey := victim(pid, target, rng)) is not None:
            try:
                os.kill(prey, signal.SIGKILL)
                killed = True
            except ProcessLookupError:
                continue
        time.sleep(0.001)
    status = os.waitpid(pid, 0)[1]
    while status != 0:
        if target != "parent":
            raise SystemExit(f"killing a {target} ended the run with status {status}")
        status = os.waitpid(start(out, *run), 0)[1]
        target = "none"
    return True


def num_survivors(patience_s: float = 3.0) -> int:
    """Return how many processes of a trial still live after a while; their zombies are collected."""
    deadline = time.monotonic() + patience_s
    while below(os.getpid()) and time.monotonic() < deadline:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 0
        time.sleep(0.002)
    return sum(map(len, below(os.getpid())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    args = parser.parse_args()
    rng, counts = random.Random(0), Counter()
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0  # orphans become ours, and are seen
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        problems = write_programs(folder, repeats=3)
        started = time.monotonic()
        undisturbed = start(folder / "undisturbed", folder, problems, ExecutionConfig(num_workers=2))
        assert os.waitpid(undisturbed, 0)[1] == 0
        whole_s = time.monotonic() - started
        wanted = records.hash_path(folder / "undisturbed" / "verdicts")
        for number in track(range(args.trials), "killing"):
            target, out = TARGETS[number % 3], folder / f"trial-{number}"
            store = folder / f"trial-{number}.sqlite" if number % 2 else None  # half of them keep verdicts
            run = (folder, problems, ExecutionConfig(num_workers=2, store_path=store))
            was_killed = trial(out, target, rng.uniform(0, whole_s), rng, run)
            counts[f"{target} killed" if was_killed else "over before the kill"] += 1
            counts["different"] += records.hash_path(out / "verdicts") != wanted
            counts["survivors"] += num_survivors()
    report = {"trials": args.trials, "different": 0, "survivors": 0, **counts}
    print(json.dumps(report, indent=1))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
