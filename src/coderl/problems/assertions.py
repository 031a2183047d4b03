"""Tests written as Python: read once here, so that one that is not Python is named with its record."""

from __future__ import annotations

import warnings

from coderl.types import AssertTest, InputError


def assert_test(code: str, where: str, setup: str = "") -> AssertTest:
    """Return the test that a text asserts.

    Raises:
        InputError: the text, or its set-up, is not Python; the line begins with `where`.
    """
    for text, field in ((code, "not Python"), (setup, "its set-up is not Python")):
        if not text:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "1is" and "\\d" warn; that is their author's affair
                compile(text, "<test>", "exec", dont_inherit=True)
        except SyntaxError as error:
            line = f", line {error.lineno}" if error.lineno else ""
            raise InputError(f"{where}: {field} ({error.msg}{line}): {_shown(text, error.lineno)}") from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise InputError(f"{where}: {field} ({type(error).__name__}): {_shown(text, 1)}") from None
    return AssertTest(code, setup)


def _shown(text: str, line: int | None) -> str:
    lines = text.split("\n")
    return repr(lines[min((line or 1), len(lines)) - 1].strip()[:80])
