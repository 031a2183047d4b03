"""Rates, order and limits of the loop, by hand."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from coderl.training.checkpoint import Progress
from coderl.training.optim import build_optimiser, fraction_done, learning_rate, plan_batches, suitable_rate
from coderl.training.settings import OptimConfig


def test_the_papers_warm_start_schedule():
    """2e-5 rises over 500 steps and falls as (1 - x)^0.5 to 1e-5: 1.5e-5 at x = 0.75."""
    config = OptimConfig(
        learning_rate=2e-5, warmup_steps=500, schedule="polynomial", min_learning_rate=1e-5, num_steps=10_000
    )
    assert learning_rate(config, 250, 0.0) == pytest.approx(1e-5)
    assert learning_rate(config, 7500, 0.75) == pytest.approx(1.5e-5)
    assert learning_rate(config, 10_000, 1.0) == pytest.approx(1e-5)


def test_constant_and_linear_schedules():
    assert learning_rate(OptimConfig(learning_rate=0.5), 7, 0.9) == 0.5
    linear = OptimConfig(learning_rate=0.5, schedule="linear")
    assert [learning_rate(linear, 1, x) for x in (0.0, 0.5, 1.0, 1.2)] == [0.5, 0.25, 0.0, 0.0]


def test_every_example_is_in_one_batch_of_an_epoch():
    plan = plan_batches(list(range(103)), 8, seed=3, epoch=0)
    assert sorted(i for rows in plan for i in rows) == list(range(103))
    assert sorted(map(len, plan)) == [7] + [8] * 12


def test_order_depends_on_seed_and_epoch_alone():
    lengths = [i % 7 for i in range(50)]
    plan = plan_batches(lengths, 4, seed=1, epoch=2)
    assert plan == plan_batches(lengths, 4, seed=1, epoch=2)
    assert plan != plan_batches(lengths, 4, seed=1, epoch=3)
    assert plan != plan_batches(lengths, 4, seed=2, epoch=2)


def test_bucketed_batches_hold_examples_of_like_length():
    """Ten lengths, twenty of each, batches of twenty: bucketed, a batch holds one length only."""
    lengths = [i % 10 for i in range(200)]
    bucketed = plan_batches(lengths, 20, seed=0, epoch=0)
    assert all(len({lengths[i] for i in rows}) == 1 for rows in bucketed)
    assert [lengths[rows[0]] for rows in bucketed] != list(range(10)), "the order of batches is random"
    assert any(
        len({lengths[i] for i in rows}) > 1
        for rows in plan_batches(lengths, 20, seed=0, epoch=0, bucket_by_length=False)
    )


def test_the_first_limit_reached_ends_a_run():
    progress = Progress(step=30, epochs_done=1.5, cpu_s=8.0)
    assert fraction_done(OptimConfig(num_steps=60), progress) == 0.5
    assert fraction_done(OptimConfig(num_steps=60, num_epochs=2), progress) == 0.75
    assert fraction_done(OptimConfig(num_steps=60, num_epochs=2, max_cpu_s=8.0), progress) == 1.0
    assert fraction_done(OptimConfig(), progress) == pytest.approx(0.15), "ten epochs where nothing is said"


@pytest.mark.parametrize("optimiser", ["adamw", "adafactor"])
def test_norms_and_biases_do_not_decay(tiny, optimiser):
    model = nn.ModuleDict({"lm": tiny(), "head": nn.Linear(3, 2)})
    decaying, others = build_optimiser(
        model, OptimConfig(optimiser=optimiser, learning_rate=1e-3, weight_decay=0.05)
    ).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.05, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    kept = {names[id(p)] for p in others["params"]}
    assert kept == {n for n in names.values() if "layer_norm" in n or "bias" in n}
    assert "head.bias" in kept
    assert len(decaying["params"]) + len(kept) == len(names)


def test_frozen_weights_are_left_out():
    layer = nn.Linear(3, 2)
    layer.weight.requires_grad_(False)
    assert [len(g["params"]) for g in build_optimiser(layer, OptimConfig(learning_rate=1e-3)).param_groups] == [0, 1]


def test_settings_that_cannot_be_met_are_refused():
    with pytest.raises(ValidationError, match="gradient_accumulation_steps"):
        OptimConfig(batch_size=2, gradient_accumulation_steps=4)
    with pytest.raises(ValidationError):
        OptimConfig(learning_rate=0)
    with pytest.raises(ValidationError, match="learnin_rate"):
        OptimConfig(learnin_rate=1e-3)


@pytest.mark.parametrize(
    ("num_weights", "optimiser", "share", "rate"),
    [
        (770_000_000, "adamw", 1.0, 2e-5),  # the paper's
        (7_700_000, "adamw", 1.0, 2e-4),  # a hundredth of the weights, ten times the rate
        (7_700, "adamw", 1.0, 2e-3),  # at most
        (7_700_000, "adamw", 0.1, 2e-5),
        (7_700_000, "adafactor", 1.0, 0.01),
    ],
)
def test_a_rate_that_is_not_given_suits_the_number_of_weights(num_weights, optimiser, share, rate):
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.empty(num_weights, device="meta"))
    config = suitable_rate(OptimConfig(optimiser=optimiser), model, share)
    assert config.learning_rate == pytest.approx(rate)
    assert suitable_rate(OptimConfig(learning_rate=0.5), model).learning_rate == 0.5
