"""Each loss equation against arithmetic done by hand."""

import math

import pytest
import torch

from coderl.critic.model import Critic
from coderl.training import losses
from coderl.training.losses import (
    ActorExample,
    CriticExample,
    CrossEntropyExample,
    Size,
)
from coderl.types import Outcome

LOG_PROBS = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, 77.0, 99.0]])
"""A program of three tokens and one of one token; what stands in the padding is nonsense on purpose."""
MASK = torch.tensor([[True, True, True], [True, False, False]])


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("token_mean", 10 / 4), ("sequence_sum", (6 + 4) / 2), ("sequence_mean", (2 + 4) / 2)],
)
def test_cross_entropy(reduction, expected):
    assert losses.cross_entropy(LOG_PROBS, MASK, reduction=reduction).item() == pytest.approx(expected)


RETURNS = torch.tensor([[0.5, 0.5, -1.0], [2.0, 55.0, 55.0]])


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("token_mean", (0.5 + 1.0 - 3.0 + 8.0) / 4),
        ("sequence_sum", (-1.5 + 8.0) / 2),
        ("sequence_mean", (-0.5 + 8.0) / 2),
    ],
)
def test_policy_gradient_is_minus_the_sum_of_returns_times_log_probs(reduction, expected):
    """-(0.5*-1 + 0.5*-2 + -1*-3) = -1.5 for the first program, -(2*-4) = 8 for the second."""
    assert losses.policy_gradient(LOG_PROBS, RETURNS, MASK, reduction=reduction).item() == pytest.approx(expected)


def test_policy_gradient_pulls_each_log_prob_by_its_return():
    """d loss / d log p = -rho / number of tokens; 0 in the padding."""
    log_probs = LOG_PROBS.clone().requires_grad_()
    losses.policy_gradient(log_probs, RETURNS, MASK).backward()
    assert torch.allclose(log_probs.grad, -RETURNS / 4 * MASK)


def test_no_gradient_flows_through_a_return():
    rho = RETURNS.clone().requires_grad_()
    log_probs = LOG_PROBS.clone().requires_grad_()
    (losses.policy_gradient(log_probs, rho, MASK) + log_probs.sum()).backward()
    assert rho.grad is None


def test_policy_gradient_with_returns_of_one_is_cross_entropy():
    ones = torch.ones_like(LOG_PROBS)
    assert losses.policy_gradient(LOG_PROBS, ones, MASK).item() == losses.cross_entropy(LOG_PROBS, MASK).item()


def test_a_part_is_divided_by_the_size_of_the_whole():
    """Parts of one batch add up to the batch for every reduction."""
    size = Size(num_programs=2, num_tokens=4)
    for reduction in ("token_mean", "sequence_sum", "sequence_mean"):
        whole = losses.cross_entropy(LOG_PROBS, MASK, reduction=reduction)
        parts = [
            losses.cross_entropy(LOG_PROBS[i : i + 1], MASK[i : i + 1], reduction=reduction, size=size) for i in (0, 1)
        ]
        assert sum(parts).item() == pytest.approx(whole.item())


@pytest.mark.parametrize(
    ("ratio", "rho", "expected", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.5, 2.0, -2.4, 0.0),
        (0.5, 2.0, -1.0, -1.0),
        (1.5, -2.0, 3.0, 3.0),
        (0.5, -2.0, 1.6, 0.0),
    ],
)
def test_clipping_stops_the_push_beyond_the_range_but_never_the_way_back(ratio, rho, expected, slope):
    """-min(x rho, clip(x, .8, 1.2) rho) by hand; its slope in log p is -x rho where not clipped."""
    log_probs = torch.tensor([[math.log(0.2 * ratio)]], requires_grad=True)
    sampled = torch.tensor([[math.log(0.2)]])
    loss = losses.clipped_policy_gradient(
        log_probs, sampled, torch.tensor([[rho]]), torch.tensor([[True]]), clip_range=0.2
    )
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert log_probs.grad.item() == pytest.approx(slope, rel=1e-5)


def test_kl_penalty():
    """p = 0.5, p_ref = 0.25: d = log 0.5; exp(d) - d - 1 = 0.5 + log 2 - 1."""
    log_probs = torch.tensor([[math.log(0.5), 9.0]])
    reference = torch.tensor([[math.log(0.25), -9.0]])
    mask = torch.tensor([[True, False]])
    assert losses.kl_penalty(log_probs, reference, mask).item() == pytest.approx(math.log(2) - 0.5, rel=1e-5)
    assert losses.kl_penalty(log_probs, log_probs, mask).item() == 0.0


def test_kl_penalty_pulls_towards_the_reference():
    """Where the policy is the likelier, descending lowers its log-probability."""
    log_probs = torch.tensor([[math.log(0.5)]], requires_grad=True)
    losses.kl_penalty(log_probs, torch.tensor([[math.log(0.25)]]), torch.tensor([[True]])).backward()
    assert log_probs.grad.item() == pytest.approx(1 - 0.5, rel=1e-5)


def test_outcome_cross_entropy():
    """Probabilities 1/2 and 1/4 of the true outcomes: (log 2 + log 4) / 2; weights 3 and 1: (3 log 2 + log 4) / 2."""
    logits = torch.log(torch.tensor([[0.5, 0.5], [0.75, 0.25]]))
    columns = torch.tensor([0, 1])
    log2 = math.log(2)
    assert losses.outcome_cross_entropy(logits, columns).item() == pytest.approx(1.5 * log2)
    weighted = losses.outcome_cross_entropy(logits, columns, class_weights=torch.tensor([3.0, 1.0]))
    assert weighted.item() == pytest.approx(2.5 * log2)


def test_balanced_weights():
    """Three of class 0, one of class 2, none of 1: 4/(2*3) and 4/(2*1); each seen class weighs 2 in total."""
    assert losses.balanced_weights([0, 0, 0, 2], 3) == pytest.approx([2 / 3, 1.0, 2.0])


def test_cross_entropy_of_a_uniform_model_is_log_vocabulary(tiny, tokenizer):
    model = tiny()
    with torch.no_grad():
        model.backbone.lm_head.weight.zero_()
    loss, figures = losses.cross_entropy_of(model, [CrossEntropyExample((5, 6), (7, 8, 2))])
    assert loss.item() == pytest.approx(math.log(len(tokenizer)), rel=1e-5)
    assert figures == {"ce_loss": loss.item()}


@pytest.mark.parametrize("prefix_weight", [0.0, 0.5])
def test_critic_loss_of_an_undecided_critic_is_log_of_the_outcomes(tiny, prefix_weight):
    critic = Critic(tiny())
    with torch.no_grad():
        critic.head.weight.zero_()
        critic.head.bias.zero_()
    found = [CriticExample((5,), (7, 8, 2), Outcome.FAILED_TEST), CriticExample((5,), (7,), Outcome.PASSED_TEST)]
    loss, figures = losses.critic_loss_of(critic, found, prefix_weight=prefix_weight)
    assert loss.item() == pytest.approx(math.log(4) * (1 + prefix_weight), rel=1e-5)
    assert figures["critic_accuracy"] == 0.0


def test_sizes_count_program_tokens_only():
    found = [ActorExample((1, 2, 3), (4, 5), (0.0, 0.0)), ActorExample((1,), (4,), (0.0,))]
    assert losses.size_of(found) == Size(num_programs=2, num_tokens=3)
    assert losses.num_tokens(found[0]) == 5
