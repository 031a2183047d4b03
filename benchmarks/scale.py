"""APPS at full size: peak memory and processor time of the commands on 5,000 problems with 1,000 programs each.

    python benchmarks/scale.py make DATA     # 5,000 folders with 1.3 GB of tests; tables of 5 million rows
    python benchmarks/scale.py measure -- evaluate --programs DATA/sample --verdicts DATA/execute ...
    python benchmarks/scale.py measure --kill-after 60 -- execute --programs DATA/sample ...

The tree is as skewed as the original: few problems hold most bytes. A problem has two distinct programs, over and
over, so that executing them all is executing 10,000: the pool recognises equal programs that follow each other.
"""

import argparse
import json
import multiprocessing
import os
import resource
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DIFFICULTIES = ("interview", "interview", "interview", "introductory", "competition")
PROBLEMS_A_PART = 16
NUM_TOKENS = 150
QUESTION = "Polycarp has n numbers.\n" * 40 + "\n-----Examples-----\nInput\n2\n1 2\n\nOutput\n3\n"
PROGRAM = "import sys\n\n\ndef main():\n    data = sys.stdin.read().split()\n    print(len(data))\n\n\nmain()\n# {}\n"


def make_problems(folder: Path, num_problems: int, num_bytes: float) -> None:
    """Write APPS problem folders whose tests hold about so many bytes, log-normally spread."""
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(0, 2, num_problems)
    sizes *= num_bytes / sizes.sum()
    digits = " ".join(map(str, rng.integers(0, 10**6, 200_000)))
    for number, size in enumerate(sizes):
        problem = folder / f"{number:04d}"
        problem.mkdir(parents=True)
        num_tests = 21
        text = "5\n" + (digits * (int(size) // num_tests // len(digits) + 1))[: int(size) // num_tests] + "\n"
        tests = {"inputs": [f"{i} {text}" for i in range(num_tests)], "outputs": ["3\n"] * num_tests}
        (problem / "question.txt").write_text(f"{number}. {QUESTION}")
        (problem / "input_output.json").write_text(json.dumps(tests))
        (problem / "solutions.json").write_text(json.dumps([PROGRAM.format(i) for i in range(20)]))
        (problem / "metadata.json").write_text(json.dumps({"difficulty": DIFFICULTIES[number % 5], "url": "x"}))


def make_tables(folder: Path, num_problems: int, num_programs: int) -> None:
    """Write the programs of a `sample` stage, and made-up verdicts of an `execute` stage and of the example tests."""
    from coderl import tables
    from coderl.evaluation.counts import CLOCKS, JUDGED
    from coderl.types import Program

    judged = pa.schema([field for field in tables.schema_of(JUDGED) if field.name not in CLOCKS])
    rng = np.random.default_rng(1)
    for part, first in enumerate(range(0, num_problems, PROBLEMS_A_PART)):
        numbers = np.repeat(np.arange(first, min(first + PROBLEMS_A_PART, num_problems)), num_programs)
        num_rows = len(numbers)
        index = np.tile(np.arange(num_programs), num_rows // num_programs)
        names = pa.array(["0000", *(f"{n:04d}" for n in range(first, first + PROBLEMS_A_PART))])
        ids = names.take(pa.array(numbers - first + 1))
        which = numbers * 2 + (index >= num_programs // 2)  # equal ones stand together
        texts = pa.array([PROGRAM.format(n) for n in range(first * 2, (first + PROBLEMS_A_PART) * 2)])
        tokens = pa.ListArray.from_arrays(
            np.arange(num_rows + 1, dtype=np.int32) * NUM_TOKENS, rng.integers(0, 32_000, num_rows * NUM_TOKENS)
        )
        shared = {"problem_id": ids, "index": index, "kind": pa.array(["sample"] * num_rows)}
        columns = {**shared, "code": texts.take(pa.array(which - first * 2)), "tokens": tokens}
        _write(folder / "sample" / "programs", part, columns, tables.schema_of(Program))
        for stage in ("made-up", "examples"):
            outcomes = rng.choice(5, num_rows, p=[0.02, 0.4, 0.46, 0.1, 0.02])
            is_fault = outcomes == 4
            empty = pa.nulls(num_rows)
            columns = {
                **shared,
                "outcome": pa.array(outcomes.astype(np.int8), mask=is_fault),
                "error_subtype": empty,
                "message": pa.array(["ValueError: invalid literal for int() with base 10: ''"] * num_rows),
                "error_line": empty,
                "test_outcomes": pa.array([[2, None, None]] * num_rows),
                "isolation": pa.array(["strong"] * num_rows),
                "fault": empty,
            }
            _write(folder / stage / "verdicts", part, columns, judged)


def _write(folder: Path, part: int, columns: dict, schema: pa.Schema) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table([pa.array(columns[n]).cast(schema.field(n).type) for n in schema.names], schema=schema)
    pq.write_table(table, folder / f"part-{part:06d}.parquet", compression="zstd", row_group_size=4096)


def measured(arguments: list[str], kill_after_s: float | None) -> None:
    """Run a command of coderl in this process and print what it took; `kill_after_s` ends it by SIGKILL."""
    from coderl.cli import main

    def report(status: object) -> None:
        own, below = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        figures = {"status": status, "peak_mib": own.ru_maxrss // 1024, "wall_s": round(time.monotonic() - start, 1),
                   "cpu_s": round(own.ru_utime + own.ru_stime, 1),
                   "children_cpu_s": round(below.ru_utime + below.ru_stime, 1)}  # fmt: skip
        print(json.dumps(figures), flush=True)

    def kill() -> None:
        report("killed")
        os.kill(os.getpid(), signal.SIGKILL)

    start = time.monotonic()
    if kill_after_s is not None:
        timer = threading.Timer(kill_after_s, kill)
        timer.daemon = True
        timer.start()
    try:
        main(arguments)
        report(0)
    except SystemExit as stopped:
        report(stopped.code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="write the problems and the tables")
    make.add_argument("folder", type=Path)
    make.add_argument("--problems", type=int, default=5000)
    make.add_argument("--programs", type=int, default=1000)
    make.add_argument("--test-bytes", type=float, default=1.3e9)
    measure = commands.add_parser("measure", help="run a command of coderl; print peak memory and processor time")
    measure.add_argument("--kill-after", type=float)
    measure.add_argument("arguments", nargs="+")
    args = parser.parse_args()
    if args.command == "make":
        make_problems(args.folder / "apps", args.problems, args.test_bytes)
        make_tables(args.folder, args.problems, args.programs)
    else:  # in a fresh process: what this one has used does not count
        child = multiprocessing.get_context("spawn").Process(target=measured, args=(args.arguments, args.kill_after))
        child.start()
        child.join()


if __name__ == "__main__":
    main()
