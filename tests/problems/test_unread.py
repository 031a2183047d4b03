"""No field that carries tests is dropped without a word, in any format."""

import json

import pytest

from coderl import problems
from coderl.problems.unread import refuse_unread_tests
from coderl.types import InputError

CHECK = "def check(f):\n    assert f(1) == 1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("plus_tests", ["anything"]),
        ("hiddenTests", {"a": 1}),
        ("test_cases", [[1, 2]]),
        ("extra", ["assert f(1) == 1"]),
        ("extra", "assert f(1) == 1\nassert f(2) == 2"),
        ("extra", CHECK),
        ("extra", "class TestF(unittest.TestCase):\n    def test_f(self):\n        self.assertEqual(f(1), 1)"),
        ("extra", {"inputs": ["1"], "outputs": ["2"]}),
        ("extra", [{"input": "1", "output": "2"}]),
        ("extra", json.dumps({"inputs": ["1"], "outputs": ["2"]})),
        ("more_inputs", "[[1], [2]]"),
        ("examples", [{"x": 1}]),
    ],
)
def test_fields_that_look_like_tests_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"^x: field '{name}' looks like tests"):
        refuse_unread_tests({"known": 1, name: value}, {"known"}, "x")
    refuse_unread_tests({name: value}, {name}, "x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("plus_tests", []),
        ("tests", None),
        ("num_tests", 5),
        ("is_test", True),
        ("testtype", "stdin"),
        ("input_format", "The first line contains n."),
        ("Expected Time Complexity", "O(n)"),
        ("latest", ["a"]),
        ("tags", ["greedy"]),
        ("solution", "def f(x):\n    assert x > 0\n    return x"),
        ("note", "We assert that the input is sorted."),
        ("url", "https://example.org/tests"),
        ("metadata", {"input": "x"}),
    ],
)
def test_other_fields_are_not(name, value):
    refuse_unread_tests({name: value}, (), "x")


RECORDS = {
    "apps": {"problem_id": 1, "question": "q", "input_output": ""},
    "taco": {"question": "q", "input_output": ""},
    "mbpp": {"task_id": 1, "text": "t", "code": "def f(x): return x", "test_list": ["assert f(1) == 1"]},
    "humaneval": {"task_id": "HumanEval/1", "prompt": "def f(x):\n", "entry_point": "f", "test": CHECK},
    "evalplus": {
        "task_id": "HumanEval/1",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "canonical_solution": "    return x\n",
        "base_input": [[1]],
    },
    "leetcode": {"task_id": "a", "problem_description": "d", "entry_point": "Solution().f", "test": CHECK},
    "livecodebench": {"question_id": "a", "question_content": "d", "public_test_cases": "[]"},
    "codecontests": {"name": "a", "description": "d", "public_tests": {"input": [], "output": []}},
    "jsonl": {"problem_id": "a", "description": "d"},
}


@pytest.mark.parametrize("format", RECORDS)
def test_in_every_format(tmp_path, format):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(RECORDS[format]))
    assert len(problems.load(path, format=format)) == 1
    assert len(problems.load(path)) == 1
    path.write_text(json.dumps({**RECORDS[format], "secret_tests": ["assert f(2) == 2"]}))
    with pytest.raises(InputError, match=r"a.jsonl:1: (unknown )?field 'secret_tests'"):
        problems.load(path)


def test_beside_the_inputs_of_apps(tmp_path):
    path = tmp_path / "a.jsonl"
    tests = {"inputs": ["1"], "outputs": ["2"], "hidden_inputs": ["3"]}
    path.write_text(json.dumps({**RECORDS["apps"], "input_output": json.dumps(tests)}))
    with pytest.raises(InputError, match=r"a\.jsonl:1 input_output: field 'hidden_inputs' looks like tests"):
        problems.load(path)
