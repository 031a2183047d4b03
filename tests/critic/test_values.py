"""Scores come back in order, in the right shape, whatever the batches."""

import pytest
import torch

from coderl.critic.columns import outcome_column
from coderl.critic.model import Critic
from coderl.critic.values import values
from coderl.types import Outcome, Score

PROMPTS = [(10, 11), (10, 12, 13), (14,), (10, 11)]
PROGRAMS = [(20, 2), (21, 22, 23, 24, 2), (2,), (25, 26, 2)]


def test_scores_are_softmaxed_logits_in_the_given_order(tiny):
    critic = Critic(tiny()).eval()
    found = values(critic, PROMPTS, PROGRAMS, batch_size=2)
    for score, prompt, program in zip(found, PROMPTS, PROGRAMS, strict=True):
        batch = critic.model.collate([prompt], [program])
        whole = critic.program_logits(batch).softmax(-1)[0].tolist()
        per_token = critic.token_logits(batch).softmax(-1)[0].tolist()
        assert score.program_probs == pytest.approx(whole, abs=1e-5)
        assert len(score.token_probs) == len(program)
        for row, expected in zip(score.token_probs, per_token, strict=True):
            assert row == pytest.approx(expected, abs=1e-5)
        assert score.token_probs[-1] == pytest.approx(score.program_probs, abs=1e-6)


def test_batch_size_changes_nothing(tiny):
    critic = Critic(tiny())
    one, all_at_once = (values(critic, PROMPTS, PROGRAMS, batch_size=size) for size in (1, 9))
    for a, b in zip(one, all_at_once, strict=True):
        assert a.program_probs == pytest.approx(b.program_probs, abs=1e-5)


def test_scoring_turns_dropout_off_and_leaves_the_mode_as_it_was(tiny):
    critic = Critic(tiny(dropout=0.5)).train()
    assert values(critic, PROMPTS, PROGRAMS) == values(critic, PROMPTS, PROGRAMS)
    assert critic.training
    assert critic.model.training


def test_values_name_the_last_column():
    score = Score((0.4, 0.6), ((0.9, 0.1), (0.4, 0.6)))
    assert score.program_value == 0.6
    assert score.prefix_values == (0.1, 0.6)


def test_no_programs_no_scores(tiny):
    assert values(Critic(tiny()), [], []) == []


def test_columns():
    assert [outcome_column(u, 4) for u in Outcome] == [0, 1, 2, 3]
    assert [outcome_column(u, 2) for u in Outcome] == [0, 0, 0, 1]


def test_scores_carry_no_gradient(tiny):
    found = values(Critic(tiny()), PROMPTS, PROGRAMS)
    assert not any(isinstance(p, torch.Tensor) for s in found for p in s.program_probs)


def test_the_temperature_divides_the_logits_and_copies_are_read_once(tiny):
    critic = Critic(tiny()).eval()
    plain = values(critic, PROMPTS[:1] * 3, PROGRAMS[:1] * 3)
    assert plain[0] is plain[1] is plain[2]
    critic.temperature.fill_(2.0)
    (halved,) = values(critic, PROMPTS[:1], PROGRAMS[:1])
    for before, after in [
        (plain[0].program_probs, halved.program_probs),
        *zip(plain[0].token_probs, halved.token_probs, strict=True),
    ]:
        roots = [p**0.5 for p in before]  # softmax(z / 2) is proportional to the square root of softmax(z)
        assert after == pytest.approx([r / sum(roots) for r in roots], rel=1e-4)
