"""Models of today's families go through what a run does: learn, draw, be criticised, learn from it, search, be kept."""

import pytest
import torch

from coderl.critic.model import Critic
from coderl.critic.values import values
from coderl.engines.actor import Actor
from coderl.engines.settings import SamplingConfig
from coderl.models.lm import LanguageModel
from coderl.prompts import PromptConfig
from coderl.recipe import load_recipe
from coderl.rl.settings import ActorTrainingConfig
from coderl.rl.staged import train_actor
from coderl.stages.console import Reporter
from coderl.stages.run import run
from coderl.training.critic import train_critic
from coderl.training.losses import ActorExample, CriticExample, CrossEntropyExample
from coderl.training.settings import CriticTrainingConfig, OptimConfig, WarmStartConfig
from coderl.training.warm_start import warm_start
from coderl.types import Outcome, Problem

FAMILIES = ("Llama", "Qwen2", "Starcoder2", "Gemma", "T5")
PROBLEMS = [Problem("a", "Print 1."), Problem("b", "Print the number that is read, and then 2.")]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_learns_draws_and_is_criticised(tiny_of, tmp_path, family):
    """One step of everything, on the libraries below the stages."""
    optim = OptimConfig(num_steps=1, batch_size=2, learning_rate=1e-3)
    actor = Actor(tiny_of(family), PromptConfig(max_prompt_tokens=48), SamplingConfig(max_new_tokens=6, temperature=1))
    prompts = {p.problem_id: tuple(actor.encode_prompt(p)) for p in PROBLEMS}
    solved = [CrossEntropyExample(prompts[p.problem_id], actor.encode_solution(p, "print(1)")) for p in PROBLEMS]
    (step,) = warm_start(actor.model, solved, WarmStartConfig(optim=optim))
    assert step.metrics["ce_loss"] > 0
    drawn = actor.sample(PROBLEMS, num_samples=2, seed=0)
    judged = [(prompts[w.problem_id], w.tokens) for group in drawn for w in group]
    critic = Critic(tiny_of(family))
    seen = [CriticExample(*read, Outcome(i % 4)) for i, read in enumerate(judged)]
    assert len(list(train_critic(critic, seen, CriticTrainingConfig(optim=optim)))) == 1
    scores = values(critic, [p for p, _ in judged], [w for _, w in judged])
    assert [len(s.token_probs) for s in scores] == [len(w) for _, w in judged]
    before = [p.clone() for p in actor.model.parameters()]
    samples = [
        ActorExample(*read, tuple(row[-1] for row in s.token_probs)) for read, s in zip(judged, scores, strict=True)
    ]
    (step,) = train_actor(actor.model, samples, solved, ActorTrainingConfig(optim=optim))
    assert {"rl_loss", "ce_loss"} <= step.metrics.keys()
    assert any(not torch.equal(a, b) for a, b in zip(before, actor.model.parameters(), strict=True))
    requests = [
        (p, group[0].tokens[:2], 2) for p, group in zip(PROBLEMS, drawn, strict=True) if len(group[0].tokens) > 2
    ]
    continued = actor.continue_prefixes(requests, seed=1)
    assert [w.tokens[:2] for found in continued for w in found] == [r[1] for r in requests for _ in range(2)]
    actor.model.save(tmp_path / "model")
    again = Actor(LanguageModel.load(tmp_path / "model"), actor.prompt, actor.sampling_config)
    assert again.greedy(PROBLEMS) == actor.greedy(PROBLEMS)


RECIPE = """
name = "{family}"
num_threads = 1
[problems]
source = "miniapps:num_solved=12,num_unsolved=4,num_validation=4,num_test=4"
[prompt]
max_prompt_tokens = 96
max_program_tokens = 48
[actor]
init = "{init}"
[warm_start.optim]
learning_rate = 1e-3
num_steps = 2
[rounds]
selection = {{ num_problems = 2, num_samples = 1 }}
[rounds.sample]
num_samples = 2
sampling = {{ temperature = 1.0, max_new_tokens = 12 }}
[execution]
num_workers = 1
[critic.training.optim]
num_steps = 2
[binary_critic.training.optim]
num_steps = 2
[returns]
baseline = "none"
[actor_training.optim]
num_steps = 2
[repair.training.optim]
num_steps = 2
[evaluation]
num_samples = 2
ks = [1]
temperatures = [0.6]
ce_control = false
sampling = {{ max_new_tokens = 12 }}
"""


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_goes_through_every_stage(tiny_of, tmp_path, family):
    tiny_of(family).save(tmp_path / "init")
    (tmp_path / "recipe.toml").write_text(RECIPE.format(family=family.lower(), init=tmp_path / "init"))
    report = run(load_recipe(tmp_path / "recipe.toml"), tmp_path / "run", Reporter(quiet=True))
    assert report.is_file()
    assert (tmp_path / "run" / "evaluate" / "actor_critic_cs" / "sample" / "manifest.json").is_file()
