"""Beam search: the likeliest program that a search of some breadth finds, by the `generate` of `transformers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from coderl.models.lm import LanguageModel, pad_rows


def beam_search(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    num_beams: int,
    max_new_tokens: int,
    batch_rows: int = 64,
) -> list[tuple[int, ...]]:
    """Return for each prompt the found program of the highest mean log-probability of its tokens, its end included.

    A program without the end of sequence as its last token was cut.

    Source: Tables 2, 3 and 5 of CodeRL are by beam search (it does not say how broad), CodeXGLUE's by 10 beams.

    Args:
        model: Of either family; left in evaluation mode.
        prompts: Tokens to condition on.
        num_beams: How many beginnings are kept at every token.
        max_new_tokens: The longest program.
        batch_rows: Beams side by side.
    """
    sizes = {"num_beams": num_beams, "max_new_tokens": max_new_tokens, "batch_rows": batch_rows}
    return [best for (best,) in beams(model, prompts, num_returned=1, **sizes)]


def beams(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    num_beams: int,
    num_returned: int,
    max_new_tokens: int,
    batch_rows: int = 64,
) -> list[list[tuple[int, ...]]]:
    """Return for each prompt the best programs found, best first: see `beam_search`."""
    settings = GenerationConfig(
        num_beams=num_beams,
        num_return_sequences=num_returned,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=model.eos_id,
        pad_token_id=model.pad_id,
        decoder_start_token_id=model.start_id if model.is_encoder_decoder else None,
    )
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    size = max(1, batch_rows // num_beams)
    found: list[list[tuple[int, ...]]] = [[] for _ in prompts]
    generate: Any = model.backbone.generate
    model.eval()
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        side = "right" if model.is_encoder_decoder else "left"
        ids, mask = pad_rows([prompts[i] for i in rows], model.pad_id, side=side)
        with torch.inference_mode():
            written = generate(
                input_ids=ids.to(model.device), attention_mask=mask.long().to(model.device), generation_config=settings
            )
        num_read = 1 if model.is_encoder_decoder else ids.shape[1]
        owners = [i for i in rows for _ in range(num_returned)]
        for i, tokens in zip(owners, written[:, num_read:].tolist(), strict=True):
            end = tokens.index(model.eos_id) + 1 if model.eos_id in tokens else len(tokens)
            found[i].append(tuple(tokens[:end]))
    return found
