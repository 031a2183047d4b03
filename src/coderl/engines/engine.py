"""What draws programs: one protocol, whatever library computes the next token."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from coderl.engines.settings import SamplingConfig
from coderl.models.lm import LanguageModel
from coderl.types import InputError


class Request(NamedTuple):
    """Draw `num_samples` programs for a prompt, each beginning with the prefix."""

    prompt: tuple[int, ...]
    prefix: tuple[int, ...] = ()
    num_samples: int = 1
    stream: int = 0
    """Added to the seed: requests of another stream draw other programs for the same prompt."""


class Finish(StrEnum):
    """What ended a program."""

    END = "end"
    """The model's end of sequence, which is its last token."""
    STOP = "stop"
    """A stop text, complete with its last token."""
    LENGTH = "length"
    """Nothing: it was cut at `max_new_tokens`."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One program as an engine drew it."""

    tokens: tuple[int, ...]
    """Prefix, drawn tokens, and the end of sequence where the model wrote it."""
    num_prefix_tokens: int
    finish: Finish
    log_probs: tuple[float, ...] | None = None
    """log p of each drawn token under the distribution it was drawn from, temperature, top-k and top-p applied; None
    from an engine that does not tell."""
    model_log_probs: tuple[float, ...] | None = None
    """log p of each drawn token under the softmax of the model that was trained (temperature 1, nothing cut), where the
    engine is that model; else see `training_log_probs`."""
    entropies: tuple[float, ...] | None = None
    """Of that softmax before each drawn token, in nats; None where they were not asked for."""

    @property
    def drawn_tokens(self) -> tuple[int, ...]:
        """The tokens behind the prefix."""
        return self.tokens[self.num_prefix_tokens :]


@runtime_checkable
class Engine(Protocol):
    """Draws programs with the weights of one language model."""

    name: str
    """`transformers`, `ctranslate2` or `vllm`."""

    def draw(
        self,
        requests: Sequence[Request],
        config: SamplingConfig,
        *,
        seed: int,
        with_log_probs: bool = False,
        with_entropies: bool = False,
    ) -> list[list[Drawn]]:
        """Return the programs of each request; temperature 0 takes the likeliest token, the same program every time.

        Args:
            requests: prompts and what to continue.
            config: how to draw.
            seed: decides what is drawn.
            with_log_probs: tell `log_probs` and `model_log_probs`, where the engine knows them.
            with_entropies: tell `entropies` too.

        Raises:
            InputError: an empty prompt, a prefix that has already ended, or more tokens than the model has positions.
        """
        ...

    def refresh(self) -> None:
        """Take over the weights that the language model has now."""
        ...


def open_engine(model: LanguageModel, config: SamplingConfig) -> Engine:
    """Return the engine that the settings ask for, on a model's weights.

    Raises:
        InputError: its package is not installed, it does not know the model's family, or it cannot quantise.
    """
    name = fastest_engine(model) if config.engine == "auto" else config.engine
    if config.quantise != "none" and name != "ctranslate2":
        raise InputError(f"quantise = {config.quantise!r} needs engine = 'ctranslate2', here it is {name!r}")
    engine = importlib.import_module(f"coderl.engines.{name}")
    if name == "ctranslate2":
        return engine.CTranslate2Engine(model, compute_type=None if config.quantise == "none" else config.quantise)
    return engine.VllmEngine(model, config) if name == "vllm" else engine.TransformersEngine(model)


def fastest_engine(model: LanguageModel) -> str:
    """Return the name of the fastest installed engine for a model, as benchmarks/sampling.py measures it."""
    from coderl.engines import ctranslate2

    is_faster = model.device.type == "cpu" and model.is_encoder_decoder
    return "ctranslate2" if is_faster and ctranslate2.knows(model) else "transformers"
