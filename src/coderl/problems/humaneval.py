"""HumanEval: complete a Python function from its signature and docstring.

Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code".
"""

from __future__ import annotations

import ast
from typing import Any

from coderl.problems.assertions import assert_test
from coderl.problems.examples import extract as example_tests
from coderl.problems.json_files import text_field
from coderl.problems.literals import parse_program
from coderl.problems.unread import refuse_unread_tests
from coderl.types import (
    AssertTest,
    InputError,
    LabelledProblem,
    Problem,
)

_FIELDS = frozenset({"task_id", "prompt", "entry_point", "canonical_solution", "test", "example_test"})


def problem(record: dict[str, Any], where: str) -> LabelledProblem:
    """Return the problem of one record: the code to complete is the starter code, its docstring the description.

    Raises:
        InputError: a field is missing or malformed.
    """
    refuse_unread_tests(record, _FIELDS, where)
    prompt, fn_name, test = (text_field(record, name, where) for name in ("prompt", "entry_point", "test"))
    if not prompt.strip():
        raise InputError(f"{where}: the prompt is empty")
    if not fn_name.isidentifier():
        raise InputError(f"{where}: field 'entry_point' must name a function, found {fn_name!r}")
    body = text_field(record, "canonical_solution", where, default="")
    description = docstring_of(prompt, fn_name) or prompt
    shown = text_field(record, "example_test", where, default="")
    return LabelledProblem(
        Problem(
            text_field(record, "task_id", where).replace("/", "_"),
            description,
            fn_name=fn_name,
            starter_code=prompt,
            example_tests=(
                (_check(shown, fn_name, f"{where}: field 'example_test'"),)
                if shown.strip()
                else example_tests.extract(description, fn_name=fn_name)
            ),
        ),
        hidden_tests=(_check(test, fn_name, f"{where}: field 'test'"),),
        solutions=(prompt + body,) if body else (),
    )


def _check(test: str, fn_name: str, where: str) -> AssertTest:
    return assert_test(f"{test.strip()}\n\ncheck({fn_name})\n", where)


def docstring_of(prompt: str, fn_name: str) -> str | None:
    """Return the docstring of a function in code to complete, None where it has none."""
    tree = parse_program(prompt)
    nodes = ast.walk(tree) if tree else ()
    return next((ast.get_docstring(n) for n in nodes if isinstance(n, ast.FunctionDef) and n.name == fn_name), None)
