"""Drawing programs W^s ~ p(W|D): N samples of each prompt, the greedy program, or the continuation of a prefix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from coderl.engines.decoding import Decoder
from coderl.engines.drawing import draw, row_uniforms
from coderl.engines.settings import SamplingConfig
from coderl.models.lm import LanguageModel, pad_rows
from coderl.types import InputError

Tokens = Sequence[int]
DROP_BELOW = 0.75
"""Finished rows leave the batch when so much of it or less is still under way: leaving copies the cache."""


def greedy(
    model: LanguageModel,
    prompts: Sequence[Tokens],
    *,
    config: SamplingConfig | None = None,
    prefixes: Sequence[Tokens] | None = None,
) -> list[tuple[int, ...]]:
    """Return the program of the likeliest tokens for each prompt: the baseline W^b.

    Raises:
        InputError: see `sample`.
    """
    settings = (config or SamplingConfig()).model_copy(update={"temperature": 0.0})
    programs = sample(model, prompts, num_samples=1, config=settings, seed=0, prefixes=prefixes)
    return [row for (row,) in programs]


def sample(
    model: LanguageModel,
    prompts: Sequence[Tokens],
    *,
    num_samples: int,
    config: SamplingConfig | None = None,
    seed: int,
    prefixes: Sequence[Tokens] | None = None,
) -> list[list[tuple[int, ...]]]:
    """Return `num_samples` programs of each prompt, each beginning with its prefix and ending where the model ends it.

    A program without the end of sequence as its last token was cut at `max_new_tokens`. What sample number j of a
    prompt is follows from the weights, the seed, the prompt, the prefix and j: prompts may be asked for one at a time
    or all at once, and more samples leave the first ones as they are. (A larger batch adds up in another order: a draw
    within rounding of the edge between two tokens may fall on the other side.)

    Raises:
        InputError: an empty prompt, a prefix that has already ended, or more tokens than the model has positions.
    """
    config = config or SamplingConfig()
    all_prefixes = [()] * len(prompts) if prefixes is None else prefixes
    _refuse_bad(model, prompts, all_prefixes, config)
    num_drawn = 1 if config.temperature == 0 else num_samples
    jobs = _jobs(prompts, all_prefixes, num_drawn, config.batch_rows)
    programs: list[list[tuple[int, ...]]] = [[] for _ in prompts]
    with _sampling_mode(model):
        for batch in _batches(model, jobs, config):
            owners = [job.index for job in batch for _ in job.samples]
            for index, program in zip(owners, _draw_batch(model, batch, config, seed), strict=True):
                programs[index].append(program)
    return [row * num_samples if config.temperature == 0 else row for row in programs]


# ---------------------------------------------------------------------------------------------------- what is drawn


@dataclass(frozen=True)
class _Job:
    """Some samples of one prompt, drawn in one batch."""

    index: int
    prompt: tuple[int, ...]
    prefix: tuple[int, ...]
    occurrence: int
    samples: range


def _jobs(prompts: Sequence[Tokens], prefixes: Sequence[Tokens], num_samples: int, batch_rows: int) -> list[_Job]:
    """Return the work, prefixes and prompts of like length side by side."""
    seen: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()
    jobs = []
    for index, (prompt, prefix) in enumerate(zip(prompts, prefixes, strict=True)):
        key = (tuple(prompt), tuple(prefix))
        for start in range(0, num_samples, batch_rows):
            samples = range(start, min(start + batch_rows, num_samples))
            jobs.append(_Job(index, *key, seen[key], samples))
        seen[key] += 1
    return sorted(jobs, key=lambda job: (len(job.prefix), len(job.prompt), job.index, job.samples.start))


def _batches(model: LanguageModel, jobs: list[_Job], config: SamplingConfig) -> Iterator[list[_Job]]:
    batch: list[_Job] = []
    num_rows = 0
    for job in jobs:
        longest = max(len(j.prompt) + len(j.prefix) for j in [*batch, job])
        room = min(config.batch_rows, _rows_that_fit(model, longest + config.max_new_tokens, config.cache_gib))
        if batch and num_rows + len(job.samples) > room:
            yield batch
            batch, num_rows = [], 0
        batch.append(job)
        num_rows += len(job.samples)
    if batch:
        yield batch


def _rows_that_fit(model: LanguageModel, num_tokens: int, cache_gib: float) -> int:
    settings = model.backbone.config
    num_heads = getattr(settings, "num_key_value_heads", None) or settings.num_attention_heads
    width = getattr(settings, "d_kv", None) or getattr(settings, "head_dim", None)
    width = width or settings.hidden_size // settings.num_attention_heads
    num_layers = getattr(settings, "num_decoder_layers", None) or settings.num_hidden_layers
    row_bytes = 2 * num_layers * num_heads * width * num_tokens * model.backbone.dtype.itemsize
    return max(1, int(cache_gib * 2**30 / row_bytes))


def _refuse_bad(
    model: LanguageModel, prompts: Sequence[Tokens], prefixes: Sequence[Tokens], config: SamplingConfig
) -> None:
    limit = None if model.is_encoder_decoder else getattr(model.backbone.config, "max_position_embeddings", None)
    if len(prefixes) != len(prompts):
        raise InputError(f"{len(prefixes)} prefixes for {len(prompts)} prompts")
    for number, (prompt, prefix) in enumerate(zip(prompts, prefixes, strict=True)):
        if not prompt:
            raise InputError(f"prompt {number} is empty")
        if model.eos_id in prefix:
            raise InputError(f"prefix {number} holds the end of sequence: there is nothing to continue")
        needed = len(prompt) + len(prefix) + config.max_new_tokens
        if limit is not None and needed > limit:
            raise InputError(
                f"prompt {number}: {len(prompt) + len(prefix)} tokens and {config.max_new_tokens} new ones "
                f"are more than the model's {limit} positions"
            )


# ---------------------------------------------------------------------------------------------------- how it is drawn


@contextmanager
def _sampling_mode(model: LanguageModel) -> Iterator[None]:
    """No dropout and no gradients, and the model afterwards as it was before."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def _draw_batch(model: LanguageModel, batch: list[_Job], config: SamplingConfig, seed: int) -> list[tuple[int, ...]]:
    """Return the programs of the batch's rows.

    An encoder-decoder model's prefixes are read together as far as the shortest goes; the rest of a longer one takes
    the place of what would be drawn. A decoder-only model reads prefixes of any length with their prompts.
    """
    num_read = min(len(job.prefix) for job in batch) if model.is_encoder_decoder else None
    decoder = Decoder(model, [job.prompt for job in batch], [job.prefix[:num_read] for job in batch])
    rows = [(job, number) for job in batch for number in job.samples]
    decoder.select(torch.tensor([i for i, job in enumerate(batch) for _ in job.samples], device=model.device))
    forced = [() if num_read is None else job.prefix[num_read:] for job, _ in rows]
    uniforms = np.zeros((len(rows), max(map(len, forced)) + config.max_new_tokens), dtype=np.float32)
    if config.temperature > 0:
        for line, (job, number), rest in zip(uniforms, rows, forced, strict=True):
            end = len(rest) + config.max_new_tokens
            line[len(rest) : end] = row_uniforms(
                seed, job.prompt, job.prefix, job.occurrence, number, config.max_new_tokens
            )
    drawn = _draw_rows(decoder, forced, torch.from_numpy(uniforms).to(model.device), config)
    return [(*job.prefix[:num_read], *tokens) for (job, _), tokens in zip(rows, drawn, strict=True)]


