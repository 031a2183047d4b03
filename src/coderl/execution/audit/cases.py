"""A battery: programs with the verdicts that are right for them, as a folder of data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coderl.types import (
    CallTest,
    InputError,
    StdinTest,
    UnitTest,
)

BATTERY = Path(__file__).parent / "battery"
PASSED = "PassedTest"
SKIPPED = "Skipped"
VERDICTS = ("CompileError", "RuntimeError", "FailedTest", PASSED, "Timeout")
GROUPS = ("benign", "cheat", "failure", "bomb", "contain")

Grade = Callable[["Case"], str]
"""Any grader as one function: a case in, one of `VERDICTS` out; NotImplementedError for what it cannot run."""


@dataclass(frozen=True, slots=True)
class Case:
    """One program of a battery with its tests and the verdicts that are right."""

    name: str
    code: str
    kind: str
    """`stdin` or `call`."""
    group: str
    """One of `GROUPS`: must pass; must not; fails honestly; exhausts something; attacks the machine."""
    attack: str
    """What makes the case hard, for people."""
    expect: str
    accept: tuple[str, ...]
    """All right verdicts, `expect` among them."""
    inputs: tuple[Any, ...]
    """Text to read, or lists of positional arguments."""
    outputs: tuple[Any, ...]
    fn_name: str | None = None
    contain: bool = False
    """True where the program prints the right answer only if its attack was blocked."""
    side: str | None = None
    """`files` or `survivors`: what else to look at afterwards."""

    @property
    def tests(self) -> tuple[UnitTest, ...]:
        """The tests as our executor takes them."""
        pairs = zip(self.inputs, self.outputs, strict=True)
        if self.kind == "call":
            return tuple(CallTest(tuple(given), wanted) for given, wanted in pairs)
        return tuple(StdinTest(given, wanted) for given, wanted in pairs)


def load_battery(folder: Path | None = None) -> list[Case]:
    """Return the cases of a battery, ours by default; canary paths are filled in when a case is run.

    Raises:
        InputError: the folder has no readable `index.json`, or a case of it lacks a field or its program.
    """
    folder = folder or BATTERY
    try:
        rows = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        return [_case_of(folder, row) for row in rows]
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename}: no such file (a battery is a folder with index.json and programs)"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / 'index.json'}: not a list of cases ({type(error).__name__}: {error})") from None


def _case_of(folder: Path, row: dict[str, Any]) -> Case:
    code = (folder / "programs" / row["file"]).read_bytes().decode("utf-8")
    plain = {key: row[key] for key in ("name", "kind", "group", "attack", "expect")}
    lists = {key: tuple(row[key]) for key in ("accept", "inputs", "outputs")}
    optional = {key: row[key] for key in ("fn_name", "contain", "side") if key in row}
    return Case(code=code, **plain, **lists, **optional)
