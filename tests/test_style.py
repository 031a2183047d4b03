"""What CONTRIBUTING says of the size of things, counted."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for folder in ("src", "benchmarks", "scripts") for path in (ROOT / folder).rglob("*.py"))
MAX_FUNCTION_LINES, MAX_PARAMETERS, MAX_MODULE_LINES = 60, 7, 450
DECLARING = {"stage", "command"}
"""Decorators of declarations: what such a function takes are the flags of a command."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: str) -> Iterator[Function]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, Function))


def num_lines(function: Function) -> int:
    """Return the lines from `def` to the end, those of the docstring included."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> list[str]:
    """Return what a call gives: `self` and `cls` are given by themselves."""
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


def is_declaration(function: Function) -> bool:
    calls = (node.func if isinstance(node, ast.Call) else node for node in function.decorator_list)
    return any(isinstance(node, ast.Name) and node.id in DECLARING for node in calls)


def test_the_counts_by_hand():
    source = '@stage\ndef f(self, a, *b, c=1, **d):\n    """One.\n\n    Two.\n    """\n    return 1\n\n\ndef g(): ...\n'
    one, two = functions(source)
    assert (num_lines(one), parameters(one), is_declaration(one)) == (6, ["a", "c", "b", "d"], True)
    assert (num_lines(two), parameters(two), is_declaration(two)) == (1, [], False)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short_and_take_few_parameters(path: Path):
    found = list(functions(path.read_text(encoding="utf-8")))
    long = [f"{f.name}: {num_lines(f)} lines" for f in found if num_lines(f) > MAX_FUNCTION_LINES]
    called = [(f.name, len(parameters(f))) for f in found if not is_declaration(f)]
    wide = [f"{name}: {number} parameters" for name, number in called if number > MAX_PARAMETERS]
    assert not long + wide


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_short(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_MODULE_LINES


def test_no_stage_is_formatted_by_hand():
    stages = (ROOT / "src" / "coderl" / "stages").glob("*.py")
    assert not [path.name for path in stages if "fmt: skip" in path.read_text(encoding="utf-8")]
