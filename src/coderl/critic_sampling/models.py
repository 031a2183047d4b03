"""The networks of this project as what `search` asks for: a repairer and a critic of prefixes.

The generator is an `Actor` as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from coderl.critic.model import Critic
from coderl.critic.values import values
from coderl.critic_sampling.candidates import RepairRequest, WriteRequest, Written
from coderl.engines.actor import Actor, prompt_tokens
from coderl.engines.branching import GreedyWriter
from coderl.prompts import PromptConfig
from coderl.types import (
    InputError,
    Problem,
    Program,
    ProgramKind,
    Score,
)


class RepairModel:
    """Draws repairs from an actor that was trained on repair prompts (Eq. 13)."""

    def __init__(self, actor: Actor):
        self.actor = actor

    def repair(self, requests: Sequence[RepairRequest], *, seed: int) -> list[list[Program]]:
        """Return the programs drawn for each request; none where the program is too long for a prompt."""
        fitting, encoded = [], []
        for request in requests:
            with suppress(InputError):
                prompt = self.actor.encode_repair_prompt(request.problem, request.program, request.result)
                encoded.append((prompt, (), request.num_samples))
                fitting.append(request)
        drawn = dict(zip(map(id, fitting), self.actor.draw(encoded, seed=seed), strict=True))
        return [self.actor.programs(r.problem, drawn.get(id(r), []), kind=ProgramKind.REPAIRED) for r in requests]


class NearGreedyWriter:
    """Writes the likeliest programs of an actor or a repair model, and keeps what their branches need."""

    def __init__(self, actor: Actor, *, num_alternatives: int):
        self.actor = actor
        self.writer = GreedyWriter(actor.model, actor.drawing_config, num_likeliest=num_alternatives + 1)
        self._prompts: dict[tuple[str, str], list[int] | None] = {}

    def write(self, requests: Sequence[WriteRequest]) -> list[Written | None]:
        """Return what is written for each request; None where what is to be repaired is too long for a prompt."""
        prompts = {i: prompt for i, request in enumerate(requests) if (prompt := self._known(request)) is not None}
        beginnings = [requests[i].prefix_tokens for i in prompts]
        found: list[Written | None] = [None] * len(requests)
        for i, drawn in zip(prompts, self.writer.write(list(prompts.values()), beginnings), strict=True):
            (program,) = self.actor.programs(requests[i].problem, [drawn.tokens])
            found[i] = Written(program, drawn.likeliest, drawn.log_probs)
        return found

    def _known(self, request: WriteRequest) -> list[int] | None:
        """Return a prompt's tokens, made once."""
        name = (request.problem.problem_id, request.failed[0].code if request.failed else "")
        if name not in self._prompts:
            self._prompts[name] = self._prompt(request)
        return self._prompts[name]

    def _prompt(self, request: WriteRequest) -> list[int] | None:
        if request.failed is None:
            return self.actor.encode_prompt(request.problem)
        with suppress(InputError):
            return self.actor.encode_repair_prompt(request.problem, *request.failed)
        return None

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of some tokens."""
        return self.actor.model.decode(tokens)


class PrefixScorer:
    """Scores programs and all their prefixes with a critic that shares the actor's tokens."""

    def __init__(self, critic: Critic, prompt: PromptConfig, *, batch_size: int = 64):
        self.critic = critic
        self.prompt = prompt
        self.batch_size = batch_size

    def score(self, items: Sequence[tuple[Problem, Program]]) -> list[Score]:
        """Return the critic's score of each (problem, program)."""
        encoded = [prompt_tokens(self.critic.model, problem, self.prompt) for problem, _ in items]
        return values(self.critic, encoded, [program.tokens for _, program in items], batch_size=self.batch_size)
