"""Python text that is read and never run: literals of statements, the syntax trees of programs."""

from __future__ import annotations

import ast
import warnings
from typing import Any

_NAMES = {"true": True, "false": False, "null": None}
"""How statements written for other languages name Python's constants."""

_MAX_CHARS = 2000


def literal(text: str) -> tuple[Any] | None:
    """Return (value,) for text that writes a JSON value in Python's or JavaScript's way, None for all else.

    Tuples become lists, as in every JSON file of tests.
    """
    node = parse_expression(text)
    return None if node is None else value_of(node)


def parse_program(text: str) -> ast.Module | None:
    """Return the syntax tree of a program, None for text that does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "1is" and "\\d" warn; that is their author's affair
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def parse_expression(text: str) -> ast.expr | None:
    """Return the syntax tree of one short expression, None for all other text."""
    tree = parse_program(text.strip()) if len(text) <= _MAX_CHARS else None
    match tree:
        case ast.Module(body=[ast.Expr(value=expression)]):
            return expression
    return None


def value_of(node: ast.expr) -> tuple[Any] | None:
    """Return (value,) for a syntax tree that is a JSON value, None for all else."""
    match node:
        case ast.Name(id=name) if name in _NAMES:
            return (_NAMES[name],)
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return (value,)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant(value=int() | float() as value)):
            return None if isinstance(value, bool) else (-value if isinstance(sign, ast.USub) else value,)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            values = [value_of(item) for item in items]
            return None if None in values else ([value[0] for value in values if value is not None],)
        case ast.Dict(keys=keys, values=items):
            return _dict_value(keys, items)
    return None


def _dict_value(keys: list[ast.expr | None], items: list[ast.expr]) -> tuple[dict[str, Any]] | None:
    """A dictionary with text keys, the only ones that JSON has."""
    names = [key.value if isinstance(key, ast.Constant) else None for key in keys]
    values = [value_of(item) for item in items]
    if None in values or not all(isinstance(name, str) for name in names):
        return None
    return (dict(zip(map(str, names), (value[0] for value in values if value is not None), strict=True)),)
