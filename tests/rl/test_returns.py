"""Every return, baseline and spread against numbers worked by hand."""

import pytest

from coderl.rl import returns
from coderl.types import InputError, Outcome

COMPILE, RUNTIME, FAILED, PASSED = Outcome


def test_outcome_returns_are_the_papers():
    assert [returns.outcome_return(u) for u in Outcome] == [-1.0, -0.6, -0.3, 1.0]


def test_no_baseline_leaves_returns_alone():
    assert returns.relative_returns([1.0, -0.3], baseline="none") == [1.0, -0.3]


def test_greedy_baseline_subtracts_the_greedy_programs_return():
    assert returns.relative_returns([1.0, -1.0, -0.3], baseline="greedy", greedy_return=-0.3) == pytest.approx(
        [1.3, -0.7, 0.0]
    )


def test_greedy_baseline_gives_only_the_papers_eleven_advantages():
    """r(u) - r(u_b) over all 16 pairs is 0, +-.3, +-.4, +-.7, +-1.3, +-1.6 or +-2.0."""
    found = {
        round(a, 9)
        for b in Outcome
        for a in returns.relative_returns(
            [returns.outcome_return(u) for u in Outcome], baseline="greedy", greedy_return=returns.outcome_return(b)
        )
    }
    positive = {0.3, 0.4, 0.7, 1.3, 1.6, 2.0}
    assert found == {0.0} | positive | {-a for a in positive}


def test_greedy_baseline_without_a_greedy_program_is_refused():
    with pytest.raises(InputError, match="greedy baseline needs"):
        returns.relative_returns([1.0], baseline="greedy")


def test_group_mean():
    """Mean of 1, -1, -0.6, -0.2 is -0.2."""
    assert returns.relative_returns([1.0, -1.0, -0.6, -0.2], baseline="group_mean") == pytest.approx(
        [1.2, -0.8, -0.4, 0.0]
    )


def test_leave_one_out_is_the_return_minus_the_mean_of_the_others():
    samples = [1.0, -1.0, -0.6, -0.3]
    brute = [r - (sum(samples) - r) / 3 for r in samples]
    assert brute[0] == pytest.approx(1.0 + 1.9 / 3)
    assert returns.relative_returns(samples, baseline="leave_one_out") == pytest.approx(brute)


def test_group_normalised():
    """1 and -1 have mean 0 and population deviation 1; 1, 1, 1, -1 mean 0.5 and deviation sqrt(0.75)."""
    assert returns.relative_returns([1.0, -1.0], baseline="group_normalised") == pytest.approx([1.0, -1.0])
    root = 0.75**0.5
    assert returns.relative_returns([1.0, 1.0, 1.0, -1.0], baseline="group_normalised") == pytest.approx(
        [0.5 / root, 0.5 / root, 0.5 / root, -1.5 / root]
    )


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out", "group_normalised"])
@pytest.mark.parametrize("samples", [[-0.6] * 3, [1.0], [-0.3]])
def test_a_group_of_equal_returns_has_exactly_zero_advantage(baseline, samples):
    assert returns.relative_returns(samples, baseline=baseline) == [0.0] * len(samples)


def test_no_samples_no_returns():
    assert returns.relative_returns([], baseline="group_mean") == []


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("all", [1.3, 0.0, -0.2, -1.6]),
        ("positive_only", [1.3, 0.0, 0.0, 0.0]),
        ("scale_negatives", [1.3, 0.0, -0.05, -0.4]),
        ("clip_negatives", [1.3, 0.0, -0.2, -0.5]),
    ],
)
def test_filters_touch_only_negatives(mode, expected):
    found = [
        returns.filter_advantage(a, mode=mode, negative_scale=0.25, negative_floor=-0.5) for a in (1.3, 0.0, -0.2, -1.6)
    ]
    assert found == pytest.approx(expected)


def test_linear_decay_runs_from_one_to_one_over_t():
    assert returns.linear_decay_values(4) == (1.0, 0.75, 0.5, 0.25)
    assert returns.linear_decay_values(1) == (1.0,)
    assert returns.linear_decay_values(0) == ()


PROBS4 = [(0.1, 0.2, 0.3, 0.4), (0.4, 0.3, 0.2, 0.1)]


def test_critic_values_are_the_probability_of_the_true_outcome():
    assert returns.critic_values(PROBS4, RUNTIME) == (0.2, 0.3)
    assert returns.critic_values(PROBS4, PASSED) == (0.4, 0.1)


def test_binary_critic_values_use_passed_or_not():
    probs = [(0.9, 0.1), (0.2, 0.8)]
    assert returns.critic_values(probs, PASSED) == (0.1, 0.8)
    for outcome in (COMPILE, RUNTIME, FAILED):
        assert returns.critic_values(probs, outcome) == (0.9, 0.2)


def test_values_of_mean_one_keep_their_proportions_and_the_programs_weight():
    """(0.1, 0.3, 0.2) have mean 0.2; a critic that is sure of failure everywhere leaves the return even."""
    assert returns.mean_one((0.1, 0.3, 0.2)) == pytest.approx((0.5, 1.5, 1.0))
    assert sum(returns.token_returns(0.7, returns.mean_one((0.1, 0.3, 0.2)))) == pytest.approx(3 * 0.7)
    assert returns.mean_one((0.0, 0.0)) == (1.0, 1.0)


def test_token_returns_are_advantage_times_value():
    """A failed sample under a compile-error baseline: A = -0.3 + 1 = 0.7; q = 0.3, 0.2."""
    (advantage,) = returns.relative_returns([-0.3], baseline="greedy", greedy_return=-1.0)
    assert returns.spread_return(advantage, 2, FAILED, spread="critic", token_probs=PROBS4) == pytest.approx(
        (0.21, 0.14)
    )
    assert returns.spread_return(-0.7, 2, FAILED, spread="uniform") == (-0.7, -0.7)
    assert returns.spread_return(-0.7, 2, FAILED, spread="linear_decay") == pytest.approx((-0.7, -0.35))


@pytest.mark.parametrize("token_probs", [None, PROBS4])
def test_critic_spread_needs_scores_of_this_program(token_probs):
    with pytest.raises(InputError, match="3 tokens"):
        returns.spread_return(1.0, 3, PASSED, spread="critic", token_probs=token_probs)


def test_error_line_values_mark_the_failing_line():
    assert returns.error_line_values([1, 1, 2, 3], 2) == (0.0, 0.0, 1.0, 0.0)
    assert returns.error_line_values([1, 2], None) == (1.0, 1.0)
    assert returns.error_line_values([1, 2], 9) == (1.0, 1.0)


def test_the_error_line_spread_pays_the_failing_line_alone():
    """A runtime error on line 2 under no baseline: -0.6 for its tokens; without a line, for all."""
    by_line = returns.spread_return(-0.6, 3, RUNTIME, spread="error_line", token_lines=[1, 2, 2], error_line=2)
    assert by_line == (0.0, -0.6, -0.6)
    even = returns.spread_return(-0.6, 2, RUNTIME, spread="error_line", token_lines=[1, 2], error_line=None)
    assert even == (-0.6, -0.6)
    with pytest.raises(InputError, match="the line of each token: 3 tokens, none"):
        returns.spread_return(-0.6, 3, RUNTIME, spread="error_line")


def test_returns_are_plain_floats_so_no_gradient_can_flow_through_them():
    values = returns.spread_return(1.3, 2, PASSED, spread="critic", token_probs=PROBS4)
    assert all(type(v) is float for v in values)
