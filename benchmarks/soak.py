"""What many programs in a row leave behind: nothing. Counts processes, descriptors, files and memory as they run.

    python benchmarks/soak.py [--programs 10000] --json FILE

The corpus is mixed with programs that end badly: killed, out of time or memory, writing without end, leaving threads.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from programs import corpus
from rich.progress import track

from coderl.execution import ExecutionConfig, Executor, Job
from coderl.execution.audit.graders import verdict_of
from coderl.types import StdinTest
from execution import below, tests_of

BAD = {
    "import os\nos.kill(os.getpid(), 9)": "RuntimeError",
    "while True: pass": "Timeout",
    "x = bytearray(1 << 33)": "RuntimeError",
    "while True: print('x' * 9999)": "RuntimeError",
    "from threading import Thread\nThread(target=input, daemon=True).start()\nprint(1)": "PassedTest",
    "import tempfile\nopen(tempfile.mktemp(), 'w')": "RuntimeError",
    "import os\nos.close(0); os.close(1)": "FailedTest",
}


def jobs(count: int) -> list[tuple[Job, str]]:
    """Return jobs and their right outcomes, one in fifty of them bad."""
    rng, samples, bad = random.Random(0), corpus(), list(BAD.items())
    drawn = []
    for number in range(count):
        if number % 50 == 0:
            code, outcome = bad[number // 50 % len(bad)]
            drawn.append((Job(f"{code}\n# {number}", (StdinTest("", "1"),)), outcome))
        else:
            sample = rng.choice(samples)
            drawn.append((Job(f"{sample.code}\n# {number}", tests_of(sample), sample.fn_name), sample.outcome))
    return drawn


def state() -> dict[str, int]:
    """Return what could leak: processes below, descriptors here, files in shared places, resident KiB here."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    places = [tempfile.gettempdir(), "/dev/shm"]
    return {
        "processes": sum(map(len, below(os.getpid()))),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "files": sum(len(os.listdir(place)) for place in places if os.path.isdir(place)),
        "resident_kib": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=10_000)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    args = parser.parse_args()
    drawn = jobs(args.programs)
    wrong, history = Counter(), []
    before = state()
    config = ExecutionConfig(num_workers=2, cpu_limit_s=1, memory_limit_bytes=256 << 20, output_limit_bytes=1 << 20)
    with Executor(config) as executor:
        results = executor.run(job for job, _ in drawn)
        for number, (result, (job, outcome)) in enumerate(
            track(zip(results, drawn, strict=True), "running", args.programs)
        ):
            if verdict_of(result) != outcome:
                wrong[f"{outcome} -> {verdict_of(result)}: {job.code[:60]!r}"] += 1
            if number % max(args.programs // 10, 1) == args.programs // 20:
                history.append(state())
    time.sleep(0.5)
    report = {"programs": args.programs, "wrong": dict(wrong), "before": before, "while": history, "after": state()}
    print(json.dumps(report, indent=1))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
