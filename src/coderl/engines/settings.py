"""How programs are drawn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from coderl.settings import Config, Count, Incidental


class SamplingConfig(Config):
    """How programs are drawn."""

    temperature: float = Field(default=0.6, ge=0)
    """0 takes the likeliest token. The paper: 0.6 on APPS, 1.2 on MBPP."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """The smallest set of tokens with this mass is drawn from."""
    top_k: int = Field(default=0, ge=0)
    """So many of the likeliest tokens are drawn from; 0 for all. The original had 50, its library's silent default."""
    max_new_tokens: int = Field(default=512, ge=1)
    """The longest program, without a prefix it continues."""
    batch_rows: Annotated[int, Incidental("a row does not depend on those beside it")] = Field(default=256, ge=1)
    """Programs drawn side by side."""
    cache_gib: Annotated[float, Incidental("how many rows are drawn side by side")] = Field(default=2.0, gt=0)
    """Fewer rows are drawn side by side where the attention's keys and values would outgrow this."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the weights are rounded to for drawing; a processor with bfloat16 arithmetic draws about twice as fast."""


class SampleConfig(Config):
    """How many programs a problem, and how they are drawn."""

    num_samples: Count = 8
    sampling: SamplingConfig = SamplingConfig()
    chunk_size: Count = 32
    """Problems a model call; also what a killed run may have to draw again."""
