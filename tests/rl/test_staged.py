"""Actor training: the mixed loss by hand, what is dropped, who is paired with whom, and that it moves the right way."""

import pytest
import torch

from coderl.rl.settings import ActorTrainingConfig
from coderl.rl.staged import (
    ActorStepExample,
    actor_loss_of,
    drop_zero_returns,
    step_examples,
    train_actor,
    with_log_probs,
)
from coderl.training import losses
from coderl.training.losses import ActorExample, CrossEntropyExample
from coderl.training.settings import OptimConfig
from coderl.types import InputError

SAMPLE = ActorExample((10, 11), (20, 21, 2), (0.5, -1.0, 2.0))
OTHER = ActorExample((10,), (22, 2), (1.0, 1.0))
SOLUTION = CrossEntropyExample((10, 11), (23, 2))


def log_probs(model, example):
    with torch.no_grad():
        return model.log_probs(model.collate([example.prompt], [example.program]))[0].tolist()


def loss_of(model, *pairs, **options):
    examples = [ActorStepExample(*pair) for pair in pairs]
    loss, figures = actor_loss_of(model, examples, config=ActorTrainingConfig(**options))
    return loss.item(), figures


def test_the_step_is_rl_loss_plus_weighted_cross_entropy(tiny):
    """By hand from the log-probabilities: -(0.5 a - b + 2 c + d + e) / 5, plus 0.25 times minus the solution's mean."""
    model = tiny()
    (a, b, c), (d, e), w = (log_probs(model, x) for x in (SAMPLE, OTHER, SOLUTION))
    rl = -(0.5 * a - 1.0 * b + 2.0 * c + d + e) / 5
    ce = -sum(w) / 2
    loss, figures = loss_of(model, (SAMPLE, SOLUTION), (OTHER, SOLUTION), ce_weight=0.25, rl_weight=2.0)
    assert loss == pytest.approx(2 * rl + 0.25 * ce, rel=1e-4)
    assert figures["rl_loss"] == pytest.approx(rl, rel=1e-4)
    assert figures["ce_loss"] == pytest.approx(ce, rel=1e-4)
    assert figures["mean_return"] == pytest.approx((1.5 + 2.0) / 5)


def test_the_papers_sums(tiny):
    """Eq. 14 by the letter: sums over tokens, mean over the programs of the batch."""
    model = tiny()
    a, b, c = log_probs(model, SAMPLE)
    loss, _ = loss_of(model, (SAMPLE, SOLUTION), reduction="sequence_sum")
    assert loss == pytest.approx(-(0.5 * a - b + 2 * c) - sum(log_probs(model, SOLUTION)), rel=1e-4)


def test_without_solutions_only_the_rl_term_is_left(tiny):
    model = tiny()
    loss, figures = loss_of(model, (SAMPLE, None))
    assert loss == pytest.approx(figures["rl_loss"])
    assert "ce_loss" not in figures


def test_parts_add_up_to_the_whole(tiny):
    model = tiny()
    pairs = [ActorStepExample(SAMPLE, SOLUTION), ActorStepExample(OTHER, None)]
    config = ActorTrainingConfig()
    whole, _ = actor_loss_of(model, pairs, config=config)
    parts = [actor_loss_of(model, [pair], pairs, config=config)[0] for pair in pairs]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-5)


def test_kl_to_itself_is_zero_and_to_another_model_positive(tiny):
    model = tiny()
    config = ActorTrainingConfig(kl_weight=3.0, ce_weight=0.0)
    pair = [ActorStepExample(SAMPLE, None)]
    plain, _ = actor_loss_of(model, pair, config=ActorTrainingConfig())
    same, figures = actor_loss_of(model, pair, config=config, reference=tiny())
    assert (same.item(), figures["kl"].item()) == (pytest.approx(plain.item()), pytest.approx(0.0, abs=1e-9))
    other, figures = actor_loss_of(model, pair, config=config, reference=tiny(seed=9))
    assert figures["kl"] > 0
    assert other.item() == pytest.approx(plain.item() + 3 * figures["kl"].item(), rel=1e-5)


def test_clipping_at_the_sampling_policy_has_the_plain_gradient(tiny):
    """At ratio 1, PPO's gradient is REINFORCE's."""
    gradients = []
    for clip_range in (None, 0.2):
        model = tiny()
        drawn = ActorExample(*(SAMPLE.prompt, SAMPLE.program, SAMPLE.token_returns), tuple(log_probs(model, SAMPLE)))
        config = ActorTrainingConfig(clip_range=clip_range)
        actor_loss_of(model, [ActorStepExample(drawn, None)], config=config)[0].backward()
        gradients.append(model.backbone.shared.weight.grad.clone())
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


def test_samples_without_a_return_cost_no_step(tiny):
    """32 idle samples beside 8 that matter: one step of 8, and 80% reported."""
    idle = ActorExample((10,), (20, 2), (0.0, -0.0))
    assert drop_zero_returns([idle, SAMPLE, idle]) == ([SAMPLE], 2)
    config = ActorTrainingConfig(optim=OptimConfig(num_epochs=1, batch_size=8))
    (step,) = train_actor(tiny(), [idle] * 32 + [SAMPLE] * 8, [SOLUTION], config)
    assert step.num_examples == 8
    assert step.metrics["zero_return_share"] == 0.8


def test_no_sample_with_a_return_means_no_step(tiny):
    model = tiny()
    before = model.backbone.shared.weight.clone()
    assert list(train_actor(model, [ActorExample((10,), (2,), (0.0,))], [SOLUTION], ActorTrainingConfig())) == []
    assert torch.equal(model.backbone.shared.weight, before)


