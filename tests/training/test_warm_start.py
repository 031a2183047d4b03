"""The warm start imitates solutions, by either reduction."""

import pytest

from coderl.training.settings import OptimConfig, WarmStartConfig
from coderl.training.warm_start import warm_start


def test_it_learns_its_examples(tiny, examples):
    config = WarmStartConfig(optim=OptimConfig(learning_rate=1e-2, batch_size=8, num_epochs=8))
    steps = list(warm_start(tiny(), examples, config))
    assert steps[-1].loss < 0.75 * steps[0].loss


def test_the_papers_reduction_counts_programs_not_tokens(tiny, examples):
    """Equal lengths make the sum per program the token mean times the length."""
    same_length = [e for e in examples if len(e.program) == 4]
    one_step = OptimConfig(learning_rate=1e-9, batch_size=len(same_length), num_steps=1)
    (mean,) = warm_start(tiny(), same_length, WarmStartConfig(optim=one_step))
    (total,) = warm_start(tiny(), same_length, WarmStartConfig(optim=one_step, reduction="sequence_sum"))
    assert total.loss == pytest.approx(4 * mean.loss, rel=1e-5)


def test_the_defaults_are_the_papers():
    optim = WarmStartConfig().optim
    assert (optim.batch_size, optim.num_epochs) == (64, 10)  # and 2e-5 for 770 million weights: see test_optim
    assert (optim.warmup_steps, optim.schedule, optim.power, optim.min_learning_rate) == (500, "polynomial", 0.5, 1e-5)
