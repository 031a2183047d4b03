"""The policy p(W | D): a language model together with how problems become its tokens and its tokens programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from coderl import prompts
from coderl.engines.engine import Drawn, Engine, Request, open_engine
from coderl.engines.settings import SamplingConfig
from coderl.models.lm import LanguageModel
from coderl.prompts import PromptConfig
from coderl.types import (
    Problem,
    Program,
    ProgramKind,
    Verdict,
)


def prompt_tokens(model: LanguageModel, problem: Problem, config: PromptConfig) -> list[int]:
    """Return the tokens that `model` (an actor's or a critic's) reads for a problem."""
    return model.encode_prompt(prompts.actor_prompt(problem, style=config.style), config.max_prompt_tokens)


class Actor:
    """A language model that writes programs for problems.

    It takes `Problem`, never `LabelledProblem`: what it cannot see cannot reach a prompt.
    """

    def __init__(
        self, model: LanguageModel, prompt: PromptConfig | None = None, sampling_config: SamplingConfig | None = None
    ):
        self.model = model
        self.prompt = prompt or PromptConfig()
        self.sampling_config = sampling_config or SamplingConfig()
        self._engine: Engine | None = None

    @classmethod
    def load(cls, path: Path | str, prompt: PromptConfig, sampling_config: SamplingConfig | None = None) -> Actor:
        """Return the actor whose model is in a folder or on a hub.

        Raises:
            InputError: there is no such model.
        """
        settings = sampling_config or SamplingConfig()
        return cls(LanguageModel.load(path, dtype=settings.dtype), prompt, settings)

    # ------------------------------------------------------------------------------------------ text and tokens

    def encode_prompt(self, problem: Problem) -> list[int]:
        """Return the tokens that the actor reads for a problem."""
        return prompt_tokens(self.model, problem, self.prompt)

    def encode_repair_prompt(self, problem: Problem, program: Program, result: Verdict) -> list[int]:
        """Return the tokens a repair model reads: the problem, the program and what went wrong.

        What does not fit is trimmed from the statement; never the program, the error or the answer marker. When nothing
        of the statement is left, the program may take up to `max_program_tokens` on top of `max_prompt_tokens`.

        Source: CodeRL Eq. 13 conditions on outcome and error subtype, Algorithm 1 on the message; all three are given.

        Raises:
            InputError: the program is too long even so.
        """
        assert result.outcome is not None
        what = (result.outcome, result.error_subtype, result.message)
        parts = prompts.repair_prompt(problem, program.code, *what, style=self.prompt.style)
        most, extra = self.prompt.max_prompt_tokens, self.prompt.max_program_tokens
        return prompts.fit(parts, self.model.encode_prompt, most, extra_tokens=extra)

    def encode_solution(self, problem: Problem, code: str) -> tuple[int, ...]:
        """Return the tokens that the actor should write for a program, end of sequence included."""
        text = prompts.actor_target(problem, code, style=self.prompt.style)
        return tuple(self.model.encode_program(text, self.prompt.max_program_tokens))

    def programs(
        self,
        problem: Problem,
        drawn: Iterable[Sequence[int]],
        *,
        kind: ProgramKind = ProgramKind.SAMPLE,
        first_index: int = 0,
    ) -> list[Program]:
        """Return the programs that some drawn token sequences spell."""
        return [
            Program(
                problem.problem_id,
                index,
                prompts.extract_program(self.model.decode(tokens), problem, style=self.prompt.style),
                kind,
                tuple(tokens),
            )
            for index, tokens in enumerate(drawn, start=first_index)
        ]

    # ------------------------------------------------------------------------------------------------- drawing

    @property
    def engine(self) -> Engine:
        """What draws, opened when it is first asked for."""
        if self._engine is None:
            self._engine = open_engine(self.model, self.sampling_config)
        return self._engine

    @property
    def drawing_config(self) -> SamplingConfig:
        """How programs are drawn, with the texts that end one in the prompt's style where none are given."""
        config = self.sampling_config
        if config.stop is not None:
            return config
        return config.model_copy(update={"stop": prompts.stop_texts(self.prompt.style)})

    def drawn(
        self, requests: Sequence[Request], *, seed: int, with_log_probs: bool = False, with_entropies: bool = False
    ) -> list[list[Drawn]]:
        """Return what the engine draws for some requests, see `Engine.draw`."""
        told = {"with_log_probs": with_log_probs, "with_entropies": with_entropies}
        return self.engine.draw(requests, self.drawing_config, seed=seed, **told)

    def sample(self, problems: Sequence[Problem], *, num_samples: int, seed: int) -> list[list[Program]]:
        """Return `num_samples` programs of each problem: W^s."""
        requests = [Request(tuple(self.encode_prompt(problem)), (), num_samples) for problem in problems]
        drawn = self.drawn(requests, seed=seed)
        return [self.programs(p, (d.tokens for d in found)) for p, found in zip(problems, drawn, strict=True)]

    def greedy(self, problems: Sequence[Problem]) -> list[Program]:
        """Return the likeliest program, token by token, of each problem: the baseline W^b."""
        requests = [Request(tuple(self.encode_prompt(problem))) for problem in problems]
        likeliest = self.drawing_config.model_copy(update={"temperature": 0.0})
        drawn = self.engine.draw(requests, likeliest, seed=0)
        return [
            self.programs(p, [found.tokens], kind=ProgramKind.BASELINE)[0]
            for p, (found,) in zip(problems, drawn, strict=True)
        ]

    def continue_prefixes(
        self, requests: Sequence[tuple[Problem, tuple[int, ...], int]], *, seed: int
    ) -> list[list[Program]]:
        """Return, for each (problem, prefix, number), so many programs that begin with the prefix."""
        encoded = [(self.encode_prompt(problem), prefix, number) for problem, prefix, number in requests]
        drawn = self.draw(encoded, seed=seed)
        return [self.programs(request[0], tokens) for request, tokens in zip(requests, drawn, strict=True)]

    def draw(
        self, requests: Sequence[tuple[list[int], tuple[int, ...], int]], *, seed: int
    ) -> list[list[tuple[int, ...]]]:
        """Return, for each (prompt tokens, prefix, number), so many token sequences."""
        asked = [Request(tuple(prompt), tuple(prefix), number, number) for prompt, prefix, number in requests]
        return [[d.tokens for d in found] for found in self.drawn(asked, seed=seed)]
