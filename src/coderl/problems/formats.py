"""Which format a record is of, and the problem that it writes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from coderl.problems import apps, codecontests, evalplus, humaneval, jsonl, leetcode, livecodebench, mbpp
from coderl.problems.apps import ExampleRules
from coderl.types import InputError, LabelledProblem

_NEEDED = {
    "evalplus": ("task_id", "prompt", "entry_point", "canonical_solution", "base_input", "plus_input"),
    "leetcode": ("task_id", "problem_description", "entry_point", "test"),
    "humaneval": ("task_id", "prompt", "entry_point", "test"),
    "mbpp": ("task_id", "code", "test_list"),
    "livecodebench": ("question_id", "question_content", "public_test_cases", "private_test_cases"),
    "codecontests": ("name", "description", "public_tests", "private_tests"),
    "apps": ("problem_id", "question", "input_output"),
    "taco": ("question", "input_output"),
    "jsonl": ("problem_id", "description"),
}
"""The fields that tell a format; also what a complaint about an unknown one may miss."""

FORMATS = (*_NEEDED, "miniapps")


@dataclass(frozen=True)
class Options:
    """What the caller asked of particular formats; asking it of another one is an error."""

    num_shown_tests: int | None = None
    example_rules: ExampleRules = "default"

    def check(self, format: str, source: str) -> None:
        """Refuse an option that the format does not have.

        Raises:
            InputError: there is one.
        """
        if self.num_shown_tests is not None and format != "mbpp":
            raise InputError(f"{source}: num_shown_tests is for MBPP, this is {format}")
        if self.example_rules != "default" and format not in ("apps", "taco"):
            raise InputError(f"{source}: example_rules is for APPS, this is {format}")


def known(name: str, names: Iterable[str], what: str, where: str = "") -> str:
    """Return `name` when it is one of `names`.

    Raises:
        InputError: it is not; the line names the nearest one.
    """
    names = list(names)
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise InputError(f"{where}unknown {what} '{name}'; {hint}known: {', '.join(names)}")


def format_of(record: dict[str, Any], where: str) -> str:
    """Return the format of a record, told by its fields.

    Raises:
        InputError: it is of none; the line names the nearest and what the record lacks of it.
    """
    telling = {
        "evalplus": "base_input" in record or "plus_input" in record,
        "leetcode": leetcode.is_entry_point(record.get("entry_point")),
        "humaneval": "entry_point" in record,
        "mbpp": "test_list" in record,
        "livecodebench": "public_test_cases" in record or "private_test_cases" in record,
        "codecontests": "public_tests" in record or "private_tests" in record,
        "taco": "question" in record and record.get("problem_id", record.get("id")) is None,
        "apps": "question" in record,
        "jsonl": "problem_id" in record and "description" in record,
    }
    found = next((format for format, is_it in telling.items() if is_it), None)
    if found is None:
        nearest = max(_NEEDED, key=lambda format: len(record.keys() & set(_NEEDED[format])) / len(_NEEDED[format]))
        missing = ", ".join(name for name in _NEEDED[nearest] if name not in record)
        if not record.keys() & set(_NEEDED[nearest]):
            nearest, missing = "jsonl", "problem_id and description"
        fields = ", ".join(sorted(record)[:8]) or "none"
        raise InputError(
            f"{where}: not a problem of a known format (its fields: {fields}); the nearest is {nearest}, which needs "
            f"{missing} too; formats: {', '.join(FORMATS)}"
        )
    return found


def problem(record: dict[str, Any], where: str, number: int, format: str, options: Options) -> LabelledProblem:
    """Return the problem of a record of a known format.

    Raises:
        InputError: a field is missing or malformed, or looks like tests and is not read.
    """
    match format:
        case "evalplus":
            return evalplus.problem(record, where)
        case "leetcode":
            return leetcode.problem(record, where)
        case "humaneval":
            return humaneval.problem(record, where)
        case "mbpp":
            return mbpp.problem(record, where, num_shown_tests=options.num_shown_tests)
        case "livecodebench":
            return livecodebench.problem(record, where)
        case "codecontests":
            return codecontests.problem(record, where)
        case "apps" | "taco":
            own_number = number if format == "taco" else None
            return apps.problem(record, where, number=own_number, example_rules=options.example_rules)
    return jsonl.problem(record, where)
