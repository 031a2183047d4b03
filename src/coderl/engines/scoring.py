"""Log-probabilities of programs that another engine drew, by the language model itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coderl.engines.drawing import entropies, token_log_probs
from coderl.engines.engine import Drawn, Request
from coderl.engines.settings import SamplingConfig
from coderl.models.lm import LanguageModel

SCORED_LOGITS = 1 << 25
"""Numbers of logits that are held at a time."""


@torch.inference_mode()
def with_log_probs_of(
    model: LanguageModel,
    requests: Sequence[Request],
    drawn: Sequence[Sequence[Drawn]],
    config: SamplingConfig,
    *,
    is_exact: bool = False,
    has_entropies: bool = False,
) -> list[list[Drawn]]:
    """Return the programs with what the language model says of their tokens, from one pass over each.

    Args:
        model: that was trained, and that the engine has a copy of.
        requests: what was asked for.
        drawn: for each.
        config: how they were drawn.
        is_exact: the engine computes as the model does: then `log_probs` are told too, the model's own logits cut as
            the engine cut them. Otherwise they stay None.
        has_entropies: tell them too.
    """
    was_training = model.training
    model.eval()
    flat = [
        (i, j, r.prompt, d)
        for i, (r, found) in enumerate(zip(requests, drawn, strict=True))
        for j, d in enumerate(found)
    ]
    flat.sort(key=lambda item: len(item[2]) + len(item[3].tokens))
    scored = [list(found) for found in drawn]
    start = 0
    while start < len(flat):
        longest = len(flat[start][3].tokens)
        stop = start + 1
        while stop < len(flat) and (stop + 1 - start) * max(longest, len(flat[stop][3].tokens)) * model.vocab_size <= (
            SCORED_LOGITS
        ):
            longest = max(longest, len(flat[stop][3].tokens))
            stop += 1
        part = flat[start:stop]
        batch = model.collate([prompt for _, _, prompt, _ in part], [d.tokens for *_, d in part])
        logits = model.read(batch, with_logits=True).logits
        assert logits is not None
        for (i, j, _, program), own in zip(part, logits, strict=True):
            behind = own[program.num_prefix_tokens : len(program.tokens)].float()
            tokens = torch.tensor(program.drawn_tokens, dtype=torch.long, device=own.device)
            scored[i][j] = replace(
                program,
                log_probs=tuple(cut_log_probs(behind, tokens, config).tolist()) if is_exact else None,
                model_log_probs=tuple(token_log_probs(behind, tokens).tolist()),
                entropies=tuple(entropies(behind).tolist()) if has_entropies else None,
            )
        start = stop
    model.train(was_training)
    return scored


def cut_log_probs(
    logits: Float[Tensor, "T V"], tokens: Int[Tensor, " T"], config: SamplingConfig
) -> Float[Tensor, " T"]:
    """Return log p of tokens under the distribution that `draw_scored` draws from; -inf for one that was cut off."""
    if config.temperature == 0 or config.top_k == 1:
        return torch.where(logits.argmax(-1) == tokens, 0.0, -torch.inf)
    scaled = logits / config.temperature
    if 0 < config.top_k < scaled.shape[-1]:
        least = scaled.topk(config.top_k).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
    probs = scaled.softmax(-1)
    if config.top_p < 1:
        sorted_, order = probs.sort(-1, descending=True)
        is_behind = sorted_.cumsum(-1) - sorted_ >= config.top_p
        probs = probs.masked_fill(is_behind.scatter(-1, order, is_behind), 0.0)
    chosen = probs.gather(-1, tokens[:, None]).squeeze(-1)
    return (chosen / probs.sum(-1)).log()
