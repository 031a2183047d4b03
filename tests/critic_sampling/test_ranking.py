"""The order of submission, worked by hand, and what counts as behaving alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coderl.critic_sampling.inputs import mutated_inputs
from coderl.critic_sampling.ranking import class_sizes, open_behaviours, rank
from coderl.execution import ExecutionConfig
from coderl.types import (
    AssertTest,
    CallTest,
    Outcome,
    Problem,
    Program,
    StdinTest,
    Verdict,
)

PASS, FAIL = Verdict(Outcome.PASSED_TEST), Verdict(Outcome.FAILED_TEST)


def programs(*codes):
    return [Program("p", index, code) for index, code in enumerate(codes)]


def test_rank_puts_example_passers_first_then_the_critics_value():
    """b and c pass; c is valued higher. a is valued highest of all and fails."""
    order = rank(programs("a", "b", "c"), [FAIL, PASS, PASS], [0.99, 0.2, 0.6])
    assert order == [2, 1, 0]


def test_rank_breaks_ties_by_length_and_then_by_position():
    order = rank(programs("long text", "xy", "ab"), [PASS, PASS, PASS], [0.5, 0.5, 0.5])
    assert order == [1, 2, 0]


def test_rank_puts_copies_last_and_a_missing_value_last_of_its_group():
    """The second `a` would be the same submission again, so even a failing program comes before it."""
    order = rank(programs("a", "a", "b", "c"), [PASS, PASS, FAIL, PASS], [0.9, 0.9, 0.1, None])
    assert order == [0, 3, 2, 1]


def test_rank_treats_a_program_without_verdict_as_not_passing():
    order = rank(programs("a", "b", "c"), [Verdict(None, fault="pipe"), None, PASS], [0.9, 0.8, 0.1])
    assert order == [2, 0, 1]


def test_rank_refuses_lists_of_different_length():
    with pytest.raises(ValueError, match="zip"):
        rank(programs("a", "b"), [PASS], [0.5, 0.5])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 1)), max_size=6))
def test_rank_is_an_order_of_all_programs(rows):
    results = [PASS if passes else FAIL for _, passes, _ in rows]
    order = rank(programs(*(code for code, _, _ in rows)), results, [value for _, _, value in rows])
    assert sorted(order) == list(range(len(rows)))


# ------------------------------------------------------------------------------------------------------- behaviour


def test_the_best_of_the_largest_class_comes_first_then_the_best_of_the_next():
    """a b c behave alike, d e too, f is alone and the critic's favourite; g fails the examples.

    First round of the classes: c (0.7, of 3), e (0.5, of 2), f (of 1); second: b, d; third: a.
    """
    behaviours = [("1",), ("1",), ("1",), ("2",), ("2",), ("3",), ("1",)]
    values = [0.1, 0.6, 0.7, 0.4, 0.5, 0.99, 0.9]
    order = rank(programs(*"abcdefg"), [PASS] * 6 + [FAIL], values, behaviours)
    assert "".join("abcdefg"[i] for i in order) == "cefbdag"


def test_copies_vote_and_are_submitted_last():
    """b is drawn three times: its class of three beats that of the critic's favourite a."""
    order = rank(programs("a", "b", "b", "b"), [PASS] * 4, [0.9, 0.2, 0.2, 0.2], [("1",), ("2",), ("2",), ("2",)])
    assert order == [1, 0, 2, 3]


def test_classes_are_counted_among_passing_and_failing_programs_apart():
    """Nothing is known of programs without inputs, and of one that the sandbox failed on."""
    behaviours = [("1",), ("1",), ("1",), ("sandbox fault",), ("sandbox fault",)]
    assert class_sizes(behaviours, [True, True, False, True, True]) == [2, 2, 1, 1, 1]
    assert class_sizes([(), ()], [True, True]) == [1, 1]


ADD = Problem("p", "Sum.", example_tests=(StdinTest("3\n1 2 3\n", "6\n"),))
CALL = Problem(
    "q", "Sum.", fn_name="f", example_tests=(CallTest(([1, 2], 0.5), 3.5), AssertTest("assert f([4], 1) == 5"))
)


def test_inputs_keep_the_form_of_the_examples_and_are_new():
    """The first line goes on saying how many numbers the second has, and that has at least one."""
    found = mutated_inputs(ADD, 12, seed=0)
    assert len(found) == len(set(found)) == 12
    for text in found:
        assert isinstance(text, str)
        number, numbers, end = text.split("\n")
        assert (int(number), end) == (len(numbers.split()), "")
    assert found == mutated_inputs(ADD, 12, seed=0) != mutated_inputs(ADD, 12, seed=1)
    assert "3\n1 2 3\n" not in found


def test_arguments_keep_their_types():
    found = mutated_inputs(CALL, 12, seed=0)
    assert len(found) == 12
    assert all(isinstance(a, list) and type(b) in (int, float) for a, b in found)


@pytest.mark.parametrize(
    "tests",
    [(), (StdinTest("", "1"),), (AssertTest("assert f(x) == 1"),), (AssertTest("import math"),), (CallTest((), 1),)],
)
def test_where_no_input_can_be_made_there_is_none(tests):
    assert mutated_inputs(Problem("p", "d", example_tests=tests), 4, seed=0) == ()


@given(st.text(alphabet="0123 a-.\n", max_size=20))
def test_any_text_can_be_changed(text):
    for changed in mutated_inputs(Problem("p", "d", example_tests=(StdinTest(text, ""),)), 3, seed=0):
        assert isinstance(changed, str)
        assert changed != text


def test_programs_that_do_the_same_by_other_means_behave_alike():
    """Trailing blanks and a float's last digits are no difference; another answer and another error are."""
    codes = {
        "sum": "input(); print(sum(map(int, input().split())))",
        "loop": "input()\nt = 0\nfor x in input().split(): t += int(x)\nprint(f'{t}  ')",
        "max": "input(); print(max(map(int, input().split())))",
        "crash": "input(); print(1 // 0)",
        "other crash": "[][1]",
    }
    inputs = ("2\n5 6\n", "1\n7\n")
    reals = ("1\n3\n",)
    with open_behaviours(ExecutionConfig(num_workers=1)) as runner:
        found = runner.behaviours([(ADD, code, inputs) for code in codes.values()])
        third, thirds = runner.behaviours([(ADD, f"print({v})", reals) for v in ("1 / 3", "0.33333334")])
        (sum_of, rounded) = runner.behaviours(
            [(CALL, f"def f(a, b): return {v}", (([1, 2], 0.1),)) for v in ("sum(a) + b", "b + 3")]
        )
    by_name = dict(zip(codes, found, strict=True))
    assert by_name["sum"] == by_name["loop"] == ("printed\n11", "printed\n7")
    assert by_name["max"] == ("printed\n6", "printed\n7")
    assert by_name["crash"] == ("runtime_error zerodivisionerror",) * 2
    assert by_name["other crash"] == ("runtime_error indexerror",) * 2
    assert third == thirds
    assert sum_of == rounded
