"""What a reader must know before believing a run's figures, in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from coderl import records, tables
from coderl.evaluation.report import HeadlineRow
from coderl.types import Program

Facts = list[tuple[str, dict[str, Any]]]
"""The finished stages of a run, with what each recorded."""
MANY = 0.5
"""The share of programs that do not compile from which on it is said."""
_MAX_READ = 10_000
"""Programs of a stage that are searched for Markdown."""
_OUTCOMES = ("compile_error", "runtime_error", "failed_test", "passed_test")


def warnings_of(run_dir: Path, facts: Facts, rows: Sequence[HeadlineRow]) -> list[str]:
    """Return every warning about a run: its rounds, its sandbox, its critics, and what is not reported."""
    found = [line for name, f in facts if "outcomes" in f for line in _of_programs(run_dir, name, f["outcomes"])]
    found += [line for name, f in facts if f.get("num_held_out") for line in _of_critic(run_dir, name, f)]
    remarks: dict[str, list[str]] = {}
    for row in rows:
        for line in row.summary.remarks():
            remarks.setdefault(line, []).append(f"{row.stage} ({row.decoding})")
    return [*found, *(f"{', '.join(names) if len(names) < len(rows) else 'All'}: {x}." for x, names in remarks.items())]


def _of_programs(run_dir: Path, stage: str, outcomes: dict[str, int]) -> Iterator[str]:
    """Yield what is wrong with the programs that an execute stage ran."""
    judged = sum(outcomes.get(name, 0) for name in _OUTCOMES)
    if faults := outcomes.get("sandbox_fault", 0):
        yield f"The sandbox failed on {faults:,} of {judged + faults:,} programs of {stage}: they count for nothing."
    if not judged or stage.endswith("/examples"):
        return
    if stage.startswith("round-") and outcomes.get("passed_test", 0) == 0:
        yield f"None of the {judged:,} programs of {stage} passed: there was no right program to learn from."
    num_broken = outcomes.get("compile_error", 0)
    if num_broken >= MANY * judged:
        yield f"{num_broken:,} of {judged:,} programs of {stage} do not compile."
    if num_broken and (fenced := _num_fenced(run_dir / Path(stage).parent / "sample" / "programs")):
        yield f"{fenced:,} programs of {stage} hold a Markdown fence (```): their code was not taken out of the text."


def _num_fenced(table: Path) -> int:
    """Return how many of the first programs of a table have a line that opens a Markdown block."""
    if not table.exists():
        return 0
    codes = (code for batch in tables.read_columns(table, Program, ["code"]) for code in batch["code"].to_pylist())
    return sum(any(line.startswith("```") for line in code.split("\n")) for code in islice(codes, _MAX_READ))


def _of_critic(run_dir: Path, stage: str, facts: dict[str, Any]) -> Iterator[str]:
    """Yield where a critic is no better than chance, on programs of problems that it has not seen."""
    accuracy, majority = facts["accuracy"], facts["majority_accuracy"]
    if accuracy <= majority:
        yield (
            f"The critic of {stage} names the outcome of {100 * accuracy:.1f}% of held-out programs; naming the "
            f"commonest outcome always is right for {100 * majority:.1f}%."
        )
    path = run_dir / stage / "calibration.json"
    confusion = records.read_json(path)["confusion"] if path.exists() else [[0]]
    passed, failed = sum(confusion[-1]), sum(map(sum, confusion[:-1]))
    if not passed or not failed:
        yield f"The critic of {stage} was measured on {passed:,} held-out programs that pass and {failed:,} that fail."
        return
    # Mann and Whitney: the standard error of the AUROC of a critic that knows nothing.
    chance = 1.96 * math.sqrt((passed + failed + 1) / (12 * passed * failed))
    if facts["auroc"] <= 0.5 + chance:
        yield (
            f"The critic of {stage} tells passing programs no better than chance does: AUROC {facts['auroc']:.2f} on "
            f"{passed:,} that pass and {failed:,} that fail, where chance reaches {0.5 + chance:.2f}."
        )
