"""One MiniAPPS problem as a pipeline: what it means, its English, its programs and near misses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from coderl.problems.miniapps.grammar import STYLES, Constant, Domain, Operation, Reduction, Source, Values
from coderl.types import CallTest, StdinTest, UnitTest

INDENT = "    "
USUAL_SHARE = 0.6
"""How often the usual phrase is taken without a choice: a tiny model learns rare ones slowly."""
ORDINALS = ("first", "second", "third", "fourth")


@dataclass(frozen=True, slots=True)
class Step:
    """An operation or reduction with its constant."""

    part: Operation | Reduction
    constant: Constant = None
    reads_k: bool = False
    """Whether the constant is the variable `k` of the input."""

    def given(self, k: int | None) -> Constant:
        """The value of `{k}` on an input that has `k`."""
        return k if self.reads_k else self.constant

    @property
    def word(self) -> str:
        """What stands for `{k}` in phrases and programs."""
        return "k" if self.reads_k else str(self.constant)


@dataclass(frozen=True, slots=True)
class Given:
    """One input of a problem."""

    value: Any
    """A list of integers, a number or a text."""
    k: int | None = None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A problem before it is put into words."""

    domain: Domain
    source: Source
    steps: tuple[Step, ...]
    reduction: Step
    default: int | str
    """The answer where there is none."""
    fn_name: str | None = None
    has_count: bool = False
    """Whether the first line of a list on stdin tells its length."""

    @property
    def composition(self) -> tuple[str, ...]:
        """Its operations and reduction without constants: what training, validation and test never share."""
        return (*(step.part.name for step in self.steps), self.reduction.part.name)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What makes two problems the same: source, operations and constants."""
        return (self.source.name, *((step.part.name, step.word) for step in (*self.steps, self.reduction)))

    @property
    def k_step(self) -> Step | None:
        """The step that reads `k`."""
        return next((step for step in (*self.steps, self.reduction) if step.reads_k), None)

    @property
    def end(self) -> Reduction:
        """The reduction without its constant."""
        assert isinstance(self.reduction.part, Reduction)
        return self.reduction.part

    @property
    def has_default(self) -> bool:
        """Whether some input may have no answer, so that the statement names a default."""
        can_fail = self.end.is_fallible or any(step.part.may_empty for step in self.steps)  # type: ignore[union-attr]
        return bool(self.end.needs) and can_fail and not (self.end.is_whole and self.fn_name)


# ---------------------------------------------------------------------------------------------------------- meaning


def answer(pipeline: Pipeline, given: Given) -> Any:
    """What the problem asks for on one input, by the meanings of the grammar and never by a program."""
    values: Values = pipeline.source.apply(given.value)
    for step in pipeline.steps:
        values = step.part.apply(values, step.given(given.k))
    k = pipeline.reduction.given(given.k)
    if pipeline.end.is_defined(values, k) or (pipeline.end.is_whole and pipeline.fn_name):
        return pipeline.end.apply(values, k)
    return pipeline.default


def without_a_step(pipeline: Pipeline) -> Iterator[Pipeline]:
    """Pipelines that omit one operation: each must differ from the original, or the operation says nothing."""
    for i in range(len(pipeline.steps)):
        yield replace(pipeline, steps=pipeline.steps[:i] + pipeline.steps[i + 1 :])


def near_misses(pipeline: Pipeline, rng: Random) -> Iterator[Pipeline]:
    """Pipelines a careless programmer might write: steps swapped, a constant off by one, another step in its place."""
    steps = pipeline.steps
    for i in range(len(steps) - 1):
        yield replace(pipeline, steps=(*steps[:i], steps[i + 1], steps[i], *steps[i + 2 :]))
    for i, step in enumerate(steps):
        others = [*_off_by_one(step), _other(step, pipeline.domain.operations, rng)]
        yield from (replace(pipeline, steps=(*steps[:i], other, *steps[i + 1 :])) for other in others)
    others = [*_off_by_one(pipeline.reduction), _other(pipeline.reduction, pipeline.domain.reductions, rng)]
    yield from (replace(pipeline, reduction=other) for other in others)


def _off_by_one(step: Step) -> list[Step]:
    if isinstance(step.constant, int):
        return [replace(step, constant=step.constant + d) for d in (-1, 1) if step.constant + d > 0]
    return []


def _other(step: Step, parts: tuple[Any, ...], rng: Random) -> Step:
    part = rng.choice([part for part in parts if part is not step.part])
    return Step(part, rng.choice(part.constants) if part.constants else None)


# ---------------------------------------------------------------------------------------------------------- English


def unit_test(pipeline: Pipeline, given: Given) -> UnitTest:
    """The test that gives this input and expects the answer."""
    result = answer(pipeline, given)
    if pipeline.fn_name is not None:
        return CallTest((given.value,) if given.k is None else (given.value, given.k), result)
    return StdinTest(_stdin(pipeline, given), _spaced(result) + "\n")


def _spaced(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _stdin(pipeline: Pipeline, given: Given) -> str:
    k = [] if given.k is None else [str(given.k)]
    if pipeline.source.argument == "n":
        return " ".join([str(given.value), *k]) + "\n"
    first = [str(len(given.value)), *k] if pipeline.has_count else k
    return (" ".join(first) + "\n" if first else "") + _spaced(given.value) + "\n"


def _input_words(pipeline: Pipeline) -> str:
    has_k = pipeline.k_step is not None
    if pipeline.source.argument == "n":
        return "n and k." if has_k else "n."
    what = "text" if pipeline.source.argument == "s" else "integers"
    first = {(True, True): "n and k", (True, False): "n", (False, True): "k"}.get((pipeline.has_count, has_k))
    return f"{first}, then the {what}." if first else f"The {what}."


def statement(pipeline: Pipeline, rng: Random) -> str:
    """The task in a few sentences, in one of several phrasings."""
    say = "return" if pipeline.fn_name else "print"
    phrases = [_phrase(step.part, rng).format(k=step.word) for step in pipeline.steps]
    end = say + " " + _phrase(pipeline.end, rng).format(k=pipeline.reduction.word)
    source = pipeline.source.phrase
    numbered = [f"{ordinal} {phrase}" for ordinal, phrase in zip(ORDINALS, phrases, strict=False)]
    if rng.random() < 0.5:
        text = f"Given {source}, " + ", ".join(numbered) + f" and {end}."
    else:
        text = " ".join(f"{part[0].upper()}{part[1:]}." for part in (f"take {source}", *numbered, end))
    if not pipeline.has_default:
        return text
    missing = "there is none" if pipeline.end.is_fallible else "nothing is left"
    return f"{text} If {missing}, {say} {pipeline.default}."


def _phrase(part: Operation | Reduction, rng: Random) -> str:
    return part.phrases[0] if rng.random() < USUAL_SHARE else rng.choice(part.phrases)


def description(pipeline: Pipeline, examples: tuple[UnitTest, ...], rng: Random) -> str:
    """The whole text of a problem in the manner of APPS: statement, input, output and examples."""
    text = statement(pipeline, rng) + "\n\n"
    if pipeline.fn_name is not None:
        names = [pipeline.source.argument, "k"]
        shown = []
        for number, test in enumerate(examples, 1):
            assert isinstance(test, CallTest)
            given = ", ".join(f"{name} = {json.dumps(value)}" for name, value in zip(names, test.args, strict=False))
            shown.append(f"Example {number}:\nInput: {given}\nOutput: {json.dumps(test.expected)}\n")
        return text + "\n".join(shown)
    text += f"-----Input-----\n{_input_words(pipeline)}\n\n-----Output-----\nAnswer.\n\n-----Examples-----\n"
    return text + "\n".join(f"Input\n{test.stdin}Output\n{test.stdout}" for test in examples)  # type: ignore[union-attr]


# --------------------------------------------------------------------------------------------------------- programs


def starter_code(pipeline: Pipeline) -> str:
    """The head of the function asked for; empty for a program that reads stdin."""
    if pipeline.fn_name is None:
        return ""
    arguments = pipeline.source.argument + (", k" if pipeline.k_step else "")
    return f"def {pipeline.fn_name}({arguments}):\n"


def program(pipeline: Pipeline, style: str) -> str:
    """The reference program in one of `STYLES`."""
    column = STYLES.index(style)
    lines = [] if pipeline.fn_name else _reading(pipeline, column)
    lines.append(pipeline.source.code[column])
    lines += [step.part.code[column].format(k=step.word) for step in pipeline.steps]
    lines.append(_ending(pipeline, column))
    body = "\n".join(line for line in lines if line) + "\n"
    if pipeline.fn_name is None:
        return body
    return starter_code(pipeline) + "".join(INDENT + line for line in body.splitlines(keepends=True))


def _reading(pipeline: Pipeline, column: int) -> list[str]:
    one, two = "{} = int(input())", "n, k = map(int, input().split())"
    has_k = pipeline.k_step is not None
    if pipeline.source.argument == "n":
        return [two if has_k else one.format("n")]
    first = two if pipeline.has_count and has_k else one.format("n" if pipeline.has_count else "k")
    numbers = "a = [int(x) for x in input().split()]" if column == 0 else "a = list(map(int, input().split()))"
    values = "s = input()" if pipeline.source.argument == "s" else numbers
    return [first, values] if pipeline.has_count or has_k else [values]


def _ending(pipeline: Pipeline, column: int) -> str:
    end, k = pipeline.end, pipeline.reduction.word
    say = "return {}" if pipeline.fn_name else "print({})"
    result = end.code[column].format(k=k)
    stars = end.is_whole and pipeline.domain.variable == "a" and pipeline.fn_name is None
    if stars:
        result = "*" + result
    if not pipeline.has_default:
        return say.format(result)
    default, needs = _literal(pipeline.default), end.needs.format(k=k)
    if STYLES[column] == "loop":
        return f"if {needs}:\n{INDENT}{say.format(result)}\nelse:\n{INDENT}{say.format(default)}"
    if STYLES[column] == "functional" and end.default_code:
        return say.format(end.default_code.format(default=default))
    return say.format(f"{result} or [{default}]" if stars else f"{result} if {needs} else {default}")


def _literal(value: int | str) -> str:
    return json.dumps(value)
