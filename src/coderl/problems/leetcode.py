"""LeetCode problems whose tests call a method of `class Solution`, as in LeetCodeDataset.

Source: Xia et al. 2025, "LeetCodeDataset"; `newfacade/LeetCodeDataset` on the hub.
"""

from __future__ import annotations

import re
from typing import Any

from coderl.problems.assertions import assert_test, python_source
from coderl.problems.examples import extract as example_tests
from coderl.problems.json_files import text_field
from coderl.problems.unread import refuse_unread_tests
from coderl.types import AssertTest, InputError, LabelledProblem, Problem

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
    runs before every program, and the test begins with it too. Lists and trees cross between the two as plain values:
    what follows the program in its process (`_SETUP`) makes nodes of them and back, and the test compares values.

    Raises:
        InputError: a field is missing or malformed.
    """
    refuse_unread_tests(record, _FIELDS, where)
    found = _ENTRY_POINT.fullmatch(text_field(record, "entry_point", where))
    if found is None:
        raise InputError(f"{where}: field 'entry_point' must be Solution().name, found {record['entry_point']!r}")
    prelude = python_source(text_field(record, "prompt", where, default="").rstrip() + "\n", f"{where}: field 'prompt'")
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
            prelude=prelude if prelude.strip() else "",
        ),
        hidden_tests=(_test(prelude, test, found[1], f"{where}: field 'test'"),),
        solutions=(solution,) if solution else (),
    )


def _test(prelude: str, test: str, name: str, where: str) -> AssertTest:
    if not re.search(r"^class (?:ListNode|TreeNode)\b", prelude, flags=re.MULTILINE):
        return assert_test(f"{prelude}\n{test.strip()}\n\ncheck({name})\n", where)
    code = f"{prelude}\n{_NODES_AS_VALUES}\n{test.strip()}\n\ncheck(_call_with_nodes)\n"
    return assert_test(code, where, _SETUP.replace("NAME", name))


_NODES_AS_VALUES = """\
def list_node(values):
    return {"ListNode": list(values)} if values else None

def tree_node(values):
    values = list(values or [])
    while values and values[-1] is None:
        values.pop()
    return {"TreeNode": values} if values else None

def is_same_list(a, b):
    return a == b

is_same_tree = is_same_list
"""

_SETUP = """\
def _call_with_nodes(*args, **kwargs):
    result = Solution().NAME(*map(_nodes, args), **{key: _nodes(value) for key, value in kwargs.items()})
    return _values_of(result)

def _nodes(value):
    if isinstance(value, list):
        return [_nodes(item) for item in value]
    if not isinstance(value, dict) or len(value) != 1:
        return value
    if "ListNode" in value:
        head = None
        for item in reversed(value["ListNode"]):
            node = ListNode(item)
            node.next, head = head, node
        return head
    if "TreeNode" in value:
        items = iter(value["TreeNode"])
        root = TreeNode(next(items))
        parents = [root]
        for parent in parents:
            for side in ("left", "right"):
                item = next(items, None)
                if item is not None:
                    setattr(parent, side, TreeNode(item))
                    parents.append(getattr(parent, side))
        return root
    return value

def _values_of(value):
    kind = type(value).__name__
    if kind == "ListNode":
        items = []
        while value is not None and len(items) < 1_000_000:  # a wrong program may make a ring
            items.append(value.val)
            value = value.next
        return {kind: items}
    if kind == "TreeNode":
        items, nodes = [], [value]
        for node in nodes:
            items.append(None if node is None else node.val)
            if node is not None and len(nodes) < 1_000_000:
                nodes += [node.left, node.right]
        while items[-1] is None:
            items.pop()
        return {kind: items}
    return [_values_of(item) for item in value] if isinstance(value, list) else value
"""
