"""Our own file format: one problem a line, compressed where the name says so, lossless; docs/data.md describes it.

A line is `{"problem_id", "description", "difficulty", "fn_name", "starter_code", "example_tests", "hidden_tests",
"solutions", "checker", "prelude"}`; only the first two are required. A test is `{"stdin", "stdout"}`,
`{"args", "expected"}` or `{"assert", "setup"}`. `TEMPLATE` shows each kind.
"""

from __future__ import annotations

import dataclasses
import difflib
import gzip
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from coderl.problems.assertions import assert_test, python_source
from coderl.problems.json_files import (
    OnBad,
    read_records,
    refuse,
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


def read(path: Path, on_bad: OnBad = refuse) -> Iterator[LabelledProblem]:
    """Yield the problems of a file, streaming.

    Raises:
        InputError: the file is missing; or, where `on_bad` raises it, a line is malformed.
    """
    for where, fields in read_records(path, on_bad):
        try:
            found = problem(fields, where)
        except InputError as error:
            on_bad(error)
            continue
        yield found


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
        **({"prelude": shown.prelude} if shown.prelude else {}),
    }


def _test_record(test: UnitTest) -> dict[str, Any]:
    match test:
        case StdinTest(stdin, stdout):
            return {"stdin": stdin, "stdout": stdout}
        case CallTest(args, expected, is_wrapped):
            int_keys = [
                i
                for i, arg in enumerate(args)
                if isinstance(arg, dict) and arg and all(type(key) is int for key in arg)
            ]
            return {
                "args": list(args),
                "expected": expected,
                **({"int_keys": int_keys} if int_keys else {}),
                **({"is_wrapped": True} if is_wrapped else {}),
            }
        case AssertTest(code, setup):
            return {"assert": code, "setup": setup}


def problem(record: dict[str, Any], where: str) -> LabelledProblem:
    """Return the problem that a JSON object writes.

    Raises:
        InputError: a field is unknown, missing or malformed.
    """
    for name in record.keys() - _FIELDS:
        raise InputError(f"{where}: unknown field '{name}'; {_nearest(name, _FIELDS)}")
    for name in ("problem_id", "description"):
        if not text_field(record, name, where).strip():
            raise InputError(f"{where}: field '{name}' is empty")
    fn_name = text_field(record, "fn_name", where) if record.get("fn_name") is not None else None
    if fn_name is not None and not fn_name.isidentifier():
        raise InputError(f"{where}: field 'fn_name' must name a function or a method of Solution, found {fn_name!r}")
    labelled = LabelledProblem(
        Problem(
            record["problem_id"],
            record["description"],
            text_field(record, "difficulty", where, default="unknown"),
            fn_name,
            text_field(record, "starter_code", where, default=""),
            _tests(record, "example_tests", where),
            prelude=_source(record, "prelude", where) if record.get("prelude") else "",
        ),
        hidden_tests=_tests(record, "hidden_tests", where),
        solutions=texts_field(record, "solutions", where),
        checker=_source(record, "checker", where) if record.get("checker") is not None else None,
    )
    has_calls = any(isinstance(test, CallTest) for test in (*labelled.problem.example_tests, *labelled.hidden_tests))
    if has_calls and fn_name is None:
        raise InputError(f"{where}: field 'fn_name' is missing: tests with args call a function, and it must be named")
    return labelled


def _source(record: dict[str, Any], name: str, where: str) -> str:
    return python_source(text_field(record, name, where), f"{where}: field '{name}'")


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(names))}"


def _tests(record: dict[str, Any], name: str, where: str) -> tuple[UnitTest, ...]:
    tests = record.get(name) or []
    if not isinstance(tests, list):
        raise InputError(f"{where}: field '{name}' must be a list of tests, found {type(tests).__name__}")
    return tuple(_test(test, f"{where}: field '{name}[{index}]'") for index, test in enumerate(tests))


_FORMS = {
    ("stdin", "stdout"): frozenset(),
    ("args", "expected"): frozenset({"int_keys", "is_wrapped"}),
    ("assert",): frozenset({"setup"}),
}
"""The fields that make a test of each kind, and those that it may have besides."""


def _test(test: Any, where: str) -> UnitTest:
    match _checked_form(test, where):
        case {"stdin": str(stdin), "stdout": str(stdout)}:
            return StdinTest(stdin, stdout)
        case {"args": list(args), "expected": expected}:
            is_wrapped = test.get("is_wrapped", False)
            if not isinstance(is_wrapped, bool):
                raise InputError(f"{where}: 'is_wrapped' must be true or false, found {is_wrapped!r:.40}")
            return CallTest(_with_int_keys(args, test.get("int_keys", []), where), expected, is_wrapped)
        case {"assert": str(code)}:
            return assert_test(code, where, text_field(test, "setup", where, default=""))
        case {"args": found}:
            raise InputError(f"{where}: 'args' must be a list, one item an argument; found {type(found).__name__}")
        case found:
            wrong = next(name for name in ("stdin", "stdout", "assert") if not isinstance(found.get(name, ""), str))
            raise InputError(f"{where}: '{wrong}' must be text, found {type(found[wrong]).__name__}")


