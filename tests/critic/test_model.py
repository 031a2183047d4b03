"""The critic's pooling by brute force, its indifference to padding, and its files."""

import math

import pytest
import torch

from coderl.critic.model import (
    Critic,
    likelihood_features,
    running_max,
    running_mean,
)
from coderl.models import tiny as tiny_models
from coderl.models.lm import Batch
from coderl.types import InputError

PROMPTS = [(10, 11, 12, 13), (10, 11)]
PROGRAMS = [(20, 21, 22, 23, 24, 25, 2), (30, 31, 2)]
FAMILIES = ["t5", "llama"]
POOLINGS = ["prefix", "prefix_max", "token"]


@pytest.mark.parametrize("family", FAMILIES)
def test_one_reading_gives_what_separate_calls_give(tiny, family):
    """Padded programs; the logits' log-softmax at the drawn tokens is `log_probs`; states of the prompt stand alone."""
    model = tiny(family)
    batch = model.collate(PROMPTS, PROGRAMS)
    alone, reading = model.read(batch), model.read(batch, with_logits=True)
    assert alone.logits is None
    drawn = reading.logits.log_softmax(-1).gather(-1, batch.program_ids.unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(drawn.masked_fill(~batch.program_mask, 0.0), model.log_probs(batch), atol=1e-5)
    assert torch.allclose(reading.states[batch.program_mask], alone.states[batch.program_mask], atol=1e-5)
    assert torch.allclose(reading.prefix_states[:, 1:][batch.program_mask], model.states(batch)[batch.program_mask])
    for row, prompt in enumerate(PROMPTS):
        lone = model.read(model.collate([prompt], [PROGRAMS[row]])).prompt_states[0]
        for one in (alone, reading):
            assert torch.allclose(one.prompt_states[row][batch.prompt_mask[row]], lone, atol=1e-5)


def test_likelihood_features_by_hand():
    """Two tokens: surprise log 2 and log 4, entropy log 2 (half, half) and that of (1/4, 3/4); the third is padding.

    Both surprises are above 0.01, 0.1 and 0.5 nats, the second above 1 too.
    """
    probs = torch.tensor([[[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]]])
    ids, mask = torch.tensor([[0, 0, 1]]), torch.tensor([[True, True, False]])
    found = likelihood_features(probs.log(), Batch(ids, mask, ids, mask))[0]
    a, b = math.log(2), math.log(4)
    h, k = math.log(2), 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    amounts = [[a, a, a, h, h, h], [(a + b) / 2, a + b, b, (h + k) / 2, h + k, h]]
    counts = [[1, 1, 1, 0], [2, 2, 2, 1]]
    first, second = (
        [math.log(1 + 10 * x) for x in row] + [math.log(1 + n) for n in more]
        for row, more in zip(amounts, counts, strict=True)
    )
    for row, expected in zip(found.tolist(), [first, second, second], strict=True):
        assert row == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_linear_layer_reads_pooled_states_the_prompt_and_then_the_likelihood(tiny, family):
    critic = Critic(tiny(family)).eval()
    batch = critic.model.collate(PROMPTS[:1], PROGRAMS[:1])
    reading = critic.model.read(batch, with_logits=True)
    states, width = reading.states, critic.model.hidden_size
    pooled = [states.amax(1), states.mean(1), reading.prompt_states.mean(1)]
    inputs = torch.cat([*pooled, likelihood_features(reading.logits, batch)[:, -1]], -1)
    expected = inputs @ critic.head.weight.T + critic.head.bias
    assert critic.head.in_features == 3 * width + 10
    assert torch.allclose(critic.program_logits(batch), expected, atol=1e-5)


def test_running_mean_by_hand_and_blind_to_padding():
    states = torch.tensor([[[1.0, -2.0], [3.0, 0.0], [99.0, 99.0]]])
    mask = torch.tensor([[True, True, False]])
    assert running_mean(states, batch_with_mask(mask)).tolist() == [[[1.0, -2.0], [2.0, -1.0], [2.0, -1.0]]]


@pytest.mark.parametrize("family", FAMILIES)
def test_legacy_is_the_originals_code(tiny, family):
    """Two layers on d^-1/2 times the state *before* w_t, one prefix at a time; d = 16."""
    critic = Critic(tiny(family), pooling="legacy").eval()
    model, program = critic.model, PROGRAMS[0]
    _, tokens = critic.both_logits(model.collate(PROMPTS[:1], [program]))
    first, _, second = critic.head
    for t in range(1, len(program)):
        state = model.states(model.collate(PROMPTS[:1], [program[:t]]))[0, -1]  # has read w_1..w_t, predicts the next
        expected = second.weight @ (first.weight @ state / 4 + first.bias).clamp(min=0) + second.bias
        assert torch.allclose(tokens[0, t], expected, atol=1e-5)


def test_legacy_takes_each_classs_maximum_over_512_positions(tiny):
    """Padding spelt out as tokens of the program has the same maxima: it is pooled over like any other."""
    critic = Critic(tiny(), pooling="legacy").eval()
    program = critic.program_logits(critic.model.collate(PROMPTS[:1], PROGRAMS[:1]))
    padded = [*PROGRAMS[0], *[critic.model.pad_id] * (512 - len(PROGRAMS[0]))]
    _, tokens = critic.both_logits(critic.model.collate(PROMPTS[:1], [padded]))
    assert tokens.shape[1] == 512
    assert torch.allclose(program, tokens.amax(1), atol=1e-6)


def test_legacy_depends_on_padding_and_the_others_do_not(tiny):
    """With a class that likes the padding's states, its maximum sits there."""
    critic = Critic(tiny(), pooling="legacy").eval()
    batch = critic.model.collate(PROMPTS, PROGRAMS)
    garbage = batch.program_ids.masked_fill(~batch.program_mask, 77)
    changed = Batch(batch.prompt_ids, batch.prompt_mask, garbage, batch.program_mask)
    assert not torch.allclose(critic.program_logits(changed)[1], critic.program_logits(batch)[1], atol=1e-4)
    assert not critic.uses_likelihood


def batch_with_mask(mask):
    ids = torch.zeros_like(mask, dtype=torch.long)
    return Batch(ids, mask, ids, mask)


def test_running_max_by_hand_and_blind_to_padding():
    states = torch.tensor([[[1.0, -5.0], [0.0, -2.0], [3.0, -9.0]], [[-1.0, 2.0], [99.0, 99.0], [99.0, 99.0]]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert running_max(states, batch_with_mask(mask)).tolist() == [
        [[1.0, -5.0], [1.0, -2.0], [3.0, -2.0]],
        [[-1.0, 2.0], [-1.0, 2.0], [-1.0, 2.0]],
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_program_logits_are_linear_in_the_max_pooled_program_states(tiny, family):
    """Brute force, one program at a time without padding: W max_t(h_t) + b."""
    critic = Critic(tiny(family), pooling="prefix_max", uses_likelihood=False).eval()
    batch = critic.model.collate(PROMPTS, PROGRAMS)
    found = critic.program_logits(batch)
    for row, (prompt, program) in enumerate(zip(PROMPTS, PROGRAMS, strict=True)):
        states = critic.model.states(critic.model.collate([prompt], [program]))[0]
        pooled = [max(h[k].item() for h in states) for k in range(states.shape[1])]
        expected = critic.head.weight @ torch.tensor(pooled) + critic.head.bias
        assert torch.allclose(found[row], expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["prefix", "prefix_max"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefixs_logits_are_those_of_the_prefix_as_a_program(tiny, family, pooling):
    """Judging w_1..w_t as a program of its own gives the same: q depends on no later token."""
    critic = Critic(tiny(family), pooling=pooling).eval()
    per_token = critic.token_logits(critic.model.collate(PROMPTS[:1], PROGRAMS[:1]))[0]
    for t in range(1, len(PROGRAMS[0]) + 1):
        alone = critic.program_logits(critic.model.collate(PROMPTS[:1], [PROGRAMS[0][:t]]))[0]
        assert torch.allclose(per_token[t - 1], alone, atol=1e-5)


def test_token_pooling_is_the_papers_softmax_of_w_h_t(tiny):
    critic = Critic(tiny(), pooling="token", uses_likelihood=False).eval()
    batch = critic.model.collate(PROMPTS[:1], PROGRAMS[:1])
    states = critic.model.states(batch)[0]
    expected = states @ critic.head.weight.T + critic.head.bias
    assert torch.allclose(critic.token_logits(batch)[0], expected, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_both_logits_are_the_two_separate_ones(tiny, pooling):
    critic = Critic(tiny(), pooling=pooling).eval()
    batch = critic.model.collate(PROMPTS, PROGRAMS)
    program, tokens = critic.both_logits(batch)
    assert torch.equal(program, critic.program_logits(batch))
    assert torch.equal(tokens, critic.token_logits(batch))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_changed_or_removed_changes_no_value(tiny, family, pooling):
    """Garbage in the padding, more padding, and none at all: the original's winning class sat on padding in 94%."""
    critic = Critic(tiny(family), pooling=pooling).eval()
    batch = critic.model.collate(PROMPTS, PROGRAMS)
    program, tokens = critic.both_logits(batch)

    garbage = batch.program_ids.masked_fill(~batch.program_mask, 77)
    prompt_garbage = batch.prompt_ids.masked_fill(~batch.prompt_mask, 78)
    changed = critic.both_logits(Batch(prompt_garbage, batch.prompt_mask, garbage, batch.program_mask))
    longer = critic.both_logits(critic.model.collate([*PROMPTS, (10,) * 9], [*PROGRAMS, (20,) * 19]))
    alone = critic.both_logits(critic.model.collate(PROMPTS[1:], PROGRAMS[1:]))
    length = len(PROGRAMS[1])
    for other_program, other_tokens, row in [(*changed, 1), (*longer, 1), (*alone, 0)]:
        assert torch.allclose(other_program[row], program[1], atol=1e-5)
        assert torch.allclose(other_tokens[row, :length], tokens[1, :length], atol=1e-5)


@pytest.mark.parametrize(("num_outcomes", "pooling"), [(4, "prefix_max"), (2, "token"), (4, "legacy")])
def test_save_and_load(tiny, tmp_path, num_outcomes, pooling):
    critic = Critic(tiny(), num_outcomes=num_outcomes, pooling=pooling, seed=3).eval()
    critic.temperature.fill_(1.75)
    critic.save(tmp_path / "critic")
    other = Critic.load(tmp_path / "critic")
    assert other.temperature.item() == 1.75
    assert (other.num_outcomes, other.pooling) == (num_outcomes, pooling)
    batch = critic.model.collate(PROMPTS, PROGRAMS)
    assert torch.equal(other.program_logits(batch), critic.program_logits(batch))


def test_what_is_no_critic_is_refused_in_one_line(tiny, tmp_path):
    tiny().save(tmp_path / "actor")
    (tmp_path / "empty").mkdir()
    critic = Critic(tiny())
    critic.save(tmp_path / "critic")
    for folder, line in [
        ("absent", "no such critic folder"),
        ("actor", "expected a critic, found a language model"),
        ("empty", "no critic.json"),
    ]:
        with pytest.raises(InputError, match=line):
            Critic.load(tmp_path / folder)


def test_a_head_of_another_critic_is_refused(tiny, tmp_path):
    Critic(tiny()).save(tmp_path / "one")
    Critic(tiny(d_model=32)).save(tmp_path / "two")
    (tmp_path / "two" / "head.safetensors").replace(tmp_path / "one" / "head.safetensors")
    with pytest.raises(InputError, match="not the linear layer of this critic"):
        Critic.load(tmp_path / "one")
    (tmp_path / "one" / "critic.json").write_text('{"format": "something"}')
    with pytest.raises(InputError, match="not a 'coderl critic 3' file"):
        Critic.load(tmp_path / "one")


def test_three_outcomes_are_refused(tiny):
    with pytest.raises(InputError, match="num_outcomes 3"):
        Critic(tiny(), num_outcomes=3)


def test_the_head_depends_on_its_seed_alone(tokenizer):
    torch.manual_seed(1)
    one = Critic(tiny_models.tiny_t5(tokenizer, d_model=16, num_layers=1), seed=4)
    torch.manual_seed(2)
    two = Critic(tiny_models.tiny_t5(tokenizer, d_model=16, num_layers=1), seed=4)
    assert torch.equal(one.head.weight, two.head.weight)
