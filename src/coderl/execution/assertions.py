"""How an `AssertTest` is split between the program's process and those that may know the answer."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from typing import Any

from coderl.types import AssertTest, InputError


@dataclass(frozen=True, slots=True)
class Comparison:
    """`assert CALL == LITERAL` and its like: the program's process computes the left side, ours holds the right."""

    expression: str
    expected: Any
    tolerance: int | float | None = None
    """Of `abs(CALL - NUMBER) < tolerance`."""
    is_identity: bool = False
    """`is` a constant, and so of its type."""

    def holds(self, got: Any) -> bool:
        """Return True when Python would find the assertion true of this value; both are plain data."""
        try:
            if self.tolerance is not None:
                return isinstance(got, int | float | complex) and abs(got - self.expected) < self.tolerance
            if self.is_identity:
                return type(got) is type(self.expected) and got == self.expected
            return bool(got == self.expected)
        except (ArithmeticError, RecursionError, TypeError, ValueError):
            return False


@functools.lru_cache(maxsize=4096)
def split(test: AssertTest, fn_name: str | None) -> tuple[Comparison, ...] | None:
    """The comparisons that a test consists of, in order; None where its code needs a process of its own.

    They stand alone or as the body of `check(candidate)`. `assert CALL` and `assert not CALL` are comparisons too: the
    program's process says whether the value is true, not knowing which is wanted.

    Raises:
        InputError: the test is not Python that can be compiled.
    """
    try:
        tree = ast.parse(test.code)
        compile(tree, "<test>", "exec", dont_inherit=True)
        compile(test.setup, "<setup>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = getattr(error, "msg", None) or str(error) or type(error).__name__
        raise InputError(f"a test is not Python: {reason}: {test.code[:80]!r}") from None
    statements, called = _assertions(tree.body, fn_name)
    found: list[Comparison] = []
    for statement in statements:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant | ast.Name):
            continue
        if not isinstance(statement, ast.Assert):
            return None
        if isinstance(statement.test, ast.Constant) and statement.test.value:
            continue
        try:
            comparison = _comparison(statement.test, fn_name, called)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, ArithmeticError):
            return None
        if comparison is None:
            return None
        found.append(comparison)
    return tuple(found) or None


def _assertions(body: list[ast.stmt], fn_name: str | None) -> tuple[list[ast.stmt], str | None]:
    """The statements that assert, and the name by which they call the function under test."""
    *before, definition, call = [None, None, *(s for s in body if not _is_note(s))]
    if before != [None, None] or not isinstance(definition, ast.FunctionDef) or not isinstance(call, ast.Expr):
        return body, fn_name
    arguments = definition.args
    names = arguments.posonlyargs + arguments.args
    is_check = ast.unparse(call) == f"{definition.name}({fn_name})" and not definition.decorator_list
    if not is_check or len(names) != 1 or arguments.vararg or arguments.kwarg or arguments.kwonlyargs:
        return body, fn_name
    return definition.body, names[0].arg


def _is_note(statement: ast.stmt) -> bool:
    """Whether it is data that says nothing of the program: HumanEval's `METADATA = {...}`."""
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "METADATA"


def _comparison(condition: ast.expr, fn_name: str | None, called: str | None) -> Comparison | None:
    if _is_call(condition, called):
        return Comparison(f"not not ({_text(condition, fn_name, called)})", True)
    if isinstance(condition, ast.UnaryOp) and isinstance(condition.op, ast.Not) and _is_call(condition.operand, called):
        return Comparison(f"not not ({_text(condition.operand, fn_name, called)})", False)
    if not isinstance(condition, ast.Compare) or len(condition.ops) != 1:
        return None
    left, operator, right = condition.left, condition.ops[0], condition.comparators[0]
    if _is_call(left, called) and isinstance(operator, ast.Eq):
        return Comparison(_text(left, fn_name, called), ast.literal_eval(right))
    if _is_call(left, called) and isinstance(operator, ast.Is) and isinstance(right, ast.Constant):
        constant = right.value
        is_single = constant is None or isinstance(constant, bool)
        return Comparison(_text(left, fn_name, called), constant, is_identity=True) if is_single else None
    if not isinstance(operator, ast.Lt) or not isinstance(left, ast.Call) or ast.unparse(left.func) != "abs":
        return None
    (distance,) = left.args
    if (
        not isinstance(distance, ast.BinOp)
        or not isinstance(distance.op, ast.Sub)
        or not _is_call(distance.left, called)
    ):
        return None
    return Comparison(_text(distance.left, fn_name, called), _number(distance.right), tolerance=_number(right))


def _is_call(node: ast.expr, called: str | None) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and called in (None, node.func.id)


def _text(call: ast.expr, fn_name: str | None, called: str | None) -> str:
    """The call as the program's process is to make it: by the function's own name, wherever it is named."""
    if called != fn_name:
        for node in ast.walk(call):
            if isinstance(node, ast.Name) and node.id == called:
                node.id = fn_name or node.id
    return ast.unparse(call)


def _number(node: ast.expr) -> int | float:
    """A number written as one, or as a quotient of two."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return _number(node.left) / _number(node.right)
    value = ast.literal_eval(node)
    if type(value) not in (int, float):
        raise ValueError("not a number")
    return value
