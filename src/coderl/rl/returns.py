"""Outcome -> return, minus a baseline, spread over tokens: what multiplies the gradient of each log-probability.

    r(u)  ->  A = r(u) - baseline  ->  filtered A  ->  rho_t = A * q_t

Everything here is arithmetic on floats. A return never carries a gradient: it enters a loss as a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Literal

from coderl.critic.columns import outcome_column
from coderl.types import InputError, Outcome

Baseline = Literal["none", "greedy", "group_mean", "leave_one_out", "group_normalised", "tracker"]
"""What is taken from a sample's return; `greedy` is the paper's. `tracker`: the running mean of the problem's returns
(online learning only)."""

Spread = Literal["uniform", "critic", "linear_decay", "error_line", "gae"]
"""How a program's relative return is shared among its tokens; `critic` is the paper's. `gae`: each token earns what it
changed in the critic's expectation (online learning only)."""

Reward = Literal["outcome", "passing", "tests"]
"""What a program earns: one of the paper's four returns, 1 for passing and else 0, or its share of passing tests."""

AdvantageFilter = Literal["all", "positive_only", "scale_negatives", "clip_negatives"]
"""What becomes of samples worse than the baseline; `all` is the paper's."""

OUTCOME_RETURNS: dict[Outcome, float] = {
    Outcome.COMPILE_ERROR: -1.0,
    Outcome.RUNTIME_ERROR: -0.6,
    Outcome.FAILED_TEST: -0.3,
    Outcome.PASSED_TEST: 1.0,
}


def outcome_return(outcome: Outcome) -> float:
    """Return r(W) of a program with this outcome: -1.0, -0.6, -0.3 or +1.0.

    Source: CodeRL section 3.3.1.
    """
    return OUTCOME_RETURNS[outcome]


def program_return(outcome: Outcome, test_outcomes: Sequence[Outcome | None], *, reward: Reward) -> float:
    """Return what one program earns.

    Deviation: `passing` and `tests` are not the paper's. A test that did not run counts as one that failed: give
    `stop = "never"` to the sandbox with `tests`.
    """
    if reward == "outcome":
        return outcome_return(outcome)
    if reward == "passing":
        return float(outcome is Outcome.PASSED_TEST)
    return sum(t is Outcome.PASSED_TEST for t in test_outcomes) / max(len(test_outcomes), 1)


# ---------------------------------------------------------------------------------------------------------- baselines


def relative_returns(
    returns: Sequence[float],
    *,
    baseline: Baseline = "greedy",
    greedy_return: float | None = None,
    tracked_return: float | None = None,
) -> list[float]:
    """Return A for each of the samples of ONE problem: its return minus the baseline.

    Source: CodeRL section 3.3.2 for `greedy`, r(W^s) - r(W^b); Kool et al. 2019 for `leave_one_out`; Shao et al. 2024
        (GRPO) for `group_normalised`.

    Args:
        returns: r(W^s) of all samples of the problem.
        baseline: `none` A = r; `greedy` r - r(greedy program); `group_mean` r - mean of the group; `leave_one_out`
            r - mean of the *other* samples (0 for a lone sample); `group_normalised` (r - mean) / population standard
            deviation (0 where all returns are the same); `tracker` r - the running mean.
        greedy_return: r(W^b); needed by `greedy` only.
        tracked_return: the running mean of the problem's returns before these; needed by `tracker` only.

    Raises:
        InputError: `greedy` without `greedy_return`, `tracker` without `tracked_return`.
    """
    if not returns:
        return []
    mean, count = fmean(returns), len(returns)
    if baseline == "none":
        return list(returns)
    if baseline == "greedy":
        if greedy_return is None:
            raise InputError("the greedy baseline needs the outcome of the problem's greedy program, and there is none")
        return [r - greedy_return for r in returns]
    if baseline == "tracker":
        if tracked_return is None:
            raise InputError("the tracker baseline needs online learning, which remembers each problem")
        return [r - tracked_return for r in returns]
    if max(returns) == min(returns):  # exact zeros, free of rounding: such samples are dropped before they cost a step
        return [0.0] * count
    if baseline == "group_mean":
        return [r - mean for r in returns]
    if baseline == "leave_one_out":
        return [(r - mean) * count / (count - 1) for r in returns]
    assert baseline == "group_normalised", baseline
    deviation = pstdev(returns)
    return [(r - mean) / deviation for r in returns]


