"""The critic's values of tokens, as text and by line: where a program goes wrong in its eyes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from coderl.models.lm import LanguageModel


def token_texts(model: LanguageModel, tokens: Sequence[int]) -> list[str]:
    """Return the text that each token adds to the program; joined, they are the program."""
    texts, before = [], ""
    for end in range(1, len(tokens) + 1):
        whole = model.decode(tokens[:end])
        stable = whole.rstrip("\ufffd") if end < len(tokens) else whole
        texts.append(stable[len(before) :])
        before = stable if stable.startswith(before) else before
    return texts


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the program as the critic sees it."""

    number: int
    """1-based."""
    text: str
    value: float | None
    """p(Passed) once the line was read; None without a critic, and beyond the tokens that it reads."""


def line_values(
    code: str, model: LanguageModel, tokens: Sequence[int], values: Sequence[float] | None
) -> tuple[Line, ...]:
    """Return the lines of a program, each with the critic's value after its last token."""
    written = code.splitlines()
    line, after = 0, dict[int, float]()
    for text, value in zip(token_texts(model, tokens), values or [], strict=False):
        line += text.count("\n")
        after[line - text.endswith("\n")] = value
    if after and max(after) >= len(written):  # the end of sequence, behind the last line's end
        after[len(written) - 1] = after[max(after)]
    return tuple(Line(i + 1, text, after.get(i)) for i, text in enumerate(written))


def steepest_fall(lines: Sequence[Line]) -> int | None:
    """Return the number of the line on which the value falls most, if it falls anywhere.

    The first line that has a value is where it starts from, and never the answer.
    """
    known = [(line.number, line.value) for line in lines if line.value is not None]
    falls = [(before - value, -number) for (_, before), (number, value) in pairwise(known)]
    fall, number = max(falls, default=(0.0, 0))
    return -number if fall > 0 else None
