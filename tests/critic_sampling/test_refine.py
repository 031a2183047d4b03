"""The cut rule and the division of budgets, worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coderl.critic_sampling.refine import best_prefix, binary_probs, split_budget


def probs(*passed):
    """Rows of p(Failed), p(Passed) from p(Passed) alone."""
    return np.array([[1 - p, p] for p in passed]).reshape(-1, 2)


@pytest.mark.parametrize(
    ("passed", "length", "why"),
    [
        ((0.6, 0.9, 0.7), 2, "the highest p(Passed) is after token 2, and nothing before it is failing"),
        (
            (0.6, 0.4, 0.9, 0.5),
            1,
            "the best is token 3, but failing is likelier after token 2: it goes and token 3 too",
        ),
        ((0.6, 0.9, 0.1), 2, "what lies after the best token cannot cut"),
        ((0.4, 0.9), 0, "the first token is failing: all is drawn anew"),
        ((0.2, 0.3, 0.1), 0, "the best token itself is failing, and so is the first"),
        ((0.6, 0.3, 0.4, 0.95), 1, "of two failing tokens the first cuts"),
        ((0.7, 0.8, 0.8, 0.6), 2, "of two best tokens the first counts"),
        ((0.5, 0.5), 1, "an even chance does not cut"),
        ((0.9,), 1, "one good token"),
        ((), 0, "no token at all"),
    ],
)
def test_best_prefix_by_hand(passed, length, why):
    assert best_prefix(probs(*passed)) == length, why


@given(st.lists(st.floats(0, 1), max_size=12))
def test_every_token_of_the_best_prefix_is_at_least_as_likely_to_pass_as_to_fail(passed):
    """And the prefix is either cut by a failing token or ends at the maximum."""
    table = probs(*passed)
    length = best_prefix(table)
    assert (table[:length, 0] <= table[:length, 1]).all()
    ends_at_best = length > 0 and table[length - 1, 1] == table[:, 1].max()
    is_cut = length < len(table) and table[length, 0] > table[length, 1]
    assert ends_at_best or is_cut or not passed


def test_a_critic_of_four_outcomes_is_binary_by_adding_up_what_does_not_pass():
    """0.1 + 0.2 + 0.3 fail, 0.4 pass; a binary critic is left alone."""
    four = np.array([[0.1, 0.2, 0.3, 0.4]])
    assert binary_probs(four) == pytest.approx(np.array([[0.6, 0.4]]))
    two = np.array([[0.3, 0.7]])
    assert binary_probs(two) is two
    with pytest.raises(ValueError, match="got 3"):
        binary_probs(np.ones((1, 3)))


@pytest.mark.parametrize(
    ("total", "parts", "shares"),
    [
        (200, 3, [67, 67, 66]),
        (5, 5, [1, 1, 1, 1, 1]),
        (3, 5, [1, 1, 1, 0, 0]),
        (0, 2, [0, 0]),
        (7, 1, [7]),
    ],
)
def test_a_budget_that_does_not_divide_gives_the_remainder_to_the_first(total, parts, shares):
    assert split_budget(total, parts) == shares


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_a_split_budget_is_spent_exactly_and_evenly(total, parts):
    shares = split_budget(total, parts)
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize(("total", "parts"), [(5, 0), (-1, 2)])
def test_a_budget_over_nothing_names_both_numbers(total, parts):
    with pytest.raises(ValueError, match=f"got {total} over {parts}"):
        split_budget(total, parts)
