"""LeetCode problems whose tests call a method of `class Solution`, as in LeetCodeDataset.

Source: Xia et al. 2025, "LeetCodeDataset"; `newfacade/LeetCodeDataset` on the hub.
"""

from __future__ import annotations

import re
from typing import Any

from coderl.problems.assertions import assert_test
from coderl.problems.examples import extract as example_tests
from coderl.problems.json_files import text_field
from coderl.problems.unread import refuse_unread_tests
from coderl.types import InputError, LabelledProblem, Problem

_FIELDS = frozenset(
    {"task_id", "question_id", "difficulty", "problem_description", "starter_code", "prompt", "completion"}
    | {"entry_point", "test", "input_output", "query", "response"}
)
"""`input_output` says in text what `test` asserts; `query` and `response` are the same problem as a conversation."""
_ENTRY_POINT = re.compile(r"Solution\(\)\.(\w+)")


def is_entry_point(value: Any) -> bool:
    """Return True for the entry point that only this format has: `Solution().name`."""
    return isinstance(value, str) and _ENTRY_POINT.fullmatch(value) is not None


def problem(record: dict[str, Any], where: str) -> LabelledProblem:
    """Return the problem of one record.

    What the field `prompt` holds (imports, `ListNode`, `TreeNode` and how to make them) is the problem's prelude: it
    runs before every program, and the test begins with it too.

    Raises:
        InputError: a field is missing or malformed.
    """
    refuse_unread_tests(record, _FIELDS, where)
    found = _ENTRY_POINT.fullmatch(text_field(record, "entry_point", where))
    if found is None:
        raise InputError(f"{where}: field 'entry_point' must be Solution().name, found {record['entry_point']!r}")
    prelude = text_field(record, "prompt", where, default="").rstrip() + "\n"
    test = text_field(record, "test", where)
    description = text_field(record, "problem_description", where)
    if not description.strip():
        raise InputError(f"{where}: field 'problem_description' is empty")
    solution = text_field(record, "completion", where, default="")
    return LabelledProblem(
        Problem(
            text_field(record, "task_id", where).replace("/", "_"),
            description,
            text_field(record, "difficulty", where, default="unknown").lower(),
            found[1],
            text_field(record, "starter_code", where, default=""),
            example_tests.extract(description, fn_name=found[1]),
        ),
        hidden_tests=(assert_test(f"{prelude}\n{test.strip()}\n\ncheck({found[1]})\n", f"{where}: field 'test'"),),
        solutions=(solution,) if solution else (),
        prelude=prelude if prelude.strip() else "",
    )
