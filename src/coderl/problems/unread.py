"""Tests that no reader uses: a field that carries some is refused by name, never dropped silently."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from coderl.problems.literals import parse_program
from coderl.types import InputError

_NAME = re.compile(
    r"(?:^|[_\W])(?:tests?|testcases?|inputs?|outputs?|asserts?|assertions?|cases?|examples?)(?:$|[_\W])"
)
_MAX_CHARS = 1 << 20
"""Of a text that is parsed to see whether it holds tests; a longer one in a field so named is taken for them."""


def refuse_unread_tests(record: Mapping[str, Any], read: Collection[str], where: str) -> None:
    """Refuse a record with a field that looks like tests, by its name or by what it holds, and that no reader reads.

    Args:
        record: the fields of a problem.
        read: the fields that the reader of its format uses, or knows to hold no test that counts.
        where: the record's place, for the complaint.

    Raises:
        InputError: there is such a field.
    """
    for name, value in record.items():
        if name not in read and _looks_like_tests(name, value):
            raise InputError(
                f"{where}: field '{name}' looks like tests, and no reader of this format uses it; "
                "write the problem as our own JSON lines (`coderl problems template`), or take the field out"
            )


def _looks_like_tests(name: str, value: Any) -> bool:
    if value is None or value in ("", [], {}) or isinstance(value, bool | int | float):
        return False
    value = _decoded(value) if isinstance(value, str) else value
    is_named = bool(_NAME.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))
    if isinstance(value, str):
        return _is_test_code(value) or (is_named and len(value) > _MAX_CHARS)
    return is_named or _holds_tests(value)


def _decoded(text: str) -> Any:
    """The value of a text that is JSON, else the text itself."""
    if text.lstrip()[:1] not in ("[", "{") or len(text) > _MAX_CHARS:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _holds_tests(value: Any) -> bool:
    """Whether a list or an object is made of assertions, or of inputs beside outputs."""
    if isinstance(value, Mapping):
        keys = {str(key).lower().rstrip("s") for key in value}
        return bool(keys & {"input", "stdin", "arg"}) and bool(
            keys & {"output", "stdout", "expected", "expected_output"}
        )
    if isinstance(value, list):
        return any(_is_test_code(item) if isinstance(item, str) else _holds_tests(item) for item in value[:20])
    return False


def _is_test_code(text: str) -> bool:
    """Whether a text is Python that asserts, at its top or in a function that checks; programs may assert elsewhere."""
    if len(text) > _MAX_CHARS or "assert" not in text:
        return False
    tree = parse_program(text)
    return tree is not None and any(_asserts(node) for node in tree.body)


def _asserts(node: ast.stmt) -> bool:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return bool(re.match(r"check|test|Test", node.name)) and any(map(_asserts_inside, ast.walk(node)))
    return any(isinstance(inner, ast.Assert) for inner in ast.walk(node))


def _asserts_inside(node: ast.AST) -> bool:
    return isinstance(node, ast.Assert) or (isinstance(node, ast.Attribute) and node.attr.startswith("assert"))
