"""LiveCodeBench: stdin and functions, private tests out of a pickle that is not run."""

import base64
import json
import os
import pickle
import zlib

import pytest

from coderl.problems import livecodebench
from coderl.types import CallTest, InputError, Problem, StdinTest

STDIN = [{"input": "1\n", "output": "2\n", "testtype": "stdin"}]
CALLS = [{"input": '[1, 2]\n"a"', "output": "[3, null]", "testtype": "functional"}]


def packed(value) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def record(public, private, **fields) -> dict:
    return {
        "question_title": "A",
        "question_content": "Do it.",
        "platform": "atcoder",
        "question_id": "abc301_a",
        "contest_id": "abc301",
        "contest_date": "2023-05-13T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(public),
        "private_test_cases": private,
        "metadata": "{}",
        **fields,
    }


@pytest.mark.parametrize("pack", [json.dumps, lambda tests: packed(json.dumps(tests)), lambda tests: tests])
def test_private_tests_as_json_packed_or_plain(pack):
    private = [{"input": "3", "output": "4", "testtype": "stdin"}]
    labelled = livecodebench.problem(record(STDIN, pack(private)), "x")
    shown = (StdinTest("1\n", "2\n"),)
    assert labelled.problem == Problem("abc301_a", "Do it.", "easy", None, "", shown)
    assert labelled.hidden_tests == (*shown, StdinTest("3", "4"))


def test_functions():
    fields = {"metadata": json.dumps({"func_name": "f"}), "starter_code": "class Solution:\n    def f(self):"}
    labelled = livecodebench.problem(record(CALLS, packed(json.dumps(CALLS)), **fields), "x")
    assert labelled.problem.fn_name == "f"
    assert labelled.hidden_tests == (CallTest(([1, 2], "a"), [3, None]),) * 2


class Hostile:
    """Unpickling it would run a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_pickle_is_run(tmp_path):
    with pytest.raises(InputError, match=r"x: field 'private_test_cases': refused, it names 'posix\.mkdir'"):
        livecodebench.problem(record(STDIN, packed(Hostile(tmp_path / "ran"))), "x")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("private", "fields", "message"),
    [
        ("!", {}, "x: field 'private_test_cases' is neither JSON nor packed tests"),
        (base64.b64encode(b"no zlib").decode(), {}, "x: field 'private_test_cases' is neither JSON nor packed tests"),
        (packed("[]")[:-12], {}, "x: field 'private_test_cases' is"),
        (packed("[1"), {}, "x: field 'private_test_cases': not valid JSON"),
        (packed({"a": 1}), {}, "x: field 'private_test_cases' must be a list of tests, found dict"),
        ([{"input": 1}], {}, "x: field 'private_test_cases'[0] must be an object with the texts input and output"),
        (CALLS, {}, "x: field 'private_test_cases'[0]: testtype must be stdin, or functional beside a func_name"),
        (
            [],
            {"metadata": '{"func_name": 3}'},
            "x: field 'metadata' must be an object whose func_name names a function",
        ),
        ([], {"question_id": None}, "x: field 'question_id' must be text or a number, found NoneType"),
        ([], {"question_content": " "}, "x: field 'question_content' is empty"),
    ],
)
def test_malformed_records(private, fields, message):
    with pytest.raises(InputError) as caught:
        livecodebench.problem(record(STDIN, private, **fields), "x")
    assert str(caught.value).startswith(message)