def filter_advantage(
    relative_return: float, *, mode: AdvantageFilter = "all", negative_scale: float = 0.5, negative_floor: float = -0.3
) -> float:
    """Return A after the treatment of negative samples; a positive A is never changed.

    Deviation: the paper keeps all (`all`). Negative samples' gradients were measured about three times as large as
        positive ones' and drive the collapse that users of the original report, so milder ways are offered.

    Args:
        relative_return: A of one sample.
        mode: `all` keep; `positive_only` 0 for negatives; `scale_negatives` A * negative_scale; `clip_negatives`
            max(A, negative_floor).
        negative_scale: for `scale_negatives`, in [0, 1].
        negative_floor: for `clip_negatives`, at most 0.
    """
    if relative_return >= 0 or mode == "all":
        return relative_return
    if mode == "positive_only":
        return 0.0
    if mode == "scale_negatives":
        return relative_return * negative_scale
    assert mode == "clip_negatives", mode
    return max(relative_return, negative_floor)


# ------------------------------------------------------------------------------------------------------------- spread


def uniform_values(num_tokens: int) -> tuple[float, ...]:
    """Return q_t = 1 for every token: plain REINFORCE on whole programs.

    Source: CodeRL Table 2, row A.
    """
    return (1.0,) * num_tokens


def linear_decay_values(num_tokens: int) -> tuple[float, ...]:
    """Return q_t = (T - t + 1) / T for t = 1..T: 1 at the first token, 1/T at the last.

    Source: CodeRL Table 2, row C. Deviation: the paper leaves the end points open; the last token keeps 1/T, not 0, so
        that a program of one token still learns.
    """
    return tuple((num_tokens - t) / num_tokens for t in range(num_tokens))


def critic_values(token_probs: Sequence[Sequence[float]], outcome: Outcome) -> tuple[float, ...]:
    """Return q_t: the critic's probability, after w_t, of the outcome that the sample truly had.

    Source: CodeRL Eq. 10-11.

    Args:
        token_probs: T rows of 4 outcome probabilities, or of 2 (not passed, passed) from a binary critic.
        outcome: what the unit tests said of this sample.
    """
    return tuple(row[outcome_column(outcome, len(row))] for row in token_probs)


def error_line_values(token_lines: Sequence[int], error_line: int | None) -> tuple[float, ...]:
    """Return q_t = 1 for tokens of the failing line and 0 elsewhere; 1 everywhere where no line is known.

    Source: the fine-grained feedback of RLTF (Liu et al. 2023), as a token spread.

    Args:
        token_lines: 1-based line of each token.
        error_line: `Verdict.error_line`.
    """
    if error_line is None or error_line not in token_lines:
        return uniform_values(len(token_lines))
    return tuple(float(line == error_line) for line in token_lines)


def mean_one(values: Sequence[float]) -> tuple[float, ...]:
    """Return q_t divided by its mean over the program: where the return goes, not how much of it; all 1 for zeros.

    Deviation: the paper's values are probabilities, so a sample also weighs less the less the critic expected of it.
    """
    mean = fmean(values)
    return tuple(value / mean for value in values) if mean > 0 else uniform_values(len(values))


def token_returns(relative_return: float, token_values: Sequence[float]) -> tuple[float, ...]:
    """Return rho_t = A * q_t for each token of one program: what multiplies grad log p(w_t).

    Source: CodeRL section 3.3.3 and Eq. 14.
    """
    return tuple(relative_return * value for value in token_values)


def spread_return(
    relative_return: float,
    num_tokens: int,
    outcome: Outcome,
    *,
    spread: Spread = "critic",
    token_probs: Sequence[Sequence[float]] | None = None,
    token_lines: Sequence[int] | None = None,
    error_line: int | None = None,
) -> tuple[float, ...]:
    """Return rho_t for one sample by the named spread.

    Raises:
        InputError: `critic` without token probabilities, `error_line` without lines, or with another program's; `gae`.
    """
    if spread == "uniform":
        return token_returns(relative_return, uniform_values(num_tokens))
    if spread == "linear_decay":
        return token_returns(relative_return, linear_decay_values(num_tokens))
    if spread == "error_line":
        if token_lines is None or len(token_lines) != num_tokens:
            found = "none" if token_lines is None else f"{len(token_lines)} lines"
            raise InputError(f"the error_line spread needs the line of each token: {num_tokens} tokens, {found}")
        return token_returns(relative_return, error_line_values(token_lines, error_line))
    if spread == "gae":
        raise InputError("spread = 'gae' needs online learning, whose critic also values the prompt")
    assert spread == "critic", spread
    if token_probs is None or len(token_probs) != num_tokens:
        found = "none" if token_probs is None else f"{len(token_probs)} rows"
        raise InputError(f"the critic spread needs one row of critic scores a token: {num_tokens} tokens, {found}")
    return token_returns(relative_return, critic_values(token_probs, outcome))
