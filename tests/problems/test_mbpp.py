"""MBPP: both editions, official splits, which tests are shown, and which function is asked for."""

from typing import Any

import pytest

from coderl import problems
from coderl.problems import mbpp
from coderl.types import AssertTest, InputError

ASSERTS = ["assert f(1) == 2", "assert f(2) == 3 ", "assert f(3) == 4"]


def record(**changes: Any) -> dict[str, Any]:
    full = {
        "task_id": 601,
        "text": "Write f.",
        "code": "def f(n):\r\n  return n + 1",
        "test_setup_code": "",
        "test_list": ASSERTS,
        "challenge_test_list": ["assert f(-1) == 0"],
    }
    return {**full, **changes}


TESTS = (AssertTest("assert f(1) == 2"), AssertTest("assert f(2) == 3"), AssertTest("assert f(3) == 4"))


def test_the_official_setting_shows_all_tests_and_grades_by_all():
    found = mbpp.problem(record(), "x")
    assert found.problem.problem_id == "mbpp_601"
    assert found.problem.fn_name == "f"
    assert found.problem.example_tests == TESTS
    assert found.hidden_tests == TESTS
    assert found.solutions == ("def f(n):\n  return n + 1",)


@pytest.mark.parametrize(
    ("num_shown", "shown", "hidden"),
    [(0, (), TESTS), (1, TESTS[:1], TESTS[1:]), (2, TESTS[:2], TESTS[2:]), (3, TESTS, TESTS), (9, TESTS, TESTS)],
)
def test_fewer_shown_tests_leave_the_others_to_grade(num_shown, shown, hidden):
    found = mbpp.problem(record(), "x", num_shown_tests=num_shown)
    assert (found.problem.example_tests, found.hidden_tests) == (shown, hidden)


def test_challenge_tests_do_not_grade():
    """As in the official evaluation; `record()` has one."""
    assert mbpp.problem(record(), "x").hidden_tests == TESTS


def test_the_tests_that_evalplus_adds_on_the_hub_grade_too():
    plus = "for i in range(3):\n    assert f(i) == i + 1"
    found = mbpp.problem(record(test=plus), "x")
    assert found.hidden_tests == (*TESTS, AssertTest(plus))
    assert found.problem.example_tests == TESTS


def test_an_assertion_that_is_not_python_is_named():
    with pytest.raises(
        InputError, match=r"x: field 'test_list\[1\]': not Python \(invalid syntax, line 1\): 'assert f\(1"
    ):
        mbpp.problem(record(test_list=["assert f(1) == 2", "assert f(1) == = 1"]), "x")


def test_setup_code_is_for_after_the_program_and_imports_stand_with_the_assert():
    found = mbpp.problem(record(test_setup_code="root = Node(1) \r\nx = 2"), "x")
    assert found.hidden_tests[0] == AssertTest("assert f(1) == 2", setup="root = Node(1) \nx = 2")
    sanitized = {
        "task_id": 2,
        "prompt": "Write f.",
        "code": "def f(n): return n",
        "test_imports": ["import math"],
        "test_list": ["assert math.isclose(f(1), 1)"],
    }
    found = mbpp.problem(sanitized, "x")
    assert found.hidden_tests == (AssertTest("import math\nassert math.isclose(f(1), 1)"),)
    assert found.problem.fn_name == "f"


@pytest.mark.parametrize(
    ("asserts", "solution", "expected"),
    [
        (("assert set(f((1,))) == set((1,))",), "def f(x): return x", "f"),
        (("assert (f(root)) == 3",), "class Node: pass\ndef f(x): return 3", "f"),
        (("assert g(h(1)) == 3", "assert g(h(2)) == 4"), "def h(x): return x", "h"),
        (("assert sum(1) == 3",), "def sum(x): return 3", "sum"),
        (("assert f(1) == g(1)", "assert f(2)"), "", "f"),
        (("assert math.isclose(f(1), 1.0)",), "f = lambda x: x", "f"),
        (("assert f(1) ==",), "def f(x): return 3", None),
        ((), "def f(x): return 3", None),
    ],
)
def test_the_function_that_the_asserts_call(asserts, solution, expected):
    assert mbpp.fn_name_of(asserts, solution) == expected


def test_splits_by_task_id():
    names = {task_id: mbpp.split_of({"task_id": task_id}) for task_id in (1, 10, 11, 510, 511, 600, 601, 974, 975, 0)}
    assert names == {
        1: "prompt", 10: "prompt", 11: "test", 510: "test", 511: "validation",
        600: "validation", 601: "train", 974: "train", 975: None, 0: None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_id": "a"}, "field 'task_id' must be a number, found 'a'"),
        ({"text": "  "}, "the task's text is empty"),
        ({"code": None}, "field 'code' must be text, found NoneType"),
        ({"test_list": "assert"}, "field 'test_list' must be a list of texts"),
    ],
)
def test_malformed_records(changes, message):
    with pytest.raises(InputError, match=message):
        mbpp.problem(record(**changes), "x")


def test_a_record_without_tests_loads():
    assert mbpp.problem(record(test_list=[]), "x").hidden_tests == ()


def test_the_real_editions(shared_data):
    """974 and 427 tasks; 10, 374, 90 and 500 in the splits; each task's function is one its solution defines."""
    full = problems.load(shared_data / "mbpp" / "mbpp.jsonl")
    sanitized = problems.load(shared_data / "mbpp" / "sanitized-mbpp.json")
    assert (len(full), len(sanitized)) == (974, 427)
    for labelled in [*full, *sanitized]:
        assert f"def {labelled.problem.fn_name}" in labelled.solutions[0]
        assert "\r" not in labelled.problem.description + labelled.solutions[0]
    sizes = {s: len(problems.load(shared_data / "mbpp" / "mbpp.jsonl", split=s)) for s in mbpp.SPLITS}
    assert sizes == {"prompt": 10, "test": 500, "validation": 90, "train": 374}
    with_setup = {p.problem.problem_id for p in full if p.hidden_tests[0].setup}
    assert with_setup == {"mbpp_367", "mbpp_927"}
    assert sum("import math\n" in p.hidden_tests[0].code for p in sanitized) == 13
    assert [len(p.hidden_tests) for p in problems.load(shared_data / "mbpp" / "mbpp.jsonl", num_shown_tests=1)] == [
        2
    ] * 974
