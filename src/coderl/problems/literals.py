"""Python text that is read and never run: literals of statements, the syntax trees of programs."""

from __future__ import annotations

import ast
import io
import itertools
import tokenize
import warnings
from typing import Any

_NAMES = {"true": True, "false": False, "null": None}
"""How statements written for other languages name Python's constants."""

_MAX_CHARS = 2000


def parse_program(text: str) -> ast.Module | None:
    """Return the syntax tree of a program, None for text that does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "1is" and "\\d" warn; that is their author's affair
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def literal(text: str) -> tuple[Any] | None:
    """Return (value,) for text that writes one JSON value in Python's or JavaScript's way, None for all else.

    Tuples become lists, as in every JSON file of tests.
    """
    values = literals(text)
    return values if values is not None and len(values) == 1 else None


def literals(text: str) -> tuple[Any, ...] | None:
    """Return the values of text that lists literals between commas, `name = ` before them or not; None for all else."""
    if not text.strip() or len(text) > _MAX_CHARS or _has_neighbouring_strings(text):
        return None
    match parse_program(f"f({text.strip()})"):
        case ast.Module(body=[ast.Expr(value=ast.Call(func=ast.Name(), args=args, keywords=keywords))]):
            values = [_value(node) for node in (*args, *(keyword.value for keyword in keywords))]
            is_plain = all(keyword.arg for keyword in keywords) and all(value is not None for value in values)
            return tuple(value[0] for value in values if value is not None) if is_plain else None
    return None


def _has_neighbouring_strings(text: str) -> bool:
    """True for `"a" "b"`: two strings that Python would join and their author meant as two."""
    try:
        kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(f"({text.strip()})").readline)]
    except (tokenize.TokenError, SyntaxError):
        return False
    kinds = [kind for kind in kinds if kind != tokenize.NL]
    return any(a == b == tokenize.STRING for a, b in itertools.pairwise(kinds))


def _value(node: ast.expr) -> tuple[Any] | None:
    match node:
        case ast.Name(id=name) if name in _NAMES:
            return (_NAMES[name],)
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return (value,)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant(value=int() | float() as value)):
            return None if isinstance(value, bool) else (-value if isinstance(sign, ast.USub) else value,)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            values = [_value(item) for item in items]
            return None if None in values else ([value[0] for value in values if value is not None],)
        case ast.Dict(keys=keys, values=items):
            return _dict_value(keys, items)
    return None


def _dict_value(keys: list[ast.expr | None], items: list[ast.expr]) -> tuple[dict[str, Any]] | None:
    """A dictionary with text keys, the only ones that JSON has."""
    names = [key.value if isinstance(key, ast.Constant) else None for key in keys]
    values = [_value(item) for item in items]
    if None in values or not all(isinstance(name, str) for name in names):
        return None
    return (dict(zip(map(str, names), (value[0] for value in values if value is not None), strict=True)),)
