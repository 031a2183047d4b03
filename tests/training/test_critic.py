"""The critic learns what decides the outcome, is chosen on held-out programs, and its weights are as asked."""

import math

import pytest
import torch

from coderl.critic.calibration import report
from coderl.critic.model import Critic
from coderl.critic.values import values
from coderl.training import losses
from coderl.training.critic import calibrate, critic_validation, fit_head, train_critic
from coderl.training.losses import CriticExample
from coderl.training.settings import CriticTrainingConfig, OptimConfig
from coderl.types import InputError, Outcome

PASSED, FAILED = Outcome.PASSED_TEST, Outcome.FAILED_TEST


def programs(start, count):
    """Token 50 anywhere in the program makes it fail; everything else is noise."""
    found = []
    for i in range(start, start + count):
        noise = [20 + (i * 7 + k * 3) % 20 for k in range(3 + i % 3)]
        if i % 2:
            noise[i % len(noise)] = 50
        found.append(CriticExample((10, 11), (*noise, 2), FAILED if i % 2 else PASSED))
    return found


@pytest.mark.parametrize(("num_outcomes", "prefix_weight"), [(4, 0.0), (2, 0.5)])
def test_it_learns_the_token_that_decides(tiny, num_outcomes, prefix_weight):
    critic = Critic(tiny(d_model=32), num_outcomes=num_outcomes)
    config = CriticTrainingConfig(
        optim=OptimConfig(learning_rate=1e-2, batch_size=16, num_epochs=10, seed=1), prefix_weight=prefix_weight
    )
    steps = list(train_critic(critic, programs(0, 96), config, validation=programs(96, 32)))
    assert steps[-1].validation["critic_accuracy"] > 0.9
    held_out = programs(200, 40)
    found = values(critic, [e.prompt for e in held_out], [e.program for e in held_out])
    figures = report(found, [e.outcome for e in held_out])
    assert figures.auroc > 0.95
    assert figures.prefix_auroc[0] < figures.prefix_auroc[3]


def test_validation_by_hand(tiny):
    """An undecided critic: loss log 4 and AUROC 1/2, in batches of any size."""
    critic = Critic(tiny())
    with torch.no_grad():
        critic.head.weight.zero_()
        critic.head.bias.zero_()
    for batch_size in (2, 5, 100):
        config = CriticTrainingConfig(optim=OptimConfig(batch_size=batch_size))
        found = critic_validation(critic, programs(0, 10), config)
        assert found["loss"] == pytest.approx(math.log(4), rel=1e-5)
        assert found["auroc"] == 0.5


def test_early_stopping_returns_the_best_weights(tiny):
    """Labels of the training programs are noise, so validation gets worse: what comes back is the best it has been."""
    noise = [CriticExample(e.prompt, e.program, Outcome(i % 4)) for i, e in enumerate(programs(0, 32))]
    held_out = programs(300, 16)
    critic = Critic(tiny(d_model=32))
    config = CriticTrainingConfig(optim=OptimConfig(learning_rate=1e-2, batch_size=8, num_epochs=30, patience=2))
    steps = list(train_critic(critic, noise, config, validation=held_out))
    assert steps[-1].epoch < 30
    seen = [s.validation["loss"] for s in steps if "loss" in s.validation]
    start = steps[0].validation["start_loss"]
    assert critic_validation(critic, held_out, config)["loss"] == pytest.approx(min([start, *seen]), rel=1e-5)


@pytest.mark.parametrize("class_weights", ["balanced", (2 / 3, 2.0)])
def test_class_weights_reach_the_loss(tiny, class_weights):
    """Three failed weigh 2/3 each and one passed 2, in the loss of a critic that says 0.8 and 0.2 to all."""
    critic = Critic(tiny(), num_outcomes=2)
    with torch.no_grad():
        critic.head.weight.zero_()
        critic.head.bias.copy_(torch.tensor([math.log(0.8), math.log(0.2)]))
    examples = [CriticExample((10,), (20, 2), outcome) for outcome in (FAILED, FAILED, FAILED, PASSED)]
    config = CriticTrainingConfig(
        fit_head=False, class_weights=class_weights, optim=OptimConfig(batch_size=4, num_steps=1, learning_rate=1e-9)
    )
    (step,) = train_critic(critic, examples, config)
    assert step.loss == pytest.approx((3 * 2 / 3 * -math.log(0.8) + 2 * -math.log(0.2)) / 4, rel=1e-5)


def test_prefix_loss_by_hand(tiny):
    """Equals the cross-entropy of each prefix judged as a program of its own, mean over the program's tokens."""
    critic = Critic(tiny()).eval()
    example = CriticExample((10, 11), (20, 21, 22, 2), FAILED)
    _, figures = losses.critic_loss_of(critic, [example, CriticExample((10,), (2,), PASSED)], prefix_weight=1.0)
    alone = [
        losses.critic_loss_of(critic, [CriticExample((10, 11), example.program[:t], FAILED)])[0].item()
        for t in range(1, 5)
    ]
    other = losses.critic_loss_of(critic, [CriticExample((10,), (2,), PASSED)])[0].item()
    assert figures["prefix_loss"] == pytest.approx((sum(alone) / 4 + other) / 2, rel=1e-4)


