"""The original's reinforcement learning loss on the five real APPS problems that circulate with it, number by number.

The formulae are those of its code: z_t = MLP(d^-1/2 s_t) with s_t the state that predicts w_t; q_t = softmax(z_t)[u]
with u the sample's true outcome; A = r(u) - r(u_b); rho_t = A q_t; L_rl = -mean over tokens of rho_t log p(w_t). The
critic's released scores cannot be had any more, so its weights are random here: what is tested is what is made of them.
"""

import json
import math
from collections import Counter

import pytest
import torch

from coderl import prompts
from coderl.critic.model import Critic
from coderl.critic.values import values
from coderl.models import tiny as tiny_models
from coderl.problems import apps
from coderl.rl import returns
from coderl.rl.settings import ActorTrainingConfig
from coderl.rl.staged import ActorStepExample, actor_loss_of
from coderl.training.losses import ActorExample, CrossEntropyExample
from coderl.types import Outcome

OUTCOMES = {-2: Outcome.COMPILE_ERROR, -1: Outcome.RUNTIME_ERROR, 0: Outcome.FAILED_TEST, 1: Outcome.PASSED_TEST}
RETURNS = {-2: -1.0, -1: -0.6, 0: -0.3, 1: 1.0}
"""By the original's result codes; False is 0 and True 1."""
PROBLEMS = ["0001", "0111", "2287", "2404", "4184"]
ADVANTAGES = {
    "0001": {1.6: 14, 0.3: 6},
    "0111": {-0.4: 1, 0.0: 11, 0.3: 6, 1.6: 2},
    "2287": {0.4: 4},
    "2404": {-1.3: 1, 0.0: 18},
    "4184": {-0.7: 1, -0.3: 8, 0.0: 10, 1.3: 1},
}
"""Counted by hand from the stored results; 39 of 83 are 0."""


@pytest.fixture(scope="module")
def networks(shared_data):
    texts = [path.read_text() for path in sorted((shared_data / "apps" / "train").glob("*/gen_solutions.json"))]
    tokenizer = tiny_models.train_tokenizer(texts, 500)
    actor = tiny_models.tiny_t5(tokenizer, d_model=16, num_layers=1, num_heads=2)
    critic = Critic(
        tiny_models.tiny_t5(tokenizer, d_model=16, num_layers=1, num_heads=2, seed=3), pooling="legacy"
    ).eval()
    with torch.no_grad():
        critic.head[0].weight.mul_(20.0)  # random scores that differ, as a trained critic's do
    return actor, critic


@pytest.mark.parametrize("problem_id", PROBLEMS)
def test_the_rl_loss_of_every_shipped_sample(networks, shared_data, problem_id):
    actor, critic = networks
    folder = shared_data / "apps" / "train" / problem_id
    results = json.loads((folder / "gen_solutions.json").read_text())
    baseline = int(json.loads((folder / "baseline_solutions.json").read_text())[0]["result"])
    problem = apps.read_folder(folder).problem
    prompt = tuple(actor.encode_prompt(prompts.actor_prompt(problem, style="apps_train"), 600))
    programs = [tuple(actor.encode_program(row["code"], 512)) for row in results]
    codes = [int(row["result"]) for row in results]

    advantages = returns.relative_returns(
        [returns.outcome_return(OUTCOMES[c]) for c in codes],
        greedy_return=returns.outcome_return(OUTCOMES[baseline]),
    )
    assert Counter(round(a, 6) + 0.0 for a in advantages) == ADVANTAGES[problem_id]
    scores = values(critic, [prompt] * len(programs), programs, batch_size=4)
    for program, code, advantage, score in zip(programs, codes, advantages, scores, strict=True):
        rho = returns.token_returns(advantage, returns.critic_values(score.token_probs, OUTCOMES[code]))
        sample = ActorExample(prompt, program, rho)
        ours, _ = actor_loss_of(actor, [ActorStepExample(sample, None)], config=ActorTrainingConfig())
        by_hand, q = original_loss(actor, critic, prompt, program, code, baseline)
        assert rho == pytest.approx([(RETURNS[code] - RETURNS[baseline]) * v for v in q], abs=1e-5)
        assert ours.item() == pytest.approx(by_hand, rel=1e-3, abs=1e-6)


def original_loss(actor, critic, prompt, program, code, baseline):
    """Return L_rl and q_t of one micro-batch of one program, by loops over floats from states and log-probs."""
    with torch.no_grad():
        batch = critic.model.collate([prompt], [program])
        states = critic.model.read(batch).prefix_states[0, :-1]
        log_probs = actor.log_probs(actor.collate([prompt], [program]))[0].tolist()
        first, _, second = critic.head
        logits = (torch.relu(states / 4.0 @ first.weight.T + first.bias) @ second.weight.T + second.bias).tolist()
    column = code + 2  # -2, -1, False, True are the classes 0, 1, 2, 3
    total, q = 0.0, []
    for z, log_prob in zip(logits, log_probs, strict=True):
        q.append(math.exp(z[column]) / sum(math.exp(v) for v in z))
        total -= (RETURNS[code] - RETURNS[baseline]) * q[-1] * log_prob
    return total / len(program), q


def test_alternating_micro_batches_are_both_terms_at_half_weight(networks):
    """Two accumulated micro-steps, an even one of cross-entropy and an odd one of L_rl: (L_ce + L_rl) / 2."""
    actor, _ = networks
    sample = ActorExample((10, 11), (20, 21, 22, 2), (0.5, -0.25, 1.0, 0.125))
    solution = CrossEntropyExample((10, 12), (30, 31, 2))
    with torch.no_grad():
        drawn = actor.log_probs(actor.collate([sample.prompt], [sample.program]))[0].tolist()
        written = actor.log_probs(actor.collate([solution.prompt], [solution.program]))[0].tolist()
    rl = -sum(r * p for r, p in zip(sample.token_returns, drawn, strict=True)) / 4
    config = ActorTrainingConfig(rl_weight=0.5, ce_weight=0.5)
    ours, _ = actor_loss_of(actor, [ActorStepExample(sample, solution)], config=config)
    assert ours.item() == pytest.approx((rl - sum(written) / 3) / 2, rel=1e-4)
