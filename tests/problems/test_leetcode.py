"""LeetCodeDataset: methods of Solution, a prelude before every program, lists and trees of nodes."""

import pytest

from coderl.execution import ExecutionConfig, Job, open_executor
from coderl.interop.samples import job_of
from coderl.problems import leetcode
from coderl.types import InputError, Outcome

PRELUDE = """from typing import *
inf = float("inf")

class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next

def list_node(values: list):
    raise NotImplementedError

class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val = val
        self.left = left
        self.right = right
"""
METHOD = "class Solution:\n    def f(self, {}):\n        {}\n"


def record(check: str, **fields) -> dict:
    test = f"def check(candidate):\n    {check}\n"
    return {
        "task_id": "a-b",
        "question_id": 1,
        "difficulty": "Easy",
        "problem_description": "Do it.",
        "starter_code": "class Solution:\n    def f(self, x: List[int]) -> int:\n        ",
        "prompt": PRELUDE,
        "entry_point": "Solution().f",
        "test": test,
        "input_output": [{"input": "x = 1", "output": "1"}],
        **fields,
    }


@pytest.fixture(scope="module")
def executor():
    with open_executor(ExecutionConfig(num_workers=1, min_isolation="unsafe")) as opened:
        yield opened


SUM = "assert candidate(nums = [1, 2], k = inf) == 3"
REVERSE = "assert is_same_list(candidate(head = list_node([1, 2, 3])), list_node([3, 2, 1]))"
MIRROR = "assert is_same_tree(candidate(root = tree_node([1, 2, 3, None, 4])), tree_node([1, 3, 2, None, None, 4]))"
SPLIT = "assert candidate(list_node([1, 2])) == [list_node([1]), list_node([2])]"
EMPTY = "assert candidate(root = tree_node([])) == None"


@pytest.mark.parametrize(
    ("check", "args", "body", "outcome"),
    [
        (SUM, "nums: List[int], k: int", "return sum(nums)", Outcome.PASSED_TEST),
        (SUM, "nums: List[int], k: int", "return 4", Outcome.FAILED_TEST),
        (SUM, "nums: List[int], k: int", "return nums[9]", Outcome.RUNTIME_ERROR),
        (
            REVERSE,
            "head: Optional[ListNode]",
            "last = None\n        while head: head.next, last, head = last, head, head.next\n        return last",
            Outcome.PASSED_TEST,
        ),
        (REVERSE, "head: Optional[ListNode]", "return head", Outcome.FAILED_TEST),
        (REVERSE, "head: Optional[ListNode]", "head.next = head\n        return head", Outcome.FAILED_TEST),
        (
            MIRROR,
            "root: Optional[TreeNode]",
            "if root:\n            root.left, root.right = self.f(root.right), self.f(root.left)\n        return root",
            Outcome.PASSED_TEST,
        ),
        (MIRROR, "root: Optional[TreeNode]", "return root", Outcome.FAILED_TEST),
        (SPLIT, "head", "return [ListNode(1), ListNode(2)]", Outcome.PASSED_TEST),
        (EMPTY, "root", "return root", Outcome.PASSED_TEST),
    ],
)
def test_programs_are_judged(executor, check, args, body, outcome):
    labelled = leetcode.problem(record(check), "x")
    (verdict,) = executor.run([job_of(labelled, METHOD.format(args, body))])
    assert verdict.outcome is outcome, verdict


def test_the_prelude_does_not_move_the_lines_of_a_program(executor):
    labelled = leetcode.problem(record(SUM), "x")
    code = "from __future__ import annotations\n" + METHOD.format("nums: List[int], k", "return nums[9]")
    (verdict,) = executor.run([job_of(labelled, code)])
    assert (verdict.error_subtype, verdict.error_line) == ("indexerror", 4)


def test_a_program_cannot_pass_by_replacing_what_compares(executor):
    labelled = leetcode.problem(record(REVERSE), "x")
    code = "is_same_list = lambda a, b: True\n" + METHOD.format("head", "return head")
    assert next(executor.run([job_of(labelled, code)])).outcome is Outcome.FAILED_TEST


def test_fields():
    labelled = leetcode.problem(record(SUM, completion=METHOD.format("nums, k", "return 3")), "x")
    assert labelled.problem.problem_id == "a-b"
    assert (labelled.problem.fn_name, labelled.problem.difficulty) == ("f", "easy")
    assert labelled.solutions == (METHOD.format("nums, k", "return 3"),)
    assert labelled.problem.prelude == PRELUDE
    assert job_of(labelled, "x") == Job("x", labelled.hidden_tests, "f", None, PRELUDE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"entry_point": "Solution.f"}, "x: field 'entry_point' must be Solution().name, found 'Solution.f'"),
        ({"problem_description": ""}, "x: field 'problem_description' is empty"),
        ({"test": "def check(candidate:\n    pass"}, "x: field 'test': not Python"),
        ({"more_tests": ["assert f(1)"]}, "x: field 'more_tests' looks like tests"),
    ],
)
def test_malformed_records(fields, message):
    with pytest.raises(InputError) as caught:
        leetcode.problem(record(SUM, **fields), "x")
    assert str(caught.value).startswith(message)
