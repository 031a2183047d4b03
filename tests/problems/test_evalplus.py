"""EvalPlus: what its inputs and canonical solutions say of programs, judged in the sandbox."""

import json

import pytest

from coderl import problems
from coderl.execution import ExecutionConfig, open_executor
from coderl.interop.samples import job_of, read_samples
from coderl.problems import evalplus
from coderl.types import AssertTest, InputError, Outcome

PASSED, FAILED = Outcome.PASSED_TEST, Outcome.FAILED_TEST


def humaneval(name: str, body: str, inputs: list, plus: list, atol: float = 0) -> dict:
    return {
        "task_id": "HumanEval/7",
        "prompt": f'def {name}(xs, y=0):\n    """Do it.\n    >>> {name}([1])\n    1\n    """\n',
        "entry_point": name,
        "canonical_solution": body,
        "test": "def check(candidate):\n    assert True",
        "contract": "\n    assert type(xs) == list\n",
        "base_input": inputs,
        "plus_input": plus,
        "atol": atol,
    }


def mbpp(number: int, name: str, code: str, inputs: list, plus: object, atol: float = 0) -> dict:
    return {
        "task_id": f"Mbpp/{number}",
        "prompt": f'"""\nWrite a function.\nassert {name}(1) == 1\n"""\n',
        "entry_point": name,
        "canonical_solution": f"\n{code}\n",
        "base_input": inputs,
        "plus_input": plus,
        "atol": atol,
    }


@pytest.fixture(scope="module")
def judge():
    with open_executor(ExecutionConfig(num_workers=1, min_isolation="unsafe", stop="never")) as executor:
        yield lambda record, code: next(executor.run([job_of(evalplus.problem(record, "x"), code)])).test_outcomes


SUM = humaneval("add_up", "    return sum(xs)\n", [[[1, 2]]], [[[]], [[5, 5]]])
MEAN = "    return sum(xs) / len(xs)\n"


@pytest.mark.parametrize(
    ("record", "code", "wanted"),
    [
        (SUM, "def add_up(xs): return sum(xs)", (PASSED, PASSED)),
        (SUM, "def add_up(xs): return 3", (PASSED, FAILED)),
        (SUM, "def add_up(xs): return sum(xs) + 1e-9", (FAILED, FAILED)),  # integers have no tolerance
        (SUM, "def add_up(xs):\n    s = sum(xs)\n    xs.clear()\n    return s", (PASSED, PASSED)),
        (
            humaneval("mean", MEAN, [[[1, 2]]], [[[4]]]),
            "def mean(xs): return sum(xs) / len(xs) + 5e-7",
            (PASSED, PASSED),
        ),
        (
            humaneval("mean", MEAN, [[[1, 2]]], [[[4]]]),
            "def mean(xs): return sum(xs) / len(xs) + 5e-6",
            (FAILED, FAILED),
        ),
        (
            humaneval("mean", MEAN, [[[1, 2]]], [[[4]]], 0.1),
            "def mean(xs): return sum(xs) / len(xs) + 0.09",
            (PASSED, PASSED),
        ),
        (
            humaneval("mean", MEAN, [[[1, 2]]], [[[4]]], 0.1),
            "def mean(xs): return sum(xs) / len(xs) + 0.2",
            (FAILED, FAILED),
        ),
        # HumanEval/32: any root counts. x^2 - 1 has two.
        (
            humaneval("find_zero", "    return 1.0\n", [[[-1, 0, 1]]], [], 1e-4),
            "def find_zero(xs): return -1.0",
            (PASSED,),
        ),
        (
            humaneval("find_zero", "    return 1.0\n", [[[-1, 0, 1]]], [], 1e-4),
            "def find_zero(xs): return 0.5",
            (FAILED,),
        ),
    ],
)
def test_humaneval_plus(judge, record, code, wanted):
    assert judge(record, code) == wanted


IS_TUPLES = "return all(type(x) is tuple for x in a)"


