"""Whatever a record holds, its reader returns a problem or complains in one line."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl.problems import formats
from coderl.types import InputError, LabelledProblem

CHECK = "def check(candidate):\n    assert candidate(1) == 1\n"
RECORDS = {
    "apps": {
        "problem_id": 1,
        "question": "q",
        "input_output": json.dumps({"fn_name": "f", "inputs": [[{"1": 2}]], "outputs": [[1]]}),
        "solutions": '["x"]',
        "starter_code": "def f(x):",
        "difficulty": "easy",
    },
    "mbpp": {"task_id": 1, "text": "t", "code": "def f(x): return x", "test_list": ["assert f(1) == 1"]}
    | {"test_setup_code": "", "challenge_test_list": [], "test_imports": ["import math"]},
    "humaneval": {"task_id": "HumanEval/1", "prompt": 'def f(x):\n    """d"""\n', "entry_point": "f", "test": CHECK}
    | {"canonical_solution": "    return x\n", "example_test": CHECK},
    "evalplus": {"task_id": "Mbpp/2", "prompt": '"""\nd\nassert f(1) == 1\n"""\n', "entry_point": "f", "atol": 0}
    | {"canonical_solution": "def f(x): return x", "base_input": [[1]], "plus_input": {}},
    "leetcode": {"task_id": "a", "problem_description": "d", "entry_point": "Solution().f", "test": CHECK}
    | {"prompt": "class ListNode: pass\n", "starter_code": "", "completion": "x", "difficulty": "Easy"},
    "livecodebench": {"question_id": "a", "question_content": "d", "metadata": "{}", "difficulty": "easy"}
    | {"public_test_cases": '[{"input": "1", "output": "2"}]', "private_test_cases": "eJw=", "starter_code": ""},
    "codecontests": {
        "name": "a",
        "description": "d",
        "public_tests": {"input": ["1"], "output": ["2"]},
        "difficulty": 1,
    }
    | {"private_tests": [{"input": "1", "output": "2"}], "solutions": {"language": [3], "solution": ["x"]}},
    "jsonl": {"problem_id": "a", "description": "d", "fn_name": "f", "solutions": ["x"], "checker": "x", "prelude": "x"}
    | {"hidden_tests": [{"args": [{"1": 2}], "expected": 1, "int_keys": [0], "is_wrapped": False}]}
    | {"example_tests": [{"stdin": "", "stdout": ""}, {"assert": "x", "setup": ""}]},
}
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(
        ["[", "{}", "[[1]]", '{"inputs": [1], "outputs": 2}', "assert", "f", "\ud800", "\x00", "eJyLBQAAqACo"]
    )
)
keys = st.sampled_from(
    ["inputs", "outputs", "fn_name", "input", "output", "args", "expected", "stdin", "int_keys", "1"]
)
junk = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=3), max_leaves=6)


@pytest.mark.parametrize("format", RECORDS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_problem_or_one_line(format, data):
    record = dict(RECORDS[format])
    for name in data.draw(st.lists(st.sampled_from(sorted(record)), min_size=1, max_size=2)):
        record[name] = data.draw(junk)
    assert outcome_of(record, format) in ("a problem", "one line")


def outcome_of(record: dict, format: str) -> str:
    try:
        found = formats.problem(record, "file:1", 0, format, formats.Options())
    except InputError as error:
        message = str(error)
        return "one line" if message.startswith("file:1") and "\n" not in message else message
    return "a problem" if isinstance(found, LabelledProblem) else repr(found)
