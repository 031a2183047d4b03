"""How a backbone is made from nothing, or adapted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from coderl.settings import Config, Count


class TinyConfig(Config):
    """An encoder-decoder trained from nothing, with its tokenizer, for machines without a GPU."""

    vocab_size: Count = 1000
    d_model: Count = 128
    d_ff: Count = 384
    num_layers: Count = 2
    num_heads: Count = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class LoraConfig(Config):
    """Which matrices get an adapter, and how it is kept."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    """The adapter's product is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] = ()
    """Names of the linear layers, such as `q_proj`; empty: all but the output layer."""
    saved_as: Literal["merged", "adapter"] = "merged"
    """A whole model, or the adapter alone, whose base model must stay where it is."""
