"""Example tests out of a problem's description: what a reader of the statement can check a program against.

Three families of rules: whole programs here, functions in `call_examples`, the original's in `legacy_examples`.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Literal

from coderl.problems.examples.calls import call_examples
from coderl.problems.examples.legacy import extract_legacy
from coderl.types import StdinTest, UnitTest

__all__ = ["Rules", "extract", "extract_legacy"]

Rules = Literal["default", "legacy"]


def extract(description: str, fn_name: str | None = None, rules: Rules = "default") -> tuple[UnitTest, ...]:
    """Return the tests that a description shows, in its order; none where nothing is found for certain.

    Args:
        description: the problem statement.
        fn_name: the function under test: its examples become typed calls. None for a program that reads stdin.
        rules: `legacy` for the original's, which give text even where a function is called.

    Source: CodeRL section 3.3.4.
    Deviation: the default keeps letter case and blank lines, types the arguments of calls and drops explanations.
    """
    description = re.sub(r"\r\n?", "\n", description)  # as a text file is read; no other character ends a line
    if rules == "legacy":
        found = extract_legacy(description)
        return tuple(map(StdinTest, found["inputs"], found["outputs"])) if found else ()
    if fn_name is not None:
        return call_examples(description, fn_name)
    return _stdin_examples(description)


# ------------------------------------------------------------------------------------------------- whole programs

_DASHED = re.compile(r"^\s*-{2,}\s*(?P<title>[^-].*?)\s*-{2,}\s*$")
_EXAMPLES = re.compile(r"^(?:sample|example)s?(?: tests?| test cases?| cases?)?(?: ?#?\d+)?$", re.IGNORECASE)
_KIND = re.compile(
    r"^(?P<named>(?:sample|example)s? (?:#?\d+ )?)?(?P<kind>in|out)put(?P<end> for (?:the )?(?:sample|example).*)?"
    r"(?: ?#?\d+)?$",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"^(?:explanations?|notes?|hints?|constraints|scoring)\b[^:]{0,20}:?$|^explanation\b", re.IGNORECASE
)
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be below by can for from has have if in is it of on or since so that the then there these "
        "this to we which will with you",
    )
)


class _Sections:
    """The state of the reader: which text it collects, and the inputs and outputs it has closed."""

    def __init__(self) -> None:
        self.in_examples = False
        self.kind: str | None = None
        self.lines: list[str] = []
        self.inputs: list[str] = []
        self.tests: list[UnitTest] = []

    def open(self, kind: str, inline: str = "") -> None:
        self.close()
        self.kind = kind
        self.lines = [inline] if inline else []

    def close(self) -> None:
        """Put away the collected text; an output makes a test with the earliest input that still waits for one."""
        if self.kind == "in":
            self.inputs.append(_text(self.lines))
        elif self.kind == "out" and self.inputs:
            output = _text(_without_prose(self.lines))
            stdin = self.inputs.pop(0)
            if output:
                self.tests.append(StdinTest(stdin, output))
        self.kind, self.lines = None, []


def _stdin_examples(description: str) -> tuple[UnitTest, ...]:
    """Return the samples of a stdin problem.

    A sample's input ends at its output's marker; its output at the next marker, header, note, or at the first paragraph
    of prose (see `_without_prose`). Inside an input only an output's marker is a marker, and the other way round, so a
    data line "Input" is data.
    """
    state = _Sections()
    for line in description.split("\n"):
        _step(state, line)
    state.close()
    return tuple(state.tests)


def _step(state: _Sections, line: str) -> None:
    dashed = _DASHED.match(line)
    title, inline = _title(dashed["title"] if dashed else line)
    kind = _KIND.match(title)
    if kind and _is_marker(state, kind, bool(dashed)):
        state.open(kind["kind"].lower(), inline)
    elif dashed or (_EXAMPLES.match(title) and not inline and state.kind != "in"):
        state.close()
        state.in_examples = bool(_EXAMPLES.match(title))
    elif state.kind == "out" and any(map(str.strip, state.lines)) and _CLOSING.match(title):
        state.close()
    elif state.kind:
        state.lines.append(line)


def _title(line: str) -> tuple[str, str]:
    """Split `**Sample Input 1:** 3 4` into its bare title and what stands behind the colon."""
    title, colon, inline = line.partition(":")
    bare = re.sub(r"\s+", " ", re.sub(r"[*_#`]+|</?\w+>", "", title)).strip()
    return (bare, inline.strip(" *_")) if colon else (bare, "")


def _is_marker(state: _Sections, kind: re.Match[str], is_dashed: bool) -> bool:
    is_sample = bool(kind["named"] or kind["end"])
    if is_dashed:
        return is_sample  # a bare dashed "Input" describes the format
    return (is_sample or state.in_examples) and kind["kind"].lower() != state.kind


def _text(lines: list[str]) -> str:
    """The lines without code fences and without blank lines at either end."""
    kept = [line for line in lines if not line.strip().startswith("```")]
    while kept and not kept[-1].strip():
        kept.pop()
    while kept and not kept[0].strip():
        kept.pop(0)
    return "\n".join(kept) + "\n" if kept else ""


def _without_prose(lines: list[str]) -> list[str]:
    """The lines up to the first later paragraph that reads as prose.

    The first paragraph is always output. A later one is prose when one of its lines has two English function words
    among four words or more, unless it begins with the word with which the output itself begins ("Case #1: ...",
    "Case #2: ..."). Everything from there on goes, since prose often quotes other data.
    """
    runs = [(has_text, list(run)) for has_text, run in groupby(range(len(lines)), lambda i: bool(lines[i].strip()))]
    first, *others = [run for has_text, run in runs if has_text] or [[]]
    for paragraph in others:
        is_continued = lines[paragraph[0]].split()[0].lower() == lines[first[0]].split()[0].lower()
        if not is_continued and any(_is_prose(lines[i]) for i in paragraph):
            return lines[: paragraph[0]]
    return lines


def _is_prose(line: str) -> bool:
    words = re.findall(r"[^\W\d_]+", line.lower())
    return len(words) >= 4 and sum(word in _FUNCTION_WORDS for word in words) >= 2
