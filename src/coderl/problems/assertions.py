"""Tests and helpers written as Python: read once here, so that what is not Python is named with its record."""

from __future__ import annotations

import warnings

from coderl.types import AssertTest, InputError


def assert_test(code: str, where: str, setup: str = "") -> AssertTest:
    """Return the test that a text asserts.

    Raises:
        InputError: the text, or its set-up, is not Python; the line begins with `where`.
    """
    return AssertTest(python_source(code, where), python_source(setup, f"{where} setup") if setup else "")


def python_source(text: str, where: str) -> str:
    """Return a text that compiles as Python.

    Raises:
        InputError: it does not; the line begins with `where`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "1is" and "\\d" warn; that is their author's affair
            compile(text, "<source>", "exec", dont_inherit=True)
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise InputError(f"{where}: not Python ({error.msg}{line}): {_shown(text, error.lineno)}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{where}: not Python ({type(error).__name__}): {_shown(text, 1)}") from None
    return text


def _shown(text: str, line: int | None) -> str:
    lines = text.split("\n")
    return repr(lines[min((line or 1), len(lines)) - 1].strip()[:80])