def test_copies_count_and_cost_once(tiny):
    """Three copies of one program in the loss equal the program three times over."""
    critic = Critic(tiny()).eval()
    one, other = CriticExample((10, 11), (20, 21, 2), FAILED), CriticExample((10,), (22, 2), PASSED)
    apart, figures = losses.critic_loss_of(critic, [one, one, one, other], prefix_weight=0.5)
    merged, merged_figures = losses.critic_loss_of(
        critic, [CriticExample((10, 11), (20, 21, 2), FAILED, num_copies=3), other], prefix_weight=0.5
    )
    assert merged.item() == pytest.approx(apart.item(), rel=1e-5)
    assert losses.as_numbers(merged_figures) == pytest.approx(losses.as_numbers(figures), rel=1e-5)


@pytest.mark.parametrize("pooling", ["prefix", "prefix_max", "token"])
def test_the_fitted_linear_layer_is_the_minimum_of_its_convex_loss(tiny, pooling):
    """Brute force: no step in any of many random directions lowers loss + l2 |W|^2 on standardised inputs.

    The last ten inputs, the likelihoods, weigh a fortieth in the penalty.
    """
    critic = Critic(tiny(), pooling=pooling)
    examples = programs(0, 40)
    fit_head(critic, examples, l2=0.1)
    batch = critic.model.collate([e.prompt for e in examples], [e.program for e in examples])
    columns = torch.tensor([int(e.outcome) for e in examples])
    inputs = critic.head_inputs(batch)[0][:, -1].detach()
    deviation = inputs.std(0, correction=0).clamp(min=1e-6)

    def objective(weight, bias):
        picked = (inputs @ weight.T + bias).log_softmax(-1)[torch.arange(40), columns]
        squares = (weight * deviation).square().sum(0)
        return (-picked.mean() + 0.1 * squares[:-10].sum() + 0.0025 * squares[-10:].sum()).item()

    weight, bias = critic.head.weight.detach(), critic.head.bias.detach()
    at_minimum = objective(weight, bias)
    torch.manual_seed(0)
    for _ in range(50):
        dw, db = torch.randn_like(weight) / deviation, torch.randn_like(bias)
        assert objective(weight + 0.01 * dw, bias + 0.01 * db) > at_minimum
    assert at_minimum < math.log(4)


def test_fitting_with_copies_equals_fitting_with_repetitions(tiny):
    examples = programs(0, 12)
    apart, merged = Critic(tiny()), Critic(tiny())
    fit_head(apart, [*examples, examples[0], examples[0]], l2=1.0, prefix_weight=0.5)
    fit_head(merged, [CriticExample(*vars_of(examples[0]), num_copies=3), *examples[1:]], l2=1.0, prefix_weight=0.5)
    batch = apart.model.collate([e.prompt for e in examples], [e.program for e in examples])
    one, other = (critic.program_logits(batch).softmax(-1) for critic in (apart, merged))
    assert torch.allclose(one, other, atol=1e-3)


def vars_of(example):
    return example.prompt, example.program, example.outcome


@pytest.mark.parametrize("num_outcomes", [2, 4])
def test_without_an_optimiser_the_linear_layer_alone_learns(tiny, num_outcomes):
    critic = Critic(tiny(d_model=32), num_outcomes=num_outcomes)
    before = critic.model.backbone.shared.weight.clone()
    assert (
        list(
            train_critic(
                critic,
                programs(0, 96),
                CriticTrainingConfig.model_validate({"optim": "none"}),
                validation=programs(96, 32),
            )
        )
        == []
    )
    assert torch.equal(critic.model.backbone.shared.weight, before)
    held_out = programs(200, 40)
    found = values(critic, [e.prompt for e in held_out], [e.program for e in held_out])
    assert report(found, [e.outcome for e in held_out]).auroc > 0.8


def test_the_temperature_is_fitted_on_the_validation_problems(tiny):
    """A critic sure of 0.88 that is right half the time on them is cooled to the bound; without them it stays at 1."""
    critic = Critic(tiny(), num_outcomes=2)
    with torch.no_grad():
        critic.head.weight.zero_()
        critic.head.bias.copy_(torch.tensor([0.0, 2.0]))
    calibrate(critic, [CriticExample((10,), (20, 2), FAILED), CriticExample((10,), (21, 2), PASSED, num_copies=3)])
    assert critic.temperature.item() == pytest.approx(2 / math.log(3), rel=1e-3)
    calibrate(critic, [])
    assert critic.temperature.item() == 1.0


def test_what_cannot_be_trained_is_refused(tiny):
    with pytest.raises(InputError, match="needs an optimiser"):
        list(train_critic(Critic(tiny(), pooling="legacy"), programs(0, 4), CriticTrainingConfig(optim=None)))
    with pytest.raises(InputError, match="expected 4 numbers"):
        list(train_critic(Critic(tiny()), programs(0, 4), CriticTrainingConfig(class_weights=(1.0, 2.0))))


def test_a_legacy_critic_trains(tiny):
    critic = Critic(tiny(), pooling="legacy")
    config = CriticTrainingConfig(optim=OptimConfig(learning_rate=1e-2, batch_size=8, num_steps=2))
    assert len(list(train_critic(critic, programs(0, 16), config))) == 2
