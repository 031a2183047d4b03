"""The stage that runs programs on unit tests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from coderl import tables
from coderl.evaluation.counts import CLOCKS, JUDGED, outcome_counts
from coderl.execution import ExecutionConfig, Job, job_of, open_executor
from coderl.execution.config import refuse_faults, sandbox_faults
from coderl.execution.store import JobRunner
from coderl.stages.stage import Facts, Labelled, Programs, Work, stage
from coderl.types import InputError, LabelledProblem, Program, ProgramKey, Verdict

NOT_COSTS = tuple(column.name for column in tables.columns_of(Verdict) if column.name not in CLOCKS)


@stage(shared="parts")
def execute(
    work: Work,
    *,
    programs: Programs,
    problems: Labelled,
    tests: Literal["hidden", "example"] = "hidden",
    config: ExecutionConfig = ExecutionConfig(),
) -> Facts:
    r"""Run programs on unit tests in the sandbox.

        coderl execute --programs runs/mbpp/sample --problems data/mbpp/mbpp.jsonl --out runs/mbpp/execute
        coderl execute --programs runs/apps/sample --problems data/APPS/test --out runs/apps/execute \
            --comparator apps --store-path runs/verdicts.sqlite

    The verdicts go to OUT/verdicts, what they took to OUT/costs. Programs of problems without such tests get no
    verdict and are counted, and so do those whose tests cannot be judged; the fault says why. A killed command
    continues.

    Args:
        tests: The hidden tests, or those that the statements show.

    Raises:
        InputError: a program belongs to no problem given.
        SandboxError: the sandbox itself failed on too many programs to trust the rest.
    """
    parts = tables.parts_of(programs / "programs")
    if not parts:
        raise InputError(f"{programs}: no programs in it")
    verdicts = tables.PartedTable(work.folder / "verdicts", JUDGED, without=CLOCKS)
    costs = tables.PartedTable(work.folder / "costs", JUDGED, without=NOT_COSTS)
    sizes = [tables.num_rows(part) for part in parts]
    by_id = {p.problem.problem_id: p for p in problems}
    num_seen, faults = 0, list[str]()
    with ExitStack() as stack:
        executor: JobRunner | None = None
        for index, part in work.parts(verdicts, parts, "running tests", "programs", sizes):
            executor = executor or stack.enter_context(open_executor(config))
            judged = _run_part(executor, part, by_id, tests, work.did)
            num_seen += len(judged)
            faults += sandbox_faults(verdict for _, verdict in judged)
            refuse_faults(faults, num_seen)
            costs.write(index, judged)
            verdicts.write(index, judged)  # last: a part is done when its verdicts are there
    return work.facts(lambda: _facts(verdicts, costs, sum(sizes)))


def _run_part(
    executor: JobRunner, part: Path, by_id: dict[str, LabelledProblem], tests: str, did: Callable[[], None]
) -> list[tuple[ProgramKey, Verdict]]:
    """Return the verdicts on the programs of a part of a table that have tests.

    Only one part's programs are held at a time, and their tokens, which no test needs, never.
    """
    rows = [(row.key, _job(row, by_id, tests)) for row in tables.read_table(part, Program, without=["tokens"])]
    tested = [(key, job) for key, job in rows if job is not None]
    judged: list[tuple[ProgramKey, Verdict]] = []
    for (key, _), verdict in zip(tested, executor.run(job for _, job in tested), strict=True):
        judged.append((key, verdict))
        did()
    return judged


def _facts(verdicts: tables.PartedTable, costs: tables.PartedTable, num_programs: int) -> Facts:
    outcomes = outcome_counts(verdicts.folder)
    spent = sum(float(b["cpu_s"].to_numpy().sum()) for b in tables.read_columns(costs.folder, JUDGED, ["cpu_s"]))
    num_untested = num_programs - sum(outcomes.values())
    return {"outcomes": outcomes, "num_untested": num_untested, "sandbox_cpu_s": round(spent, 2)}


def _job(program: Program, by_id: dict[str, LabelledProblem], tests: str) -> Job | None:
    labelled = by_id.get(program.problem_id)
    if labelled is None:
        raise InputError(f"program of problem {program.problem_id!r}, which is not among the {len(by_id)} problems")
    unit_tests = labelled.hidden_tests if tests == "hidden" else labelled.problem.example_tests
    if not unit_tests:
        return None
    return job_of(labelled, program.code, unit_tests)
