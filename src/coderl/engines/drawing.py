"""From logits to a token: temperature, then top-k, then top-p, then the inverse of the cumulative distribution.

A token is a function of its row's logits and one uniform number, so that what a row draws does not depend on the rows
beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

HEAD = 32
"""So many of the likeliest tokens are sorted first; only rows whose nucleus is larger sort the whole vocabulary."""


def draw(
    logits: Float[Tensor, "B V"],
    uniforms: Float[Tensor, " B"],
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Int[Tensor, " B"]:
    """Return one token a row; `uniforms` in [0, 1) say which, `top_k` 0 and `top_p` 1 keep all tokens.

    The order of the cuts is that of `transformers`, with which the original sampled. Temperature 0 takes the likeliest.
    """
    if temperature == 0 or top_k == 1:
        return logits.argmax(-1)
    scaled = logits / temperature
    vocab_size = scaled.shape[-1]
    if top_p >= 1 and not 0 < top_k < vocab_size:
        return _invert(scaled.softmax(-1).cumsum(-1), uniforms)
    if 0 < top_k < vocab_size:
        values, order = scaled.topk(top_k)
        return _draw_nucleus(values.softmax(-1), order, uniforms, top_p)
    values, order = scaled.topk(min(HEAD, vocab_size))
    probs = (values - scaled.logsumexp(-1, keepdim=True)).exp()
    tokens = _draw_nucleus(probs, order, uniforms, top_p)
    wide = (probs.sum(-1) < top_p).nonzero().squeeze(-1)
    if wide.numel() and vocab_size > HEAD:
        probs, order = scaled[wide].softmax(-1).sort(-1, descending=True)
        tokens[wide] = _draw_nucleus(probs, order, uniforms[wide], top_p)
    return tokens


def _draw_nucleus(
    probs: Float[Tensor, "B K"], order: Int[Tensor, "B K"], uniforms: Float[Tensor, " B"], top_p: float
) -> Int[Tensor, " B"]:
    """Draw from the smallest head of descending `probs` whose mass reaches `top_p`."""
    cumulative = probs.cumsum(-1)
    sizes = 1 + (cumulative[:, :-1] < top_p).sum(-1, keepdim=True)
    mass = cumulative.gather(-1, sizes - 1)
    ranks = (cumulative <= uniforms[:, None] * mass).sum(-1, keepdim=True).minimum(sizes - 1)
    return order.gather(-1, ranks).squeeze(-1)


def _invert(cumulative: Float[Tensor, "B V"], uniforms: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    targets = (uniforms * cumulative[:, -1])[:, None]
    return torch.searchsorted(cumulative, targets, right=True).squeeze(-1).clamp(max=cumulative.shape[-1] - 1)


def row_uniforms(
    seed: int, prompt: Sequence[int], prefix: Sequence[int], occurrence: int, sample: int, length: int
) -> np.ndarray:
    """Return the `length` uniform numbers in [0, 1) of one row: of its prompt, prefix and number, and of nothing else.

    `occurrence` tells equal prompts of one call apart.
    """
    name = f"{seed}|{','.join(map(str, prompt))}|{','.join(map(str, prefix))}|{occurrence}|{sample}"
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key)).random(length, dtype=np.float32)