def _checked_form(test: Any, where: str) -> dict[str, Any]:
    """The fields of a test, which are those of one kind; else the complaint names the nearest kind."""
    if not isinstance(test, dict):
        raise InputError(f"{where}: expected an object, found {type(test).__name__}; a test is {_described()}")
    for needed, allowed in _FORMS.items():
        if set(needed) <= test.keys() <= {*needed, *allowed}:
            return test
    needed = max(_FORMS, key=lambda form: len(test.keys() & {*form, *_FORMS[form]}))
    missing = [name for name in needed if name not in test]
    surplus = sorted(test.keys() - {*needed, *_FORMS[needed]})
    if not test.keys() & set(needed):
        raise InputError(f"{where}: its fields are {', '.join(sorted(test)) or 'none'}; a test is {_described()}")
    reason = f"lacks '{missing[0]}'" if missing else f"has the unknown field '{surplus[0]}'"
    raise InputError(f"{where}: {reason}; such a test is {{{', '.join(needed)}}}")


def _described() -> str:
    *others, last = ("{" + ", ".join(form) + "}" for form in _FORMS)
    return f"{', '.join(others)} or {last}"


def _with_int_keys(args: list[Any], positions: Any, where: str) -> tuple[Any, ...]:
    """The arguments, those at the positions with integers as keys, which JSON can only write as texts."""
    try:
        return tuple(
            {int(key): value for key, value in arg.items()} if index in positions else arg
            for index, arg in enumerate(args)
        )
    except (TypeError, ValueError, AttributeError):
        expectation = "must list the places of arguments that are objects with integers as keys"
        raise InputError(f"{where}: 'int_keys' {expectation}, found {positions!r:.40}") from None


TEMPLATE = """\
# One problem a line. Lines that begin with # are left out when the file is read.
# Only problem_id and description are required. hidden_tests grade; example_tests are those that the description shows.
#
# A program that reads standard input and prints: each test is {"stdin", "stdout"}.
{"problem_id": "add", "description": "Read two integers and print their sum.", "difficulty": "easy", \
"example_tests": [{"stdin": "1 2\\n", "stdout": "3\\n"}], \
"hidden_tests": [{"stdin": "2 2\\n", "stdout": "4\\n"}, {"stdin": "-1 1\\n", "stdout": "0\\n"}], \
"solutions": ["a, b = map(int, input().split())\\nprint(a + b)\\n"]}
#
# A function, or a method of class Solution: fn_name names it, each test is {"args", "expected"}; args is a list,
# one item an argument. "int_keys": [0] says that the keys of argument 0, an object, are integers (not texts).
{"problem_id": "repeat", "description": "Return a text n times over.", "fn_name": "repeat", \
"starter_code": "def repeat(text, n):\\n", "example_tests": [{"args": ["ab", 2], "expected": "abab"}], \
"hidden_tests": [{"args": ["x", 0], "expected": ""}, {"args": ["xy", 3], "expected": "xyxyxy"}], \
"solutions": ["def repeat(text, n):\\n    return text * n\\n"]}
#
# Assertions: each test is {"assert"}, Python that calls fn_name. "setup" (if any) runs after the program, before it.
{"problem_id": "halve", "description": "Return half of x.", "fn_name": "halve", \
"hidden_tests": [{"assert": "assert halve(3) == 1.5"}, {"assert": "assert abs(halve(0.2) - 0.1) < 1e-9"}], \
"solutions": ["def halve(x):\\n    return x / 2\\n"]}
#
# Many right answers: checker is the source of check(stdin, expected, printed) -> bool. prelude, if any, is code that
# runs before every program (imports, helper classes).
{"problem_id": "divisor", "description": "Read n > 1 and print a divisor of n other than 1.", \
"hidden_tests": [{"stdin": "12\\n", "stdout": ""}], \
"checker": "def check(stdin, expected, printed):\\n    return 1 < int(printed) and int(stdin) % int(printed) == 0\\n", \
"solutions": ["n = int(input())\\nprint(n)\\n"], "prelude": "import math\\n"}
"""
"""A file of our format that shows a problem of each kind, with comments: what `coderl problems template` prints."""
