"""From logits to a token: temperature, then top-k, then top-p, then the inverse of the cumulative distribution.

A token is a function of its row's logits and one uniform number, so that what a row draws does not depend on the rows
beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

HEAD = 32
"""So many of the likeliest tokens are sorted first; only rows whose nucleus is larger sort the whole vocabulary."""
NUM_HALVINGS = 22
"""Of the range of logits in which a GPU looks for the edge of the nucleus: it is then known to 1e-5."""
LOGIT_RANGE = 40.0
"""Tokens so far below the likeliest are in no nucleus."""


class Draw(NamedTuple):
    """One token a row, and how likely it was."""

    tokens: Int[Tensor, " B"]
    log_probs: Float[Tensor, " B"]
    """Under the distribution that was drawn from: after temperature, top-k and top-p; 0 for the likeliest alone."""


def draw(
    logits: Float[Tensor, "B V"],
    uniforms: Float[Tensor, " B"],
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Int[Tensor, " B"]:
    """Return one token a row: see `draw_scored`."""
    return draw_scored(logits, uniforms, temperature=temperature, top_k=top_k, top_p=top_p).tokens


def draw_scored(
    logits: Float[Tensor, "B V"],
    uniforms: Float[Tensor, " B"],
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    waits: bool = True,
) -> Draw:
    """Return one token a row with its log-probability; `uniforms` in [0, 1) say which.

    `top_k` 0 and `top_p` 1 keep all tokens. The order of the cuts is that of `transformers`, with which the original
    sampled. Temperature 0 takes the likeliest.

    Args:
        logits: of the next token.
        uniforms: one a row.
        temperature: what logits are divided by.
        top_k: so many of the likeliest tokens are kept.
        top_p: then the smallest set with this mass is.
        waits: off, nothing asks the device for a number, so that a GPU is never waited for; the nucleus may then hold
            tokens that are within 1e-5 of its least likely one.
    """
    if temperature == 0 or top_k == 1:
        tokens = logits.argmax(-1)
        return Draw(tokens, torch.zeros_like(tokens, dtype=logits.dtype))
    scaled = logits / temperature
    vocab_size = scaled.shape[-1]
    if 0 < top_k < vocab_size:
        values, order = scaled.topk(top_k)
        return _draw_nucleus(values.softmax(-1), order, uniforms, top_p)
    if top_p >= 1:
        return _draw_from(scaled.softmax(-1), uniforms)
    if not waits:
        return _draw_from(_nucleus_by_halving(scaled.softmax(-1), scaled, top_p), uniforms)
    values, order = scaled.topk(min(HEAD, vocab_size))
    probs = (values - scaled.logsumexp(-1, keepdim=True)).exp()
    tokens, log_probs = _draw_nucleus(probs, order, uniforms, top_p)
    wide = (probs.sum(-1) < top_p).nonzero().squeeze(-1)
    if wide.numel() and vocab_size > HEAD:
        probs, order = scaled[wide].softmax(-1).sort(-1, descending=True)
        tokens[wide], log_probs[wide] = _draw_nucleus(probs, order, uniforms[wide], top_p)
    return Draw(tokens, log_probs)


def _draw_nucleus(
    probs: Float[Tensor, "B K"], order: Int[Tensor, "B K"], uniforms: Float[Tensor, " B"], top_p: float
) -> Draw:
    """Draw from the smallest head of descending `probs` whose mass reaches `top_p`."""
    cumulative = probs.cumsum(-1)
    sizes = 1 + (cumulative[:, :-1] < top_p).sum(-1, keepdim=True)
    mass = cumulative.gather(-1, sizes - 1)
    ranks = (cumulative <= uniforms[:, None] * mass).sum(-1, keepdim=True).minimum(sizes - 1)
    log_probs = (probs.gather(-1, ranks) / mass).log()
    return Draw(order.gather(-1, ranks).squeeze(-1), log_probs.squeeze(-1))


def _draw_from(weights: Float[Tensor, "B V"], uniforms: Float[Tensor, " B"]) -> Draw:
    """Draw in proportion to the weights, which need not sum to 1."""
    cumulative = weights.cumsum(-1)
    mass = cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, uniforms[:, None] * mass, right=True).clamp(max=weights.shape[-1] - 1)
    return Draw(tokens.squeeze(-1), (weights.gather(-1, tokens) / mass).log().squeeze(-1))


def _nucleus_by_halving(
    probs: Float[Tensor, "B V"], scaled: Float[Tensor, "B V"], top_p: float
) -> Float[Tensor, "B V"]:
    """Return `probs` with 0 for tokens outside the nucleus, whose edge is found by halving: no sort, no waiting."""
    high = scaled.amax(-1, keepdim=True)
    low = high - LOGIT_RANGE
    zero = probs.new_zeros(())
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        is_enough = torch.where(scaled >= middle, probs, zero).sum(-1, keepdim=True) >= top_p
        low, high = torch.where(is_enough, middle, low), torch.where(is_enough, high, middle)
    return torch.where(scaled >= low, probs, zero)


def token_log_probs(logits: Float[Tensor, "B V"], tokens: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return log p of one token a row under the model's own distribution: the softmax of its logits, nothing cut."""
    return logits.gather(-1, tokens[:, None]).squeeze(-1) - logits.logsumexp(-1)


def entropies(logits: Float[Tensor, "B V"]) -> Float[Tensor, " B"]:
    """Return the entropy of the model's own distribution, in nats."""
    log_probs = logits.log_softmax(-1)
    return -torch.where(log_probs > -torch.inf, log_probs.exp() * log_probs, 0.0).sum(-1)


def row_uniforms(
    seed: int, prompt: Sequence[int], prefix: Sequence[int], occurrence: int, sample: int, length: int
) -> np.ndarray:
    """Return the `length` uniform numbers in [0, 1) of one row: of its prompt, prefix and number, and of nothing else.

    `occurrence` tells equal prompts of one call apart.
    """
    name = f"{seed}|{','.join(map(str, prompt))}|{','.join(map(str, prefix))}|{occurrence}|{sample}"
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key)).random(length, dtype=np.float32)
