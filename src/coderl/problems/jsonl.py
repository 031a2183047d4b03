"""Our own file format: one problem a line, gzipped where the name says so, lossless.

A line is `{"problem_id", "description", "difficulty", "fn_name", "starter_code", "example_tests", "hidden_tests",
"solutions", "checker"}`; only the first two are required. A test is `{"stdin", "stdout"}`, `{"args", "expected"}` or
`{"assert", "setup"}`.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from coderl.problems.json_files import (
    read_records,
    text_field,
    texts_field,
    write_json,
)
from coderl.records import atomic_path
from coderl.types import (
    AssertTest,
    CallTest,
    InputError,
    LabelledProblem,
    Problem,
    StdinTest,
    UnitTest,
)

_FIELDS = frozenset(
    {field.name for type_ in (Problem, LabelledProblem) for field in dataclasses.fields(type_)} - {"problem"}
)


def write(path: Path, problems: Iterable[LabelledProblem]) -> int:
    """Write problems one at a time, all of them or no file; return how many."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("wb") as raw:
        # no time and no name in the gzip header: equal problems make equal bytes
        packed = gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") if path.suffix == ".gz" else raw
        with io.TextIOWrapper(packed, encoding="ascii", newline="\n") as file:  # type: ignore[type-var]
            for labelled in problems:
                file.write(write_json(record(labelled)) + "\n")
                count += 1
    return count


def read(path: Path) -> Iterator[LabelledProblem]:
    """Yield the problems of a file, streaming.

    Raises:
        InputError: the file is missing or malformed.
    """
    for where, fields in read_records(path):
        yield problem(fields, where)


def record(labelled: LabelledProblem) -> dict[str, Any]:
    """Return the JSON object of a problem."""
    shown = labelled.problem
    return {
        "problem_id": shown.problem_id,
        "description": shown.description,
        "difficulty": shown.difficulty,
        "fn_name": shown.fn_name,
        "starter_code": shown.starter_code,
        "example_tests": [_test_record(test) for test in shown.example_tests],
        "hidden_tests": [_test_record(test) for test in labelled.hidden_tests],
        "solutions": list(labelled.solutions),
        "checker": labelled.checker,
    }


def _test_record(test: UnitTest) -> dict[str, Any]:
    match test:
        case StdinTest(stdin, stdout):
            return {"stdin": stdin, "stdout": stdout}
        case CallTest(args, expected):
            return {"args": list(args), "expected": expected}
        case AssertTest(code, setup):
            return {"assert": code, "setup": setup}


def problem(record: dict[str, Any], where: str) -> LabelledProblem:
    """Return the problem that a JSON object writes.

    Raises:
        InputError: a field is unknown, missing or malformed.
    """
    unknown = sorted(record.keys() - _FIELDS)
    if unknown:
        raise InputError(f"{where}: unknown field '{unknown[0]}'; known: {', '.join(sorted(_FIELDS))}")
    description = text_field(record, "description", where)
    if not description.strip():
        raise InputError(f"{where}: the description is empty")
    return LabelledProblem(
        Problem(
            text_field(record, "problem_id", where),
            description,
            text_field(record, "difficulty", where, default="unknown"),
            text_field(record, "fn_name", where) if record.get("fn_name") is not None else None,
            text_field(record, "starter_code", where, default=""),
            _tests(record, "example_tests", where),
        ),
        hidden_tests=_tests(record, "hidden_tests", where),
        solutions=texts_field(record, "solutions", where),
        checker=text_field(record, "checker", where) if record.get("checker") is not None else None,
    )


def _tests(record: dict[str, Any], name: str, where: str) -> tuple[UnitTest, ...]:
    tests = record.get(name) or []
    if not isinstance(tests, list):
        raise InputError(f"{where}: field '{name}' must be a list of tests")
    return tuple(_test(test, f"{where} {name}[{index}]") for index, test in enumerate(tests))


def _test(test: Any, where: str) -> UnitTest:
    match test:
        case {"stdin": str(stdin), "stdout": str(stdout)}:
            return StdinTest(stdin, stdout)
        case {"args": list(args), "expected": expected}:
            return CallTest(tuple(args), expected)
        case {"assert": str(code)}:
            return AssertTest(code, text_field(test, "setup", where, default=""))
    raise InputError(f"{where}: a test is {{stdin, stdout}}, {{args, expected}} or {{assert, setup}}")
