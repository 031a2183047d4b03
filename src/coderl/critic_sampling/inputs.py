"""More inputs out of those that a statement shows: small changes that keep the form, and no expected output."""

from __future__ import annotations

import ast
import random
import re
import string
from collections.abc import Sequence
from typing import Any

from coderl.types import (
    AssertTest,
    CallTest,
    Problem,
    StdinTest,
    UnitTest,
)

Given = str | tuple[Any, ...]
"""What a program reads, or the positional arguments of a call."""

MAX_TRIES = 20
"""Changes tried for each input asked for: some give an input that is there already."""
MAX_CHANGES = 5
"""Changes made to an example for one input, at most."""


def mutated_inputs(problem: Problem, num_inputs: int, *, seed: int) -> tuple[Given, ...]:
    """Return up to `num_inputs` distinct inputs, none of them an example's; fewer where the examples are too small.

    The same for the same problem and seed. Some may be ones that the statement rules out: on these programs differ or
    crash for no reason, which costs votes and is never held against one program alone.

    Source: AlphaCode (Li et al. 2022), section 4.6, trains a model to make inputs; changes by rule need none.
    """
    examples = [given for given in map(_given, problem.example_tests) if given is not None]
    if not examples:
        return ()
    rng = random.Random(f"{seed} inputs {problem.problem_id}")
    seen, found = {repr(e) for e in examples}, list[Given]()
    for _ in range(MAX_TRIES * num_inputs):
        if len(found) == num_inputs:
            break
        given = rng.choice(examples)
        for _ in range(rng.randint(1, MAX_CHANGES)):
            given = _changed_text(given, rng) if isinstance(given, str) else _changed_arguments(given, rng)
        if repr(given) not in seen:
            seen.add(repr(given))
            found.append(given)
    return tuple(found)


def _given(test: UnitTest) -> Given | None:
    """The input of a test; None for an assertion that is no comparison of one call with literal arguments."""
    if isinstance(test, StdinTest):
        return test.stdin
    return test.args if isinstance(test, CallTest) else _literal_arguments(test)


def _literal_arguments(test: AssertTest) -> tuple[Any, ...] | None:
    try:
        (statement,) = ast.parse(test.code).body
        condition = statement.test if isinstance(statement, ast.Assert) else None
        call = condition.left if isinstance(condition, ast.Compare) else condition
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.keywords:
            return None
        return tuple(ast.literal_eval(argument) for argument in call.args)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None


# --------------------------------------------------------------------------------------------------- text to be read

_INTEGER = re.compile(r"[+-]?\d{1,18}")
_REAL = re.compile(r"[+-]?\d+\.\d+")


def _changed_text(text: str, rng: random.Random) -> str:
    """Return the text with one token changed, or one more or less on a line; line ends stay where they are."""
    lines = [line.split(" ") for line in text.split("\n")]
    places = [(i, j) for i, line in enumerate(lines) for j, token in enumerate(line) if token.strip()]
    if not places:
        return text
    at, place = rng.choice(places)
    counts = _counts(lines, at)
    if len(lines[at]) > 1 and rng.random() < 0.4 and (at, place) not in {(i, j) for i, j, _ in _all_counts(lines)}:
        _change_line(lines[at], place, rng)
        for i, j in counts:
            lines[i][j] = str(len(lines[at]))
    elif not any((i, j) == (at, place) for i, j, _ in _all_counts(lines)):
        lines[at][place] = _changed_token(lines[at][place], rng, [lines[i][j] for i, j in places])
    return "\n".join(" ".join(line) for line in lines)


def _all_counts(lines: Sequence[Sequence[str]]) -> list[tuple[int, int, int]]:
    """Return (line, token, line counted) of each number that says how many tokens the next line has."""
    return [
        (i, j, i + 1)
        for i in range(len(lines) - 1)
        if len(lines[i + 1]) > 1
        for j, token in enumerate(lines[i])
        if token == str(len(lines[i + 1]))
    ]


def _counts(lines: Sequence[Sequence[str]], at: int) -> list[tuple[int, int]]:
    return [(i, j) for i, j, counted in _all_counts(lines) if counted == at][:1]


def _change_line(line: list[Any], place: int, rng: random.Random) -> None:
    action = rng.randrange(4)
    if action == 0:
        del line[place]
    elif action == 1:
        line.insert(rng.randint(0, len(line)), line[place])
    elif action == 2:
        other = rng.randrange(len(line))
        line[place], line[other] = line[other], line[place]
    else:
        line.reverse()


def _changed_token(token: str, rng: random.Random, others: Sequence[str]) -> str:
    if _INTEGER.fullmatch(token):
        return str(_changed_integer(int(token), rng, [int(t) for t in others if _INTEGER.fullmatch(t)]))
    if _REAL.fullmatch(token):
        return f"{_changed_real(float(token), rng):.{len(token.partition('.')[2])}f}"
    return _changed_word(token, rng)


def _changed_integer(number: int, rng: random.Random, others: Sequence[int]) -> int:
    """Return a number near it, of its length, of the input or of its range; below 0 only where some are."""
    choice = rng.randrange(5)
    if choice == 0 and others:
        return rng.choice(others)
    if choice == 1 and others:
        return rng.randint(min(others), max(others))
    if choice == 2 and any(other < 0 for other in others):
        return -number
    if choice == 3:
        return rng.randrange(10 ** len(str(abs(number))))
    near = number + rng.choice((-2, -1, 1, 2))
    return near if near >= 0 or number < 0 else number + 1


def _changed_real(number: float, rng: random.Random) -> float:
    return number * rng.choice((0.5, 2.0)) + rng.choice((-1.0, 0.0, 1.0))


def _changed_word(word: str, rng: random.Random) -> str:
    """Return the word with a letter more or less, two swapped, one replaced or all shuffled; small ones may be new."""
    if not word:
        return word
    at, other = rng.randrange(len(word)), rng.randrange(len(word))
    letters = list(word)
    new = rng.choice(string.ascii_lowercase) if letters[other].islower() and rng.random() < 0.5 else letters[other]
    action = rng.randrange(5)
    if action == 0 and len(word) > 1:
        del letters[at]
    elif action == 1:
        letters.insert(at, new)
    elif action == 2:
        letters[at], letters[other] = letters[other], letters[at]
    elif action == 3:
        letters[at] = new
    else:
        rng.shuffle(letters)
    return "".join(letters)


# --------------------------------------------------------------------------------------------------------- arguments


def _changed_arguments(arguments: tuple[Any, ...], rng: random.Random) -> tuple[Any, ...]:
    """Return the arguments with one of them changed somewhere inside; types stay."""
    if not arguments:
        return arguments
    at = rng.randrange(len(arguments))
    return tuple(_changed_value(value, rng) if i == at else value for i, value in enumerate(arguments))


def _changed_value(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return _changed_integer(value, rng, ())
    if isinstance(value, float):
        return _changed_real(value, rng)
    if isinstance(value, str):
        return _changed_word(value, rng)
    if isinstance(value, list | tuple) and value:
        items = list(value)
        if rng.random() < 0.5:
            _change_line(items, rng.randrange(len(items)), rng)
        else:
            at = rng.randrange(len(items))
            others = [item for item in items if type(item) is int]
            is_int = type(items[at]) is int
            items[at] = _changed_integer(items[at], rng, others) if is_int else _changed_value(items[at], rng)
        return type(value)(items)
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        return {**value, key: _changed_value(value[key], rng)}
    return value
