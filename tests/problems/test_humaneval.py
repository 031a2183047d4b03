"""HumanEval: code to complete, its docstring's examples, and one test that holds them all."""

import gzip
import json

import pytest

from coderl import problems
from coderl.problems import humaneval
from coderl.types import AssertTest, CallTest, InputError

RECORD = {
    "task_id": "HumanEval/0",
    "prompt": 'import math\n\n\ndef add(a: int, b: int):\n    """ Add.\n    >>> add(1, 2)\n    3\n    """\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(1, 2) == 3\n\n",
}


def test_one_record():
    found = humaneval.problem(RECORD, "x")
    assert found.problem.problem_id == "HumanEval_0"
    assert found.problem.description == "Add.\n>>> add(1, 2)\n3"
    assert found.problem.starter_code == RECORD["prompt"]
    assert found.problem.fn_name == "add"
    assert found.problem.example_tests == (CallTest((1, 2), 3),)
    assert found.solutions == (RECORD["prompt"] + RECORD["canonical_solution"],)
    code = "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate(1, 2) == 3\n\ncheck(add)\n"
    assert found.hidden_tests == (AssertTest(code),)


def test_a_prompt_that_does_not_parse_is_its_own_description():
    prompt = "def add(a, b):\n    # no body yet\n"
    found = humaneval.problem({**RECORD, "prompt": prompt}, "x")
    assert found.problem.description == prompt


@pytest.mark.parametrize(("field", "message"), [("prompt", "must be text"), ("test", "must be text")])
def test_a_missing_field(field, message):
    with pytest.raises(InputError, match=message):
        humaneval.problem({k: v for k, v in RECORD.items() if k != field}, "x")


def test_plain_and_gzipped_files_are_read_alike(tmp_path):
    text = json.dumps(RECORD) + "\n"
    (tmp_path / "a.jsonl").write_text(text)
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(text)
    assert problems.load(tmp_path / "a.jsonl") == problems.load(tmp_path / "b.jsonl.gz", split="test")
    with pytest.raises(InputError, match="unknown split 'train'; known: test"):
        problems.load(tmp_path / "a.jsonl", split="train")


def test_a_file_that_is_not_gzip(tmp_path):
    (tmp_path / "b.jsonl.gz").write_text("{}")
    with pytest.raises(InputError, match="not a whole gzip file"):
        problems.load(tmp_path / "b.jsonl.gz")


def test_the_real_file(shared_data):
    """164 tasks; the asserts and the solution of each compile."""
    found = problems.load(shared_data / "humaneval" / "HumanEval.jsonl.gz")
    assert len(found) == 164
    for labelled in found:
        compile(labelled.solutions[0] + labelled.hidden_tests[0].code, labelled.problem.problem_id, "exec")
    assert sum(bool(labelled.problem.example_tests) for labelled in found) >= 146


def test_the_visible_tests_of_humanevalpack_are_the_examples():
    shown = "def check(f):\n    assert f(0, 0) == 0"
    found = humaneval.problem({**RECORD, "example_test": shown}, "x")
    assert found.problem.example_tests == (AssertTest(shown + "\n\ncheck(add)\n"),)
