"""How programs are drawn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from coderl.settings import Config, Count, Incidental

EngineName = Literal["auto", "transformers", "ctranslate2", "vllm"]
"""Which library computes the next token."""
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""`auto`: bfloat16 where the hardware computes in it, float32 elsewhere."""


class SamplingConfig(Config):
    """How programs are drawn."""

    engine: EngineName = "auto"
    """`auto`: the fastest of those installed that knows the model; `vllm` only when it is named."""
    quantise: Literal["none", "int8"] = "none"
    """`int8`: draw with weights of 8 bits; `ctranslate2` only. Log-probabilities stay those of the model itself."""
    vllm_url: Annotated[str | None, Incidental("where the same model draws")] = None
    """Of a vLLM server that has the model; None: vLLM starts in this process."""
    temperature: float = Field(default=0.6, ge=0)
    """0 takes the likeliest token. The paper: 0.6 on APPS, 1.2 on MBPP."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """The smallest set of tokens with this mass is drawn from."""
    top_k: int = Field(default=0, ge=0)
    """So many of the likeliest tokens are drawn from; 0 for all. The original had 50, its library's silent default."""
    max_new_tokens: int = Field(default=512, ge=1)
    """The longest program, without a prefix it continues."""
    stop: tuple[str, ...] | None = None
    """Texts that end a program; its last token is the one with which the first of them is complete. None: those of the
    prompt's style, which for a chat is the closing fence of the program. `[]`: none."""
    batch_rows: Annotated[Count | None, Incidental("a row does not depend on those beside it")] = None
    """Programs drawn side by side. None: 256, on a GPU 1024."""
    cache_gib: Annotated[float | None, Field(gt=0), Incidental("how many rows are drawn side by side")] = None
    """Fewer rows are drawn side by side where the attention's keys and values would outgrow this. None: 2, on a GPU
    half of its free memory."""
    dtype: Dtype = "auto"
    """What the weights are rounded to for drawing. `auto`: bfloat16 where the hardware computes in it, else float32; a
    processor without its instructions draws five times slower in it."""


class SampleConfig(Config):
    """How many programs a problem, and how they are drawn."""

    num_samples: Count = 8
    sampling: SamplingConfig = SamplingConfig()
    chunk_size: Count = 32
    """Problems a model call; also what a killed run may have to draw again."""
