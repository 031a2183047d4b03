"""Examples of calls out of a description, with typed arguments: `Input: a = [1], k = 2` and `f([1], 2) => 3`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from coderl.problems.literals import literal, literals
from coderl.types import CallTest, UnitTest

_MAX_CALL_CHARS = 2000
_MAX_VALUE_CHARS = 300
_MAX_VALUE_LINES = 50

_INPUT = re.compile(r"^[ \t>*_`]*(?:sample |example )?input[ \t]*#?\d*[ \t]*:[*_]*", re.IGNORECASE | re.MULTILINE)
_OUTPUT = re.compile(r"\b(?:sample |example )?output[ \t]*#?\d*[ \t]*:[*_]*", re.IGNORECASE)
_END = re.compile(
    r"^[ \t>*_`]*(?:explanations?|notes?|hints?|constraints|(?:sample |example )?input|(?:example|sample)s?)"
    r"[ \t]*#?\d*[*_]*[ \t]*(?::|$)|\b(?:explanations?|notes?):",
    re.IGNORECASE | re.MULTILINE,
)
_VERB = r"(?:(?:should|must|will)[ \t]+)?(?:returns?|equals?|be|gives?|is)\b:?"
_ARROW = re.compile(
    rf"[ \t`]*(?:;[ \t]*)?(?P<comment>#|//|--(?!>)|/\*)?[ \t]*"
    rf"(?:(?:={{1,3}}|-{{1,2}})>|={{1,3}}|[➞→⟹⇒]|{_VERB}|(?P<bare>(?<=[#/*-])[ \t]*))[ \t]*:?[ \t]*",
    re.IGNORECASE,
)
_AFTER_VALUE = re.compile(r"^[`'\"]?[\s.;,`)]*(?:$|#|//|\(|--|\*/|because\b|since\b)")
_SENTENCE = re.compile(
    r"\b(?:for|if|given|when|with)[ \t]+(?P<arguments>\w+[ \t]*=[^=\n].*?),?[ \t]+(?:the |your )?"
    rf"(?:output|result|answer|function)[ \t]+(?:=+>?|{_VERB})[ \t]*",
    re.IGNORECASE,
)
_OPERATOR_BEFORE = re.compile(r"(?:[-+*/%=<>&|^~!]|\bnot)\s*$")
_ASSERT_BEFORE = re.compile(r"(?:assert|equal|expect)\w*\s*\($", re.IGNORECASE)


def call_examples(description: str, fn_name: str) -> tuple[UnitTest, ...]:
    """Return the calls of `fn_name` that a description shows with their results, those only that parse as literals.

    The same call is given once, and not at all where the description gives it two results.
    """
    found = [*_labelled(description), *_written(description, fn_name), *_told(description)]
    by_call: dict[str, list[CallTest]] = {}
    for _, test in sorted(found, key=lambda placed: placed[0]):
        by_call.setdefault(repr(test.args), []).append(test)
    return tuple(same[0] for same in by_call.values() if len({repr(test.expected) for test in same}) == 1)


def _test(args: tuple[Any, ...] | None, expected: tuple[Any] | None) -> list[CallTest]:
    """The test, where both sides could be read."""
    return [] if args is None or expected is None else [CallTest(args, expected[0])]


# --------------------------------------------------------------------------------------- Input: ... / Output: ...


def _labelled(description: str) -> Iterator[tuple[int, CallTest]]:
    """Yield LeetCode's form: arguments after `Input:`, named or not, the result after `Output:`."""
    marks = list(_INPUT.finditer(description))
    ends = [*(mark.start() for mark in marks[1:]), len(description)]
    for mark, end in zip(marks, ends, strict=False):
        block = description[mark.end() : end]
        output = _OUTPUT.search(block)
        if output is not None:
            args = _arguments(block[: output.start()])
            for test in _test(args, _labelled_value(block[output.end() :])):
                yield mark.start(), test


def _labelled_value(text: str) -> tuple[Any] | None:
    """The literal after `Output:`, on one line or several, before any explanation."""
    end = _END.search(text)
    lines = text[: end.start() if end else len(text)].strip().split("\n")
    for count in range(1, min(len(lines), _MAX_VALUE_LINES) + 1):
        value = literal("\n".join(lines[:count]).strip(" `*_\t"))
        if value is not None:
            return value
    return None


def _arguments(text: str) -> tuple[Any, ...] | None:
    """The arguments that a text lists between commas, or one a line, or `a = 1 b = 2` without either."""
    text = _one_line(text.strip(" \t\n`*").rstrip(",;"))
    missing_commas = re.sub(r"(?<=[\w\]\)\"'}])\s+(?=[A-Za-z_]\w*\s*=[^=])", ", ", text)
    found = literals(text)
    return literals(missing_commas) if found is None else found


