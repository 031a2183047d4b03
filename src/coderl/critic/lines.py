"""The critic's values of tokens, as text and by line: where a program goes wrong in its eyes. No weights are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_WINDOW = 4
"""Tokens that decide what one more spells: the bytes of an unfinished character, and one for a leading space."""


@runtime_checkable
class Decoder(Protocol):
    """What knows the text of tokens, such as a language model."""

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of `tokens` without special tokens."""
        ...


def token_texts(model: Decoder, tokens: Sequence[int]) -> list[str]:
    """Return the text that each token adds to the program; joined, they are the program.

    A character that several tokens spell is added by the last of them. A token is decoded behind the few before it
    alone: what stands further back changes nothing, and a long program takes no longer a token than a short one.
    """
    spells = {token: bool(model.decode([token, token])) for token in set(tokens)}  # false for special tokens
    texts: list[str] = []
    written: list[str] = []  # the program so far; the end may be unknown characters that are unfinished ones
    recent: list[int] = []
    num_told = num_whole = 0
    for token in tokens:
        if spells[token]:
            before, after = model.decode(recent), model.decode([*recent, token])
            same = next(
                (i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), len(before)
            )
            del written[len(written) - (len(before) - same) :]
            written += after[same:]
            if whole := after[same:].rstrip(_UNKNOWN):
                num_whole = len(written) - (len(after) - same - len(whole))
            recent = [*recent, token][-_WINDOW:]
        texts.append("".join(written[num_told:num_whole]))
        num_told = num_whole
    if texts:
        texts[-1] += "".join(written[num_told:])
    return texts


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the program as the critic sees it."""

    number: int
    """1-based."""
    text: str
    value: float | None
    """p(Passed) once the line was read; None without a critic, and beyond the tokens that it reads."""


def line_values(code: str, texts: Sequence[str], values: Sequence[float] | None) -> tuple[Line, ...]:
    """Return the lines of a program, each with the critic's value after its last token.

    Args:
        code: the program.
        texts: what each of its tokens adds, see `token_texts`.
        values: one a token, of the first tokens or of all.
    """
    written = code.removesuffix("\n").split("\n") if code else []
    line, after = 0, dict[int, float]()
    for text, value in zip(texts, values or [], strict=False):
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


def first_line(text: str, code: str) -> int:
    """Return the line of the code that stands on the first line of the text it was taken from; 0 or below before it.

    Where the code is not a part of the text (a starter was put before it), both end together.
    """
    core = code.strip()
    if core and core in text:
        leading = code[: len(code) - len(code.lstrip())]
        return 1 + leading.count("\n") - text[: text.index(core)].count("\n")
    return 1 + code.rstrip().count("\n") - text.rstrip().count("\n")
