"""LiveCodeBench: problems of contests with public and private tests, of programs that read stdin and of functions.

Source: Jain et al. 2024, "LiveCodeBench"; `code_generation` and `code_generation_lite` on the hub.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

from coderl.problems import plain_pickle
from coderl.problems.json_files import parse_json, text_field
from coderl.problems.unread import refuse_unread_tests
from coderl.types import CallTest, InputError, LabelledProblem, Problem, StdinTest, UnitTest

_FIELDS = frozenset(
    {"question_title", "question_content", "question_id", "starter_code", "difficulty", "metadata"}
    | {"public_test_cases", "private_test_cases"}
)
_MAX_BYTES = 1 << 29
"""Of the private tests of one problem, unpacked."""


def problem(record: dict[str, Any], where: str) -> LabelledProblem:
    """Return the problem of one record: the public tests are the examples, they and the private ones are hidden.

    Raises:
        InputError: a field is missing or malformed.
    """
    refuse_unread_tests(record, _FIELDS, where)
    description = text_field(record, "question_content", where)
    if not description.strip():
        raise InputError(f"{where}: field 'question_content' is empty")
    name = _fn_name(record, where)
    public = _tests(record, "public_test_cases", name, where)
    number = record.get("question_id")
    if isinstance(number, bool) or not isinstance(number, int | str):
        raise InputError(f"{where}: field 'question_id' must be text or a number, found {type(number).__name__}")
    return LabelledProblem(
        Problem(
            str(number),
            description,
            text_field(record, "difficulty", where, default="unknown"),
            name,
            text_field(record, "starter_code", where, default=""),
            public,
        ),
        hidden_tests=public + _tests(record, "private_test_cases", name, where),
    )


def _fn_name(record: dict[str, Any], where: str) -> str | None:
    metadata = record.get("metadata") or {}
    if isinstance(metadata, str):
        metadata = parse_json(metadata, f"{where}: field 'metadata'")
    name = metadata.get("func_name") if isinstance(metadata, dict) else metadata
    if name is not None and (not isinstance(name, str) or not name.isidentifier()):
        raise InputError(
            f"{where}: field 'metadata' must be an object whose func_name names a function, found {name!r}"
        )
    return name


def _tests(record: dict[str, Any], name: str, fn_name: str | None, where: str) -> tuple[UnitTest, ...]:
    where = f"{where}: field '{name}'"
    cases = record.get(name) or []
    if isinstance(cases, str):
        cases = _unpacked(cases, where)
    if not isinstance(cases, list):
        raise InputError(f"{where} must be a list of tests, found {type(cases).__name__}")
    return tuple(_test(case, fn_name, f"{where}[{index}]") for index, case in enumerate(cases))


def _unpacked(text: str, where: str) -> Any:
    """The value of JSON, or of base64 of zlib of a pickle of JSON, as the private tests are; no pickle is run."""
    if text.lstrip()[:1] in ("[", "{"):
        return parse_json(text, where)
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(base64.b64decode(text, validate=True), _MAX_BYTES)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise InputError(f"{where} is neither JSON nor packed tests ({error})") from None
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise InputError(f"{where} is cut short, or longer than {_MAX_BYTES:,} bytes unpacked")
    value = plain_pickle.loads(content, where)
    return parse_json(value, where) if isinstance(value, str) else value


def _test(case: Any, fn_name: str | None, where: str) -> UnitTest:
    match case:
        case {"input": str(given), "output": str(wanted), **rest}:
            kind = rest.get("testtype", "stdin" if fn_name is None else "functional")
        case _:
            raise InputError(f"{where} must be an object with the texts input and output")
    if kind == "stdin":
        return StdinTest(given, wanted)
    if kind != "functional" or fn_name is None:
        expectation = "stdin, or functional beside a func_name in metadata"
        raise InputError(f"{where}: testtype must be {expectation}, found {kind!r}")
    arguments = [parse_json(line, f"{where} input") for line in given.split("\n") if line.strip()]
    return CallTest(tuple(arguments), parse_json(wanted, f"{where} output"))
