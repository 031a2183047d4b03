"""Whether a killed run ends as an uninterrupted one does: the same weights and the same tables, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from coderl import records
from coderl.recipe import load_recipe
from coderl.stages.console import Reporter
from coderl.types import InputError

CLOCKS = frozenset({"cpu_s", "wall_s", "update_cpu_s", "sandbox_cpu_s"})
"""Columns and figures that no two runs share."""
CLOCK_TABLES = frozenset({"costs"})
BOUNDS = [
    "--problems.num-train=40",
    "--problems.num-validation=8",
    "--problems.num-test=4",
    "--rounds.problems-per-round=6",
    "--rounds.num-rounds=2",
    "--rounds.sample.num-samples=3",
    "--evaluation.num-samples=2",
    "--evaluation.ks=1",
    "--warm-start.optim.num-steps=4",
    "--warm-start.optim.checkpoint-every-steps=1",
    "--actor-training.optim.num-steps=4",
    "--actor-training.optim.checkpoint-every-steps=1",
    "--evaluation.ce-control=false",
    "--critic-sampling=none",
    "--repair=none",
]
"""What makes any recipe small enough to run three times over; the control ends after a time and is left out."""
POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the files of one stage compare."""

    stage: str
    num_files: int
    differing: tuple[str, ...]
    """Files that differ, or that only one of the runs has."""


def verify_resume(
    recipe: Path, overrides: Sequence[str], folder: Path, *, num_kills: int, seed: int, reporter: Reporter
) -> list[Comparison]:
    """Return how a run killed `num_kills` times with SIGKILL, at random steps, compares with an uninterrupted one.

    Args:
        recipe: bounded in size by `BOUNDS`, then changed by `overrides`.
        overrides: dotted flags.
        folder: for the two runs, `whole` and `killed`; they must not be there.
        num_kills: each of another process.
        seed: decides the steps.
        reporter: told of each kill.

    Raises:
        InputError: a run is there, the recipe cannot be used, or a run fails by itself.
    """
    flags = [*BOUNDS, *overrides]
    load_recipe(recipe, flags)  # what cannot be used is said before anything runs
    whole, killed = folder / "whole", folder / "killed"
    if whole.exists() or killed.exists():
        raise InputError(f"{folder}: holds runs already; give an empty folder")
    _run(recipe, flags, whole)
    num_steps = num_steps_of(whole)
    generator = random.Random(seed)
    for target in sorted(generator.randrange(1, num_steps) for _ in range(num_kills)):
        reached = _run(recipe, flags, killed, kill_after=target)
        reporter.say(f"  killed after {reached} of {num_steps} writes")
    _run(recipe, flags, killed)
    return compare(whole, killed)


def num_steps_of(run_dir: Path) -> int:
    """Return how many writes a run has come to: updates logged, parts of tables, stages done."""
    count = 0
    for folder, _, names in os.walk(run_dir):  # which, unlike rglob, does not mind what disappears meanwhile
        for name in names:
            if name == "metrics.jsonl":
                count += (Path(folder) / name).read_bytes().count(b"\n")
            elif name == records.MANIFEST or name.endswith(".parquet"):
                count += 1
    return count


def _run(recipe: Path, flags: Sequence[str], run_dir: Path, *, kill_after: int | None = None) -> int:
    """Run the recipe to its end, or until it has come so far; return how far that was."""
    command = [sys.executable, "-m", "coderl", "run", str(recipe), *flags, "--run-dir", str(run_dir), "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(os.environ)) as process:
        while kill_after is not None and process.poll() is None and num_steps_of(run_dir) < kill_after:
            time.sleep(POLL_S)
        if kill_after is not None and process.poll() is None:
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL if kill_after is not None else 0):
        lines = errors.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        raise InputError(f"{recipe}: the run ended with status {process.returncode}: {lines[-1]}")
    return num_steps_of(run_dir)


# -------------------------------------------------------------------------------------------------------- comparison


def compare(one: Path, other: Path) -> list[Comparison]:
    """Return, for each stage of two runs, whether all its files are the same, byte for byte, times left out.

    Times are the columns, figures and facts named in `CLOCKS`, the tables of costs, and in a manifest the hashes of
    files that hold such.
    """
    stages = sorted({p.parent.relative_to(run) for run in (one, other) for p in run.rglob(records.MANIFEST)})
    found = []
    for stage in stages:
        names = sorted({p.relative_to(run / stage) for run in (one, other) for p in _compared(run / stage)})
        differing = [str(name) for name in names if not _is_same(one / stage / name, other / stage / name)]
        found.append(Comparison(stage.as_posix(), len(names), tuple(differing)))
    return found


def _compared(stage: Path) -> list[Path]:
    if not (stage / records.MANIFEST).exists():
        return []
    return [p for p in records.visible_files(stage) if p.parent.name not in CLOCK_TABLES and _stage_of(p) == stage]


def _stage_of(file: Path) -> Path:
    """Return the stage that a file belongs to: the stages of an evaluation lie in folders of their own."""
    return next(folder for folder in file.parents if (folder / records.MANIFEST).exists())


def _is_same(one: Path, other: Path) -> bool:
    if not (one.exists() and other.exists()):
        return False
    if one.suffix == ".parquet":
        tables = [pq.read_table(path) for path in (one, other)]
        kept = [t.select([name for name in t.column_names if name not in CLOCKS]) for t in tables]
        return kept[0].equals(kept[1])
    if one.name == "metrics.jsonl":
        lines = [records.read_jsonl(path) for path in (one, other)]
        return _without_clocks(lines[0]) == _without_clocks(lines[1])
    if one.name == records.MANIFEST:
        return _without_times(records.read_json(one)) == _without_times(records.read_json(other))
    return records.hash_path(one) == records.hash_path(other)


def _without_times(manifest: dict[str, Any]) -> Any:
    """Return a manifest without times, and without the hashes of files that hold times."""
    hashes = manifest.get("outputs", {})
    kept = {n: h for n, h in hashes.items() if Path(n).name != "metrics.jsonl" and Path(n).parts[0] not in CLOCK_TABLES}
    return _without_clock_facts({**manifest, "outputs": kept})


def _without_clock_facts(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _without_clock_facts(each) for name, each in value.items() if name not in CLOCKS}


def _without_clocks(lines: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in lines]
