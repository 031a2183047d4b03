"""Commands for data sets of problems."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from coderl import problems as data
from coderl import records
from coderl.execution import ExecutionConfig, job_of, open_executor
from coderl.problems import jsonl
from coderl.problems.miniapps import data as miniapps
from coderl.stages.console import Reporter
from coderl.stages.reading import load_problems
from coderl.stages.stage import command
from coderl.types import Outcome


@command("problems miniapps")
def problems_miniapps(
    out: Path, *, config: Annotated[miniapps.MiniAppsConfig, Parameter(name="*")] = miniapps.MiniAppsConfig()
) -> None:
    """Write the generated benchmark as APPS folders: train, validation, test.

        coderl problems miniapps data/miniapps
        coderl problems miniapps data/other --seed 7

    Args:
        out: The folder to write; it must be empty or absent.
    """
    miniapps.write(out, config)
    print(out)


@command("problems check")
def problems_check(
    source: str,
    *,
    split: str | None = None,
    limit: int | None = None,
    config: Annotated[ExecutionConfig, Parameter(name="*")] = ExecutionConfig(),
) -> None:
    """Run the reference solutions of a data set on its tests and list those that fail.

        coderl problems check data/mbpp/mbpp.jsonl
        coderl problems check data/APPS/train --limit 100

    Args:
        source: A file or folder of problems, `miniapps`, or `hub:owner/name`.
        split: Only this split.
        limit: Only the first so many problems.
    """
    reporter = Reporter()
    problems, num_bad = load_problems(source, split=split, limit=limit, reporter=reporter)
    jobs = [(p, i, s) for p in problems if p.hidden_tests for i, s in enumerate(p.solutions)]
    failed: list[tuple[str, int, str]] = []
    num_faults = 0
    with open_executor(config) as executor:
        results = executor.run(job_of(p, s) for p, _, s in jobs)
        paired = zip(jobs, results, strict=True)
        for (p, i, _), result in reporter.track(paired, "checking", total=len(jobs), unit="solutions"):
            if result.outcome is None:
                num_faults += 1
                failed.append((p.problem.problem_id, i, f"sandbox: {result.fault}"))
            elif result.outcome is not Outcome.PASSED_TEST:
                detail = f"{result.outcome.name} {result.error_subtype or ''} {result.message}".strip()
                failed.append((p.problem.problem_id, i, detail))
    for problem_id, index, detail in failed:
        print(f"{problem_id} solution {index}: {detail}")
    num_untested = sum(not p.hidden_tests for p in problems)
    num_unsolved = sum(not p.solutions for p in problems)
    print(
        f"{len(jobs) - len(failed)} of {len(jobs)} reference solutions of {len(problems)} problems pass"
        f" ({num_untested} problems without tests, {num_unsolved} without solutions, {num_faults} sandbox faults)"
    )
    sys.exit(1 if failed or not jobs or num_bad else 0)


@command("problems convert")
def problems_convert(
    source: str, out: Path, *, split: str | None = None, limit: int | None = None, num_shown_tests: int | None = None
) -> None:
    """Write problems of any format as our own JSONL.

        coderl problems convert data/APPS/train apps_train.jsonl.gz

    Args:
        source: A file or folder of problems, `miniapps`, or `hub:owner/name`.
        out: The `.jsonl` or `.jsonl.gz` to write.
        split: Only this split.
        limit: Only the first so many problems.
        num_shown_tests: MBPP: how many of a task's asserts its prompt shows.
    """
    shown = {"num_shown_tests": num_shown_tests, "reporter": Reporter()}
    problems, num_bad = load_problems(source, split=split, limit=limit, **shown)
    jsonl.write(out, problems)
    print(f"{len(problems)} problems in {out}")
    if num_bad:
        sys.exit(1)


@command("problems overlap")
def problems_overlap(
    first: str,
    second: str,
    *,
    split: str | None = None,
    second_split: str | None = None,
    max_uses: int | None = 2,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Print how much of the solutions of one data set stands in another's: the contamination measure of section 4.5.

        coderl problems overlap data/mbpp/mbpp.jsonl data/APPS/train --json overlap.json

    Args:
        first: The data set that may be contaminated: a file or folder of problems, `miniapps`, or `hub:owner/name`.
        second: The data set that it may be contaminated by.
        split: Only this split of the first.
        second_split: Only this split of the second.
        max_uses: A line that stands more often in the first's solutions (`return x`) does not count.
        json_file: Also write the counts here, of every solution.
    """
    from coderl.problems.overlap import overlap

    found = overlap(data.load(first, split=split), data.load(second, split=second_split), max_uses=max_uses)
    total = len(found.programs)
    table = Table("programs of the first with", "number", "%", "paper: MBPP in APPS, %")
    for name, number, paper in (
        ("no shared line", found.num_disjoint, "52.8"),
        ("more than half of their lines shared", found.num_mostly_shared, "12.6"),
        ("at most 3 shared lines", found.num_at_most_3, "90.9"),
    ):
        table.add_row(name, str(number), f"{100 * number / total:.1f}", paper)
    Console().print(table)
    print(f"{total} programs compared with {found.num_other_programs}")
    if json_file:
        counts = {name: getattr(found, name) for name in ("num_disjoint", "num_mostly_shared", "num_at_most_3")}
        records.write_json(json_file, {"num_programs": total, **counts, **records.plain(found)})


@command("problems template")
def problems_template() -> None:
    """Print a file of one's own problems with one of each kind and comments, to begin from.

        coderl problems template > mine.jsonl

    `coderl problems check mine.jsonl` says what is wrong with it.
    """
    print(jsonl.TEMPLATE, end="")
