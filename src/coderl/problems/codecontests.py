"""CodeContests: problems of five contest sites with public, private and generated tests.

Source: Li et al. 2022, "Competition-Level Code Generation with AlphaCode"; `deepmind/code_contests` on the hub.
"""

from __future__ import annotations

import re
from typing import Any

from coderl.problems.json_files import text_field
from coderl.problems.unread import refuse_unread_tests
from coderl.types import InputError, LabelledProblem, Problem, StdinTest

_TESTS = ("public_tests", "private_tests", "generated_tests")
_FIELDS = frozenset(
    {*_TESTS, "name", "description", "difficulty", "solutions", "incorrect_solutions", "input_file", "output_file"}
)
_PYTHON3 = (3, "PYTHON3")
_DIFFICULTIES = ("unknown", "easy", "medium", "hard", "harder", "hardest", "external")


def problem(record: dict[str, Any], where: str) -> LabelledProblem:
    """Return the problem of one record: public tests are the examples, all tests are hidden ones.

    Solutions in other languages than Python 3 are left out.

    Raises:
        InputError: a field is missing or malformed, or programs are to read or write files.
    """
    refuse_unread_tests(record, _FIELDS, where)
    description = text_field(record, "description", where)
    if not description.strip():
        raise InputError(f"{where}: field 'description' is empty")
    for field in ("input_file", "output_file"):
        if record.get(field):
            raise InputError(f"{where}: field '{field}' is {record[field]!r}: only stdin and stdout can be judged")
    tests = {field: _tests(record.get(field), f"{where}: field '{field}'") for field in _TESTS}
    return LabelledProblem(
        Problem(
            _problem_id(text_field(record, "name", where)),
            description,
            _difficulty(record.get("difficulty")),
            example_tests=tests["public_tests"],
        ),
        hidden_tests=tuple(test for field in _TESTS for test in tests[field]),
        solutions=_solutions(record.get("solutions"), f"{where}: field 'solutions'"),
    )


def _problem_id(name: str) -> str:
    """The name with what no file name can hold replaced: `1575_A. Another Sorting Problem`."""
    return re.sub(r"[/\\\x00-\x1f\x7f]", "_", name).strip()


def _difficulty(value: Any) -> str:
    """The word for a number of the data set's enumeration; from 7 on the letters of Codeforces' problems, A to V."""
    if isinstance(value, int) and 0 <= value < len(_DIFFICULTIES) + 22:
        letters = value - len(_DIFFICULTIES)
        return _DIFFICULTIES[value] if letters < 0 else chr(ord("A") + letters)
    return value if isinstance(value, str) else "unknown"


def _tests(value: Any, where: str) -> tuple[StdinTest, ...]:
    """The tests of `{"input": [...], "output": [...]}`, or of a list of `{"input", "output"}`."""
    match value or []:
        case {"input": list(inputs), "output": list(outputs)} if len(inputs) == len(outputs):
            pairs = list(zip(inputs, outputs, strict=True))
        case list(items) if all(isinstance(item, dict) for item in items):
            pairs = [(item.get("input"), item.get("output")) for item in items]
        case _:
            raise InputError(f"{where} must be {{input, output}}, two lists of one length")
    for index, pair in enumerate(pairs):
        if not all(isinstance(text, str) for text in pair):
            raise InputError(f"{where}[{index}]: input and output must be texts")
    return tuple(StdinTest(given, wanted) for given, wanted in pairs)


def _solutions(value: Any, where: str) -> tuple[str, ...]:
    match value or []:
        case {"language": list(languages), "solution": list(programs)} if len(languages) == len(programs):
            pairs = list(zip(languages, programs, strict=True))
        case list(items) if all(isinstance(item, dict) for item in items):
            pairs = [(item.get("language"), item.get("solution")) for item in items]
        case _:
            raise InputError(f"{where} must be {{language, solution}}, two lists of one length")
    return tuple(code for language, code in pairs if language in _PYTHON3 and isinstance(code, str))