@pytest.mark.parametrize("bucket", [True, False])
def test_solutions_repeat_only_after_all_have_been_drawn(bucket):
    """5 solutions, 3 samples an epoch: draws 1-5 and 6-10 are each all five, in changing order."""
    solutions = [CrossEntropyExample((9,), (40 + i,)) for i in range(5)]
    of_epoch = step_examples([SAMPLE, OTHER, SAMPLE], solutions, OptimConfig(bucket_by_length=bucket, seed=1))
    drawn = [pair.solution.program[0] - 40 for epoch in range(10) for pair in of_epoch(epoch)]
    assert sorted(drawn) == sorted(list(range(5)) * 6)
    assert of_epoch(3) == of_epoch(3)
    if not bucket:
        assert [sorted(drawn[i : i + 5]) for i in range(0, 30, 5)] == [list(range(5))] * 6
        assert len({tuple(drawn[i : i + 5]) for i in range(0, 30, 5)}) > 1


def test_pairs_are_alike_in_length_when_bucketed():
    samples = [ActorExample((1,), (3,) * n, (1.0,) * n) for n in (9, 2, 5)]
    solutions = [CrossEntropyExample((1,), (4,) * n) for n in (30, 10, 20)]
    pairs = step_examples(samples, solutions, OptimConfig(seed=1))(0)
    assert [(len(p.sample.program), len(p.solution.program)) for p in pairs] == [(2, 10), (5, 20), (9, 30)]


@pytest.mark.parametrize("bucket", [True, False])
def test_a_share_of_the_samples_has_solutions_spread_evenly(bucket):
    """8 samples at a share of 1/4: two solutions an epoch, four samples apart, none twice before all were drawn."""
    solutions = [CrossEntropyExample((9,), (40 + i,)) for i in range(4)]
    of_epoch = step_examples([SAMPLE] * 8, solutions, OptimConfig(bucket_by_length=bucket, seed=1), 0.25)
    epochs = [of_epoch(0), of_epoch(1)]
    assert [[i for i, pair in enumerate(epoch) if pair.solution] for epoch in epochs] == [[0, 4], [0, 4]]
    assert sorted(p.solution.program[0] for epoch in epochs for p in epoch if p.solution) == [40, 41, 42, 43]


def test_sampling_log_probs_are_those_of_the_model_whatever_the_batch(tiny):
    model = tiny()
    for batch_size in (1, 2):
        for found in with_log_probs(model, [SAMPLE, OTHER], batch_size=batch_size):
            assert found.sampling_log_probs == pytest.approx(log_probs(model, found), abs=1e-5)


def test_what_is_asked_for_must_be_given(tiny):
    with pytest.raises(InputError, match="kl_weight needs a reference"):
        next(train_actor(tiny(), [SAMPLE], [], ActorTrainingConfig(kl_weight=0.1)))
    with pytest.raises(InputError, match="clip_range needs samples with the log-probabilities"):
        next(train_actor(tiny(), [SAMPLE], [], ActorTrainingConfig(clip_range=0.2)))


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_rewarded_programs_become_likelier_and_punished_ones_less_likely(tiny, tokenizer, family):
    """Two programs of one prompt, +1 and -0.3: after 20 steps their log-probabilities have moved apart."""
    from coderl.models import tiny as tiny_models

    model = tiny() if family == "t5" else tiny_models.tiny_llama(tokenizer, d_model=16, num_layers=1, num_heads=2)
    good, bad = (20, 21, 22, 2), (30, 31, 2)
    samples = [ActorExample((10, 11), good, (1.0,) * 4), ActorExample((10, 11), bad, (-0.3,) * 3)]
    before = [sum(log_probs(model, s)) for s in samples]
    config = ActorTrainingConfig(ce_weight=0.0, optim=OptimConfig(learning_rate=3e-3, batch_size=2, num_steps=20))
    list(train_actor(model, samples, [], config))
    after = [sum(log_probs(model, s)) for s in samples]
    assert after[0] > before[0] + 1
    assert after[1] < before[1] - 0.5


def test_a_token_moves_by_its_own_return(tiny):
    """Only the second token is rewarded: it gains more than the others."""
    model = tiny()
    sample = ActorExample((10, 11), (20, 21, 22, 2), (0.0, 1.0, 0.0, 0.0))
    before = log_probs(model, sample)
    config = ActorTrainingConfig(optim=OptimConfig(learning_rate=3e-3, batch_size=1, num_steps=10))
    list(train_actor(model, [sample], [], config))
    gains = [late - early for late, early in zip(log_probs(model, sample), before, strict=True)]
    assert gains[1] > 0
    assert gains[1] == max(gains)


def test_actor_training_resumes_bit_for_bit(tiny, tmp_path):
    """Two epochs of different solution draws, stopped inside the second."""
    samples = [ActorExample((10, 11), (20 + i, 21, 2), (0.5, -0.5, 1.0)) for i in range(8)]
    solutions = [CrossEntropyExample((10, 12), (30 + i, 31, 2)) for i in range(5)]
    optim = OptimConfig(learning_rate=1e-3, batch_size=4, num_epochs=3, checkpoint_every_steps=1)
    config = ActorTrainingConfig(optim=optim)
    whole, first, second = tiny(dropout=0.1), tiny(dropout=0.1), tiny(seed=99, dropout=0.1)
    list(train_actor(whole, samples, solutions, config))
    for step in train_actor(first, samples, solutions, config, checkpoint_dir=tmp_path):
        if step.step == 3:
            break
    list(train_actor(second, samples, solutions, config, checkpoint_dir=tmp_path))
    for name, expected in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], expected), name


def test_mean_return_of_losses_module_sizes():
    assert losses.size_of([SAMPLE, OTHER]) == losses.Size(2, 5)
