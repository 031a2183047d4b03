"""HumanEval: complete a Python function from its signature and docstring.

Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code".
"""

from __future__ import annotations

import ast
from typing import Any

from coderl.problems.examples import extract as example_tests
from coderl.problems.json_files import text_field
from coderl.problems.literals import parse_program
from coderl.types import (
    AssertTest,
    InputError,
    LabelledProblem,
    Problem,
)


def problem(record: dict[str, Any], where: str) -> LabelledProblem:
    """Return the problem of one record: the code to complete is the starter code, its docstring the description.

    Raises:
        InputError: a field is missing or malformed.
    """
    prompt, fn_name, test = (text_field(record, name, where) for name in ("prompt", "entry_point", "test"))
    if not prompt.strip():
        raise InputError(f"{where}: the prompt is empty")
    body = text_field(record, "canonical_solution", where, default="")
    description = _docstring(prompt, fn_name) or prompt
    return LabelledProblem(
        Problem(
            text_field(record, "task_id", where).replace("/", "_"),
            description,
            fn_name=fn_name,
            starter_code=prompt,
            example_tests=example_tests.extract(description, fn_name=fn_name),
        ),
        hidden_tests=(AssertTest(f"{test.strip()}\n\ncheck({fn_name})\n"),),
        solutions=(prompt + body,) if body else (),
    )


def _docstring(prompt: str, fn_name: str) -> str | None:
    tree = parse_program(prompt)
    nodes = ast.walk(tree) if tree else ()
    return next((ast.get_docstring(n) for n in nodes if isinstance(n, ast.FunctionDef) and n.name == fn_name), None)
