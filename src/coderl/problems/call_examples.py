"""Examples of calls out of a description, with typed arguments: `Input: a = [1], k = 2` and `f([1], 2) => 3`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from coderl.problems.literals import literal, parse_expression, value_of
from coderl.types import CallTest, UnitTest

_MAX_CALL_CHARS = 2000
_MAX_VALUE_CHARS = 300

_INPUT = re.compile(r"^[ \t>*_`]*(?:sample |example )?input[ \t]*#?\d*[ \t]*:[*_]*", re.IGNORECASE | re.MULTILINE)
_OUTPUT = re.compile(r"\b(?:sample |example )?output[ \t]*#?\d*[ \t]*:[*_]*", re.IGNORECASE)
_END = re.compile(
    r"^[ \t>*_`]*(?:explanations?|notes?|hints?|constraints|(?:sample |example )?input|(?:example|sample)s?)"
    r"[ \t]*#?\d*[*_]*[ \t]*(?::|$)|\b(?:explanations?|notes?):",
    re.IGNORECASE | re.MULTILINE,
)
_ARROW = re.compile(
    r"[ \t]*`*[ \t]*(?:;[ \t]*)?(?:(?:#|//|--)[ \t]*)?"
    r"(?:(?:={1,3}|-{1,2})>|={1,3}(?!>)|➞|→|⟹|⇒|(?:should |must |will )?(?:returns?|equals?|be|gives?|is)\b:?"
    r"|(?<=#)|(?<=//))"
    r"[ \t]*:?[ \t]*"
)
_AFTER_VALUE = re.compile(r"^[`'\"]?[\s.;,`)]*(?:$|#|//|\(|--|\*/|because\b|since\b)")


def call_examples(description: str, fn_name: str) -> tuple[UnitTest, ...]:
    """Return the calls of `fn_name` that a description shows with their results, those only that parse as literals.

    The same call is given once, and not at all where the description gives it two results.
    """
    found = [*_labelled(description, fn_name), *_written(description, fn_name)]
    by_call: dict[str, list[CallTest]] = {}
    for _, test in sorted(found, key=lambda placed: placed[0]):
        by_call.setdefault(repr(test.args), []).append(test)
    return tuple(same[0] for same in by_call.values() if len({repr(test.expected) for test in same}) == 1)


# --------------------------------------------------------------------------------------- Input: ... / Output: ...


def _labelled(description: str, fn_name: str) -> Iterator[tuple[int, CallTest]]:
    """Yield LeetCode's form: arguments after `Input:`, named or not, the result after `Output:`."""
    marks = list(_INPUT.finditer(description))
    ends = [*(mark.start() for mark in marks[1:]), len(description)]
    for mark, end in zip(marks, ends, strict=False):
        block = description[mark.end() : end]
        output = _OUTPUT.search(block)
        if output is None or output.start() > _MAX_CALL_CHARS:
            continue
        args = _arguments(block[: output.start()], fn_name)
        expected = _labelled_value(block[output.end() :])
        if args is not None and expected is not None:
            yield mark.start(), CallTest(args, expected[0])


def _labelled_value(text: str) -> tuple[Any] | None:
    """The literal after `Output:`, on one line or several, before any explanation."""
    end = _END.search(text)
    text = text[: end.start()] if end else text
    lines = text.strip().splitlines()
    for count in range(1, min(len(lines), 50) + 1):
        value = literal(" ".join(lines[:count]).strip(" `*_\t"))
        if value is not None:
            return value
    return None


# -------------------------------------------------------------------------------------------------- f(1, 2) => 3


def _written(description: str, fn_name: str) -> Iterator[tuple[int, CallTest]]:
    """Yield calls with their result behind an arrow, `==`, "returns" or a comment mark, or below a `>>>`."""
    for mark in re.finditer(rf"(?<![\w.])(?:{'|'.join(_spellings(fn_name))})[ \t]*(?=\()", description):
        end = _closing(description, mark.end())
        if end is None:
            continue
        args = _arguments(description[mark.end() + 1 : end - 1], fn_name)
        line_start = description.rfind("\n", 0, mark.start()) + 1
        expected = _written_value(description[end:], prefix=description[line_start : mark.start()])
        if args is not None and expected is not None:
            yield mark.start(), CallTest(args, expected[0])


def _spellings(fn_name: str) -> list[str]:
    """The name, and its camelCase twin, in which sites with many languages write their examples."""
    first, *others = fn_name.split("_")
    camel = first + "".join(word.capitalize() for word in others)
    return list(dict.fromkeys(map(re.escape, (fn_name, camel))))


def _closing(text: str, start: int) -> int | None:
    """The place after the bracket that closes the one at `start`, brackets in strings aside."""
    depth, quote = 0, ""
    for place in range(start, min(len(text), start + _MAX_CALL_CHARS)):
        char = text[place]
        if quote:
            quote = "" if char == quote and text[place - 1] != "\\" else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth == 0:
                return place + 1
    return None


def _written_value(rest: str, prefix: str) -> tuple[Any] | None:
    line, _, below = rest.partition("\n")
    if prefix.strip() == ">>>":
        comment_free = re.sub(r"^\s*#.*$", "", line).strip()
        if not comment_free:
            return _doctest_value(below)
    elif prefix.strip(" \t`*-•>").lower() not in ("", "assert") and not re.search(r"[\s`(:]$", prefix):
        return None
    arrow = _ARROW.match(line)
    return _leading_value(line[arrow.end() :]) if arrow else None


def _doctest_value(below: str) -> tuple[Any] | None:
    lines = []
    for line in below.splitlines():
        if not line.strip() or line.strip().startswith((">>>", '"""', "'''")):
            break
        lines.append(line.strip())
    return literal(" ".join(lines))


def _leading_value(text: str) -> tuple[Any] | None:
    """The longest literal at the start of a line, when nothing but punctuation or a comment follows it."""
    text = text.strip()[:_MAX_VALUE_CHARS]
    for end in range(len(text), 0, -1):
        if text[end - 1].isspace() or not _AFTER_VALUE.match(text[end:]):
            continue
        value = literal(text[:end])
        if value is not None:
            return value
    return None


def _arguments(text: str, fn_name: str) -> tuple[Any, ...] | None:
    """The positional arguments that a text lists, `name = ` before them or not, commas or lines between them."""
    text = text.strip().strip("`").strip().rstrip(",;")
    commas = re.sub(r"(?<=[\w\]\)\"'}])\s+(?=[A-Za-z_]\w*\s*=[^=])", ", ", text)
    for candidate in (text, commas, re.sub(r",?\s*\n\s*", ", ", text)):
        call = parse_expression(f"f({candidate})")
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            continue
        values = [value_of(node) for node in (*call.args, *(k.value for k in call.keywords if k.arg))]
        if all(k.arg for k in call.keywords) and all(value is not None for value in values):
            return tuple(value[0] for value in values if value is not None)
    return None