def _one_line(text: str) -> str:
    """The text with newlines inside a string escaped, inside brackets dropped, and elsewhere turned into commas."""
    pieces, depth, last = [], 0, ""
    for char, is_in_string in _with_strings(text):
        depth += 0 if is_in_string else (char in "([{") - (char in ")]}")
        if char == "\n":
            char = "\\n" if is_in_string else " " if depth or last in ",(" else ", "
        pieces.append(char)
        last = char if char.strip() else last
    return "".join(pieces)


def _with_strings(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each character, and whether it stands in a quoted string."""
    quote = ""
    is_escaped = False
    for char in text:
        yield char, bool(quote)
        if quote:
            quote = "" if char == quote and not is_escaped else quote
            is_escaped = char == "\\" and not is_escaped
        elif char in "'\"":
            quote = char


# -------------------------------------------------------------------------------------------------- f(1, 2) => 3


def _written(description: str, fn_name: str) -> Iterator[tuple[int, CallTest]]:
    """Yield calls with their result behind an arrow, `==`, "returns" or a comment mark, or below a `>>>`."""
    for mark in re.finditer(rf"(?<![\w.])(?:{'|'.join(_spellings(fn_name))})[ \t]*(?=\()", description):
        end = _closing(description, mark.end())
        if end is not None:
            line_start = description.rfind("\n", 0, mark.start()) + 1
            args = _call_arguments(description[mark.end() + 1 : end - 1])
            expected = _written_value(description[end:], prefix=description[line_start : mark.start()])
            for test in _test(args, expected):
                yield mark.start(), test


def _call_arguments(text: str) -> tuple[Any, ...] | None:
    return _arguments(text) if text.strip() else ()


def _spellings(fn_name: str) -> list[str]:
    """The name, and its camelCase twin, in which sites with many languages write their examples."""
    first, *others = fn_name.split("_")
    camel = first + "".join(word.capitalize() for word in others)
    return list(dict.fromkeys(map(re.escape, (fn_name, camel))))


def _closing(text: str, start: int) -> int | None:
    """The place after the bracket that closes the one at `start`, brackets in strings aside."""
    depth = 0
    for offset, (char, is_in_string) in enumerate(_with_strings(text[start : start + _MAX_CALL_CHARS])):
        depth += 0 if is_in_string else (char in "([{") - (char in ")]}")
        if depth == 0:
            return start + offset + 1
    return None


def _written_value(rest: str, prefix: str) -> tuple[Any] | None:
    line, _, below = rest.partition("\n")
    before = prefix.strip()
    if before == ">>>" and not line.partition("#")[0].strip():
        return _doctest_value(below)
    if before not in ("-", "*", ">", ">>>") and _OPERATOR_BEFORE.search(prefix):
        return None  # a part of a larger expression
    if _ASSERT_BEFORE.search(prefix):
        return _leading_value(line.lstrip().removeprefix(",")) if line.lstrip().startswith(",") else None
    arrow = _ARROW.match(line)
    if arrow is None or (arrow["bare"] is not None and arrow["comment"] is None):
        return None
    return _leading_value(line[arrow.end() :])


def _doctest_value(below: str) -> tuple[Any] | None:
    """What an interpreter session prints below a call, up to a blank line or the next call."""
    lines = []
    for line in below.split("\n"):
        if not line.strip() or line.strip().startswith((">>>", '"""', "'''")):
            break
        lines.append(line.strip())
    return literal(_one_line("\n".join(lines)))


def _leading_value(text: str) -> tuple[Any] | None:
    """The longest literal at the start of a line, when nothing but punctuation or a comment follows it."""
    text = text.strip().lstrip("`").rstrip(".")[:_MAX_VALUE_CHARS]  # "the result is 5." ends a sentence, not a float
    for end in range(len(text), 0, -1):
        if not text[end - 1].isspace() and _AFTER_VALUE.match(text[end:]):
            value = literal(text[:end])
            if value is not None:
                return value
    return None


# --------------------------------------------------------------------- For a = 1, b = 2 the output should be 3


def _told(description: str) -> Iterator[tuple[int, CallTest]]:
    """Yield examples told in a sentence that names the arguments."""
    for mark in _SENTENCE.finditer(description):
        line = description[mark.end() :].partition("\n")[0]
        for test in _test(_arguments(mark["arguments"]), _leading_value(line)):
            yield mark.start(), test