@pytest.mark.parametrize(
    ("record", "code", "wanted"),
    [
        # What JSON cannot write: tuples (tasks 2, 63, 259, 580), sets (115), complex numbers (124).
        (mbpp(116, "f", f"def f(*a): {IS_TUPLES}", [[[1], [2]]], {}), f"def f(*a): {IS_TUPLES}", (PASSED,)),
        (mbpp(63, "f", f"def f(a): {IS_TUPLES}", [[[[1], [2]]]], []), "def f(a): return type(a) is list", (PASSED,)),
        (mbpp(259, "f", f"def f(a): {IS_TUPLES}", [[[[1], [2]]]], []), "def f(a): return type(a) is tuple", (PASSED,)),
        (mbpp(580, "f", "def f(a): return a", [[[1, [2]]]], []), "def f(a): return (1, (2,))", (PASSED,)),
        (mbpp(115, "f", "def f(a): return a", [[[[1], []]]], []), "def f(a): return [{1}, {}]", (PASSED,)),
        (mbpp(124, "f", "def f(a, b): return b.imag", [["1", "2j"]], []), "def f(a, b): return 2.0", (PASSED,)),
        (mbpp(999, "f", f"def f(a): {IS_TUPLES}", [[[[1]]]], []), "def f(a): return False", (PASSED,)),
        # More than one right answer.
        (mbpp(2, "similar_elements", "def similar_elements(a, b): return a", [[[1, 2], [1]]], []),
         "def similar_elements(a, b): return [2, 1]", (PASSED,)),
        (mbpp(2, "similar_elements", "def similar_elements(a, b): return a", [[[1, 2], [1]]], []),
         "def similar_elements(a, b): return [2]", (FAILED,)),
        (mbpp(2, "similar_elements", "def similar_elements(a, b): return a", [[[1, 2], [1]]], []),
         "def similar_elements(a, b): return 3", (FAILED,)),
        (mbpp(434, "text_match_three", "def text_match_three(s): return [1] if s else None", [["ab"], [""]], []),
         "def text_match_three(s): return bool(s)", (PASSED,)),
        (mbpp(434, "text_match_three", "def text_match_three(s): return [1] if s else None", [["ab"], [""]], []),
         "def text_match_three(s): return None", (FAILED,)),
        (mbpp(434, "text_match_three", "def text_match_three(s): return [1] if s else None", [["ab"], [""]], []),
         "import re\ndef text_match_three(s): return re.match('a', s)", (PASSED,)),
        (mbpp(295, "sum_div", "def sum_div(n): return n", [[7]], []), "def sum_div(n): return 0", (PASSED,)),
        (mbpp(558, "digit_distance_nums", "def digit_distance_nums(a, b): return 9", [[1, 23]], []),
         "def digit_distance_nums(a, b): return 4", (PASSED,)),  # |0-2| + |1-3|
        # base 3, height 4: 9 + 2 * 3 * sqrt(1.5 ** 2 + 4 ** 2) = 9 + 6 * 4.272 = 34.6
        (mbpp(581, "surface_Area", "def surface_Area(b, h): return 33", [[3, 4]], []),
         "def surface_Area(b, h): return 35", (PASSED,)),
        (mbpp(581, "surface_Area", "def surface_Area(b, h): return 33", [[3, 4]], []),
         "def surface_Area(b, h): return 34", (FAILED,)),
    ],
)  # fmt: skip
def test_mbpp_plus(judge, record, code, wanted):
    assert judge(record, code) == wanted


def test_many_inputs_are_each_judged(judge):
    """They cross in batches of fifty: the last of 101 is alone in its own."""
    record = humaneval("neg", "    return -xs\n", [[n] for n in range(101)], [])
    assert judge(record, "def neg(x): return -x") == (PASSED,)
    assert judge(record, "def neg(x): return -x if x < 100 else 0") == (FAILED,)
    assert judge(record, "def neg(x): return -x if x != 49 else 0") == (FAILED,)


def test_an_error_is_the_programs_with_its_line():
    record = humaneval("neg", "    return -xs\n", [[n] for n in range(60)], [])
    with open_executor(ExecutionConfig(num_workers=1, min_isolation="unsafe")) as executor:
        job = job_of(evalplus.problem(record, "x"), "def neg(x):\n    assert x < 55\n    return -x")
        (verdict,) = executor.run([job])
    assert (verdict.outcome, verdict.error_subtype, verdict.error_line) == (Outcome.RUNTIME_ERROR, "assertionerror", 2)


def test_problems_of_a_release(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(SUM))
    (labelled,) = problems.load(tmp_path / "a.jsonl", split="test")
    assert labelled.problem.problem_id == "HumanEval_7"
    assert labelled.problem.starter_code == SUM["prompt"]
    assert labelled.solutions == (SUM["prompt"] + SUM["canonical_solution"],)
    labelled = evalplus.problem(mbpp(3, "f", "def f(x): return x", [[1]], {}), "x")
    assert (labelled.problem.problem_id, labelled.problem.description) == ("mbpp_3", "Write a function.")
    assert labelled.problem.example_tests == (AssertTest("assert f(1) == 1"),)
    assert labelled.problem.starter_code == ""
    assert labelled.solutions == ("def f(x): return x\n",)


def test_three_for_everything_fails_and_the_canonical_solution_passes(judge, shared_data):
    """The audit's case: without the added inputs `return 3` passes."""
    found = problems.load(shared_data / "cases" / "HumanEvalPlus.jsonl")
    record = json.loads((shared_data / "cases" / "HumanEvalPlus.jsonl").read_text())
    (sample,) = read_samples(shared_data / "cases" / "s_heplus.jsonl", found)
    assert judge(record, sample.code) == (PASSED, FAILED)
    assert judge(record, found[0].solutions[0]) == (PASSED, PASSED)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("base_input", [1], "x: field 'base_input' must be a list of argument lists"),
        ("atol", -1, "x: field 'atol' must be a number that is not negative, found -1"),
        ("canonical_solution", None, "x: field 'canonical_solution' must be text"),
        ("entry_point", "f g", "x: field 'base_input': entry_point must name a function, found 'f g'"),
        ("more_input", [[1]], "x: field 'more_input' looks like tests"),
    ],
)
def test_malformed_records(field, value, message):
    with pytest.raises(InputError) as caught:
        evalplus.problem({**SUM, field: value}, "x")
    assert str(caught.value).startswith(message)
