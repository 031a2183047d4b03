"""The networks of this project as what `search` asks for: a repairer and a critic of prefixes.

The generator is an `Actor` as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from coderl.actor.model import Actor, PromptConfig, prompt_tokens
from coderl.critic.model import Critic
from coderl.critic.values import CriticScore, values
from coderl.critic_sampling.candidates import RepairRequest
from coderl.types import Problem, Program, ProgramKind


class RepairModel:
    """Draws repairs from an actor that was trained on repair prompts (Eq. 13)."""

    def __init__(self, actor: Actor):
        self.actor = actor

    def repair(self, requests: Sequence[RepairRequest], *, seed: int) -> list[list[Program]]:
        """Return the programs drawn for each request."""
        encoded = [
            (self.actor.encode_repair_prompt(r.problem, r.program, r.result), (), r.num_samples) for r in requests
        ]
        drawn = self.actor.draw(encoded, seed=seed)
        return [
            self.actor.programs(r.problem, tokens, kind=ProgramKind.REPAIRED)
            for r, tokens in zip(requests, drawn, strict=True)
        ]


class PrefixScorer:
    """Scores programs and all their prefixes with a critic that shares the actor's tokens."""

    def __init__(self, critic: Critic, prompt: PromptConfig, *, batch_size: int = 64):
        self.critic = critic
        self.prompt = prompt
        self.batch_size = batch_size

    def score(self, items: Sequence[tuple[Problem, Program]]) -> list[CriticScore]:
        """Return the critic's score of each (problem, program)."""
        encoded = [prompt_tokens(self.critic.model, problem, self.prompt) for problem, _ in items]
        return values(self.critic, encoded, [program.tokens for _, program in items], batch_size=self.batch_size)
