"""Which failing programs are repaired, and the order of submission, worked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coderl.critic_sampling.repair import rank, repair_candidates
from coderl.types import ExecutionResult, Outcome, Program, SandboxError

PASS, FAIL = ExecutionResult(Outcome.PASSED_TEST), ExecutionResult(Outcome.FAILED_TEST)


def programs(*codes):
    return [Program("p", index, code) for index, code in enumerate(codes)]


def test_the_most_promising_failing_programs_are_repaired_and_ties_go_to_the_earlier():
    assert repair_candidates([0.1, 0.7, 0.3, 0.7], 3) == [1, 3, 2]


def test_all_are_repaired_where_more_are_asked_for_than_there_are():
    assert repair_candidates([0.1, 0.2], 4) == [1, 0]


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
    order = rank(programs("a", "b", "c"), [SandboxError("pipe"), None, PASS], [0.9, 0.8, 0.1])
    assert order == [2, 0, 1]


def test_rank_refuses_lists_of_different_length():
    with pytest.raises(ValueError, match="zip"):
        rank(programs("a", "b"), [PASS], [0.5, 0.5])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 1)), max_size=6))
def test_rank_is_an_order_of_all_programs(rows):
    results = [PASS if passes else FAIL for _, passes, _ in rows]
    order = rank(programs(*(code for code, _, _ in rows)), results, [value for _, _, value in rows])
    assert sorted(order) == list(range(len(rows)))
