"""How an `AssertTest` is split between the program's process and those that may know the answer."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from typing import Any

from coderl.types import AssertTest, InputError


@dataclass(frozen=True, slots=True)
class Comparison:
    """`assert CALL == LITERAL`: the program's process computes the left side, ours holds the right."""

    expression: str
    expected: Any


@functools.lru_cache(maxsize=4096)
def split(test: AssertTest, fn_name: str | None) -> Comparison | None:
    """The comparison that a test consists of; None where its code needs a process of its own.

    `assert CALL` and `assert not CALL` are comparisons too: the program's process says whether the value is true, not
    knowing which is wanted.

    Raises:
        InputError: the test is not Python.
    """
    try:
        body = ast.parse(test.code).body
        ast.parse(test.setup)
    except SyntaxError as error:
        raise InputError(f"a test is not Python: {error.msg}: {test.code[:80]!r}") from None
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        return None
    condition = body[0].test
    if _is_call(condition, fn_name):
        return Comparison(f"not not ({ast.unparse(condition)})", True)
    if (
        isinstance(condition, ast.UnaryOp)
        and isinstance(condition.op, ast.Not)
        and _is_call(condition.operand, fn_name)
    ):
        return Comparison(f"not not ({ast.unparse(condition.operand)})", False)
    if not isinstance(condition, ast.Compare) or len(condition.ops) != 1 or not isinstance(condition.ops[0], ast.Eq):
        return None
    if not _is_call(condition.left, fn_name):
        return None
    try:
        expected = ast.literal_eval(condition.comparators[0])
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return Comparison(ast.unparse(condition.left), expected)


def _is_call(node: ast.expr, fn_name: str | None) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and fn_name in (None, node.func.id)


def holds(got: Any, expected: Any) -> bool:
    """Return True when Python would call the two equal; both are plain data."""
    try:
        return bool(got == expected)
    except (ArithmeticError, RecursionError, TypeError, ValueError):
        return False
