"""CodeContests: three kinds of tests, Python 3 solutions, names that can name a file."""

import pytest

from coderl.problems import codecontests
from coderl.types import InputError, Problem, StdinTest


def record(**fields) -> dict:
    return {
        "name": "1575_A. Sort/Merge",
        "description": "Do it.",
        "public_tests": {"input": ["1\n"], "output": ["2\n"]},
        "private_tests": {"input": [], "output": []},
        "generated_tests": {"input": ["3\n", "5\n"], "output": ["4\n", "6\n"]},
        "source": 2,
        "difficulty": 7,
        "solutions": {"language": [2, 3, 1], "solution": ["int main(){}", "print(int(input()) + 1)", "print 1"]},
        "incorrect_solutions": {"language": [3], "solution": ["print(1)"]},
        "cf_tags": ["math"],
        "input_file": "",
        "output_file": "",
        **fields,
    }


def test_problems():
    labelled = codecontests.problem(record(), "x")
    public = (StdinTest("1\n", "2\n"),)
    assert labelled.problem == Problem("1575_A. Sort_Merge", "Do it.", "A", example_tests=public)
    assert labelled.hidden_tests == (*public, StdinTest("3\n", "4\n"), StdinTest("5\n", "6\n"))
    assert labelled.solutions == ("print(int(input()) + 1)",)


def test_rows_of_objects_are_read_too():
    tests = [{"input": "1\n", "output": "2\n"}]
    solutions = [{"language": "PYTHON3", "solution": "print(2)"}]
    labelled = codecontests.problem(record(public_tests=tests, generated_tests=None, solutions=solutions), "x")
    assert labelled.hidden_tests == (StdinTest("1\n", "2\n"),)
    assert labelled.solutions == ("print(2)",)


@pytest.mark.parametrize(
    ("value", "word"), [(0, "unknown"), (3, "hard"), (6, "external"), (28, "V"), (29, "unknown"), ("B", "B")]
)
def test_difficulties(value, word):
    assert codecontests.problem(record(difficulty=value), "x").problem.difficulty == word


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_file": "in.txt"}, "x: field 'input_file' is 'in.txt': only stdin and stdout can be judged"),
        (
            {"public_tests": {"input": ["1"], "output": []}},
            "x: field 'public_tests' must be {input, output}, two lists of",
        ),
        (
            {"private_tests": {"input": [1], "output": ["1"]}},
            "x: field 'private_tests'[0]: input and output must be texts",
        ),
        ({"description": ""}, "x: field 'description' is empty"),
        ({"solutions": "print(1)"}, "x: field 'solutions' must be {language, solution}, two lists of one length"),
    ],
)
def test_malformed_records(fields, message):
    with pytest.raises(InputError) as caught:
        codecontests.problem(record(**fields), "x")
    assert str(caught.value).startswith(message)
