"""MBPP, full (`mbpp.jsonl`) and sanitized (`sanitized-mbpp.json`).

Source: Austin et al. 2021, "Program Synthesis with Large Language Models"; CodeRL section 4.5.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections import Counter
from typing import Any

from coderl.problems.assertions import assert_test
from coderl.problems.json_files import text_field, texts_field
from coderl.problems.literals import parse_program
from coderl.problems.unread import refuse_unread_tests
from coderl.types import (
    AssertTest,
    InputError,
    LabelledProblem,
    Problem,
)

SPLITS = {"prompt": range(1, 11), "test": range(11, 511), "validation": range(511, 601), "train": range(601, 975)}
"""The official splits by task id; `prompt` holds the few-shot examples."""


_FIELDS = frozenset(
    {"task_id", "text", "prompt", "code", "test_list", "test_setup_code", "test_imports", "challenge_test_list", "test"}
)


def split_of(record: dict[str, Any]) -> str | None:
    """Return the split to which the authors assigned a record, None for a task id that is not theirs."""
    return next((name for name, ids in SPLITS.items() if record.get("task_id") in ids), None)


def problem(record: dict[str, Any], where: str, *, num_shown_tests: int | None = None) -> LabelledProblem:
    """Return the problem of one record; its `challenge_test_list` grades nothing, as in the official evaluation.

    MBPP+ as it stands on the hub has a field `test` with many more inputs and their outputs: it grades too.

    Args:
        record: its fields, of either edition.
        where: its place in the file, for complaints.
        num_shown_tests: None for the official setting, where the prompt shows every test and all of them grade; a
            number k < len(tests) shows the first k, and only the others grade; a larger one is the official setting.

    Raises:
        InputError: a field is missing or malformed.
    """
    refuse_unread_tests(record, _FIELDS, where)
    task_id = record.get("task_id")
    if not isinstance(task_id, int):
        raise InputError(f"{where}: field 'task_id' must be a number, found {task_id!r}")
    description = text_field(record, "prompt" if "prompt" in record else "text", where)
    if not description.strip():
        raise InputError(f"{where}: the task's text is empty")
    solution = _newlines(text_field(record, "code", where))
    asserts = texts_field(record, "test_list", where)
    tests = _tests("test_list", record, where)
    num_shown = len(tests) if num_shown_tests is None else num_shown_tests
    hidden = tests[num_shown:] if num_shown < len(tests) else tests
    if plus := text_field(record, "test", where, default=""):
        hidden += (assert_test(_newlines(plus), f"{where}: field 'test'"),)
    return LabelledProblem(
        Problem(
            f"mbpp_{task_id}",
            _newlines(description),
            fn_name=fn_name_of(asserts, solution),
            example_tests=tests[:num_shown],
        ),
        hidden_tests=hidden,
        solutions=(solution,),
    )


def _tests(name: str, record: dict[str, Any], where: str) -> tuple[AssertTest, ...]:
    """Imports run with the assert; set-up code runs after the program, whose classes tasks 367 and 927 use in it."""
    setup = _newlines(text_field(record, "test_setup_code", where, default=""))
    imports = "".join(f"{line}\n" for line in texts_field(record, "test_imports", where))
    return tuple(
        assert_test(imports + _newlines(code).strip(), f"{where}: field '{name}[{index}]'", setup)
        for index, code in enumerate(texts_field(record, name, where))
    )


def _newlines(text: str) -> str:
    return re.sub(r"\r\n?", "\n", text)


def fn_name_of(asserts: tuple[str, ...], solution: str) -> str | None:
    """Return the function that every assert calls, preferring one that the solution defines; None without one.

    `assert set(similar((1, 2))) == {1}` calls `set` as well: methods of modules are not candidates, and builtins only
    where the solution defines that name itself.
    """
    counts: Counter[str] = Counter()
    for code in asserts:
        counts.update(list(dict.fromkeys(_called_names(code))))
    calls = [name for name, count in counts.items() if count == len(asserts)]
    defined = _defined_names(solution)
    names = [name for name in calls if name in defined] or [name for name in calls if not hasattr(builtins, name)]
    return names[0] if names else None


def _called_names(code: str) -> list[str]:
    tree = parse_program(code)
    functions = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call)) if tree else ()
    return [function.id for function in functions if isinstance(function, ast.Name)]


def _defined_names(solution: str) -> set[str]:
    tree = parse_program(solution)
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)} if tree else set()