def _draw_rows(
    decoder: Decoder, forced: Sequence[Tokens], uniforms: Float[Tensor, "R L"], config: SamplingConfig
) -> list[list[int]]:
    """Return what each row reads from now on: its forced tokens, then what it draws."""
    model, device = decoder.model, uniforms.device
    forced_ids, forced_mask = (t.to(device) for t in pad_rows(forced, model.pad_id, side="right"))
    limits = forced_mask.sum(-1) + config.max_new_tokens
    tokens_read = torch.zeros(uniforms.shape, dtype=torch.long, device=device)
    active = torch.arange(len(uniforms), device=device)
    is_alive = torch.ones_like(active, dtype=torch.bool)
    for step in range(uniforms.shape[1]):
        tokens = draw(
            decoder.logits,
            uniforms[active, step],
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
        )
        if step < forced_ids.shape[1]:
            tokens = torch.where(forced_mask[active, step], forced_ids[active, step], tokens)
        tokens_read[active, step] = tokens
        is_alive &= (tokens != model.eos_id) & (limits[active] > step + 1)
        num_alive = int(is_alive.sum())
        if num_alive == 0:
            break
        if num_alive <= DROP_BELOW * len(active):
            kept = is_alive.nonzero().squeeze(-1)
            decoder.select(kept)
            active, tokens, is_alive = active[kept], tokens[kept], is_alive[kept]
        decoder.step(tokens)
    lines = zip(tokens_read.tolist(), limits.tolist(), strict=True)
    return [_until_eos(line[:limit], model.eos_id) for line, limit in lines]


def _until_eos(tokens: list[int], eos_id: int) -> list[int]:
    return tokens[: tokens.index(eos_id) + 1] if eos_id in tokens else tokens
