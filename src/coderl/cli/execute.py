"""The command that runs programs on unit tests: the stage `execute`, also for samples files, and by two comparators."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from coderl import records, tables
from coderl.cli.reading import load_problems
from coderl.evaluation.counts import CLOCKS, JUDGED
from coderl.evaluation.figures import outcome_words
from coderl.execution import ExecutionConfig
from coderl.extraction import Extract
from coderl.interop import grade
from coderl.stages import execute as stage
from coderl.stages.console import Reporter
from coderl.stages.stage import command
from coderl.types import InputError, Outcome


@command("execute")
def execute(
    *,
    programs: Path | None = None,
    samples: Path | None = None,
    problems: str,
    out: Path,
    split: str | None = None,
    limit: int | None = None,
    tests: Literal["hidden", "example"] = "hidden",
    extract: Extract = "none",
    compare: Literal["strict", "apps", "exact"] | None = None,
    config: Annotated[ExecutionConfig, Parameter(name="*")] = ExecutionConfig(),
) -> None:
    """Run programs on unit tests in the sandbox; a killed command continues.

        coderl execute --programs runs/mbpp/sample --problems data/mbpp/mbpp.jsonl --out runs/mbpp/execute
        coderl execute --samples samples.jsonl --problems data/humaneval/HumanEval.jsonl --out runs/he
        coderl execute --programs runs/apps/sample --problems data/APPS/test --out runs/apps/execute \
            --comparator apps --compare strict --store-path runs/verdicts.sqlite

    Args:
        programs: The folder of a `sample` or `critic-sample` stage.
        samples: In its place, a file as HumanEval and EvalPlus write it, with `task_id` and `completion` or
            `solution`; the verdicts then also go to OUT/results.jsonl.
        problems: Where the programs' problems are.
        out: The stage's folder; the verdicts go to OUT/verdicts.
        split: Only this split of the problems.
        limit: Only the first so many problems.
        tests: The hidden tests, or those that the statements show.
        extract: What is taken of a sample: all of it, the program in a chat model's answer (`code`), or that only where
            the text as it is does not compile (`auto`).
        compare: Also judge by this comparator and list the verdicts that differ (OUT/flips.jsonl).
    """
    reporter = Reporter()
    loaded, num_bad = load_problems(problems, split=split, limit=limit, reporter=reporter)
    if (programs is None) == (samples is None):
        raise InputError("give either --programs or --samples")
    given = {"problems": loaded, "tests": tests, "reporter": reporter}
    if samples is not None:
        programs = out / "sample"
        facts = grade.judge(out, samples, config=config, extract=extract, **given)
    else:
        facts = stage.execute(out, programs=programs, config=config, **given)
    if compare is not None:
        other = out / f"by-{compare}"
        other_config = config.model_copy(update={"comparator": compare})
        stage.execute(other, programs=programs, config=other_config, **given)
        _print_flips(out, other, config.comparator, compare)
    reporter.facts(facts, out)
    if num_bad or facts.get("num_bad_records"):
        sys.exit(1)


def _print_flips(first: Path, second: Path, name: str, other_name: str) -> None:
    """List the programs on which two comparators disagree."""
    read = [tables.read_table(folder / "verdicts", JUDGED, without=CLOCKS) for folder in (first, second)]
    pairs = zip(*read, strict=True)  # of one program each
    flips = [
        (key, ours.outcome, theirs.outcome) for (key, ours), (_, theirs) in pairs if ours.outcome != theirs.outcome
    ]
    records.write_jsonl(
        first / "flips.jsonl",
        (
            {
                "problem_id": at.problem_id,
                "kind": at.kind,
                "index": at.index,
                name: _outcome_name(a),
                other_name: _outcome_name(b),
            }
            for at, a, b in flips
        ),
    )
    table = Table(name, other_name, "programs")
    for (a, b), number in Counter((_outcome_name(a), _outcome_name(b)) for _, a, b in flips).most_common():
        table.add_row(a, b, str(number))
    if flips:
        Console().print(table)
    total = tables.num_rows(first / "verdicts")
    print(f"{len(flips)} of {total} verdicts differ between {name} and {other_name}: {first / 'flips.jsonl'}")


def _outcome_name(outcome: Outcome | None) -> str:
    return "sandbox fault" if outcome is None else outcome_words(outcome)
