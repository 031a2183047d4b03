"""Drawing programs W^s ~ p(W|D): N samples of each prompt, the greedy program, or the continuation of a prefix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from coderl.engines.decoding import Decoder
from coderl.engines.engine import Drawn, Finish, Request
from coderl.engines.settings import SamplingConfig
from coderl.engines.slots import GPU_STEPS, ContinuousBatch, fits_slots
from coderl.engines.tape import Row, Tape, Wanted
from coderl.models.lm import LanguageModel
from coderl.types import InputError

Tokens = Sequence[int]
DROP_BELOW = 0.75
"""Finished rows leave the batch when so much of it or less is still under way: leaving copies the cache."""


class TransformersEngine:
    """The language model itself draws: tokens follow from weights, seed and request, and from nothing beside them."""

    name = "transformers"

    def __init__(self, model: LanguageModel):
        self.model = model
        self.waits = model.device.type != "cuda"
        """Whether to look after every step at which rows have ended: a GPU would be waited for."""

    def refresh(self) -> None:
        """Do nothing: the weights are the model's own."""

    def draw(
        self,
        requests: Sequence[Request],
        config: SamplingConfig,
        *,
        seed: int,
        with_log_probs: bool = False,
        with_entropies: bool = False,
    ) -> list[list[Drawn]]:
        """Return the programs of each request, see `Engine.draw`.

        What sample number j of a request is follows from the weights, the seed, the prompt, the prefix and j: requests
        may be made one at a time or all at once, and more samples leave the first ones as they are. (A larger batch
        adds up in another order: a draw within rounding of the edge between two tokens may fall on the other side.)

        Raises:
            InputError: an empty prompt, a prefix that has already ended, or more tokens than the model has positions.
        """
        model = self.model
        refuse_bad(model, requests, config)
        wanted = Wanted(config, with_log_probs or with_entropies, with_entropies, waits=self.waits)
        drawn: list[dict[int, Drawn]] = [{} for _ in requests]
        rows = []
        for row in rows_of(requests, seed, is_greedy=config.temperature == 0):
            ended = _ended_before(row, wanted, model)
            if ended is None:
                rows.append(row)
            else:
                drawn[row.request][row.sample] = ended
        with _sampling_mode(model):
            for row, program in _drawn_rows(model, rows, wanted):
                drawn[row.request][row.sample] = program
        in_order = [[found[j] for j in sorted(found)] for found in drawn]
        if config.temperature > 0:
            return in_order
        return [found * request.num_samples for found, request in zip(in_order, requests, strict=True)]


def greedy(
    model: LanguageModel,
    prompts: Sequence[Tokens],
    *,
    config: SamplingConfig | None = None,
    prefixes: Sequence[Tokens] | None = None,
) -> list[tuple[int, ...]]:
    """Return the program of the likeliest tokens for each prompt: the baseline W^b.

    Raises:
        InputError: see `TransformersEngine.draw`.
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
    """Return `num_samples` programs of each prompt as tokens, each beginning with its prefix.

    Raises:
        InputError: see `TransformersEngine.draw`.
    """
    if prefixes is not None and len(prefixes) != len(prompts):
        raise InputError(f"{len(prefixes)} prefixes for {len(prompts)} prompts")
    given = [()] * len(prompts) if prefixes is None else prefixes
    requests = [Request(tuple(p), tuple(b), num_samples) for p, b in zip(prompts, given, strict=True)]
    drawn = TransformersEngine(model).draw(requests, config or SamplingConfig(), seed=seed)
    return [[program.tokens for program in programs] for programs in drawn]


# ---------------------------------------------------------------------------------------------------- what is drawn


def rows_of(requests: Sequence[Request], seed: int, *, is_greedy: bool = False) -> list[Row]:
    """Return the programs to draw, prefixes and prompts of like length side by side; of a greedy request one."""
    seen: Counter[Request] = Counter()
    rows = []
    for index, request in enumerate(requests):
        name = request._replace(num_samples=0)
        for number in range(min(request.num_samples, 1) if is_greedy else request.num_samples):
            rows.append(Row(index, number, request.prompt, request.prefix, seen[name], seed + request.stream))
        seen[name] += 1
    return sorted(rows, key=lambda row: (len(row.prefix), len(row.prompt), row.request, row.sample))


def _ended_before(row: Row, wanted: Wanted, model: LanguageModel) -> Drawn | None:
    """Return the prefix as a program where a stop text has ended it already."""
    table = wanted.table(model) if row.prefix else None
    if table is None or table.end(row.prefix) is None:
        return None
    nothing = () if wanted.has_log_probs else None
    own = () if wanted.has_entropies else None
    return Drawn(row.prefix, len(row.prefix), Finish.STOP, nothing, nothing, own)


def refuse_bad(model: LanguageModel, requests: Sequence[Request], config: SamplingConfig) -> None:
    """Refuse requests that no engine can fulfil.

    Raises:
        InputError: an empty prompt, a prefix that has already ended, or more tokens than the model has positions.
    """
    limit = None if model.is_encoder_decoder else getattr(model.backbone.config, "max_position_embeddings", None)
    for number, request in enumerate(requests):
        if not request.prompt:
            raise InputError(f"prompt {number} is empty")
        if model.eos_id in request.prefix:
            raise InputError(f"prefix {number} holds the end of sequence: there is nothing to continue")
        num_read = len(request.prompt) + len(request.prefix)
        if limit is not None and num_read + config.max_new_tokens > limit:
            raise InputError(
                f"prompt {number}: {num_read} tokens and {config.max_new_tokens} new ones "
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


def _drawn_rows(model: LanguageModel, rows: Sequence[Row], wanted: Wanted) -> Iterator[tuple[Row, Drawn]]:
    if not rows:
        return
    config = wanted.config
    longest = max(len(row.read) for row in rows) + config.max_new_tokens
    if fits_slots(model, longest):
        num_rows = min(len(rows), num_rows_that_fit(model, longest, config))
        yield from ContinuousBatch(model, rows, num_rows, wanted).run()
        return
    for batch in _batches(model, rows, config):
        yield from _draw_batch(model, batch, wanted)


def _batches(model: LanguageModel, rows: Sequence[Row], config: SamplingConfig) -> Iterator[list[Row]]:
    batch: list[Row] = []
    longest = 0
    for row in rows:
        longest = max(longest, len(row.read))
        if batch and len(batch) >= num_rows_that_fit(model, longest + config.max_new_tokens, config):
            yield batch
            batch, longest = [], len(row.read)
        batch.append(row)
    if batch:
        yield batch


def num_rows_that_fit(model: LanguageModel, num_tokens: int, config: SamplingConfig) -> int:
    """Return how many rows of so many tokens are drawn side by side: by `batch_rows` and `cache_gib`, at least 1."""
    settings = model.backbone.config
    num_heads = getattr(settings, "num_key_value_heads", None) or settings.num_attention_heads
    width = getattr(settings, "d_kv", None) or getattr(settings, "head_dim", None)
    width = width or settings.hidden_size // settings.num_attention_heads
    num_layers = getattr(settings, "num_decoder_layers", None) or settings.num_hidden_layers
    row_bytes = 2 * num_layers * num_heads * width * num_tokens * model.backbone.dtype.itemsize
    return max(1, min(most_rows(config, model.device), int(cache_bytes(config, model.device) / row_bytes)))


def most_rows(config: SamplingConfig, device: torch.device) -> int:
    """Return how many rows are drawn side by side if there is room for them."""
    return config.batch_rows or (1024 if device.type == "cuda" else 256)


def cache_bytes(config: SamplingConfig, device: torch.device) -> float:
    """Return how much the attention's keys and values may take."""
    if config.cache_gib is not None:
        return config.cache_gib * 2**30
    return torch.cuda.mem_get_info(device)[0] / 2 if device.type == "cuda" else 2.0 * 2**30


def _draw_batch(model: LanguageModel, rows: list[Row], wanted: Wanted) -> Iterator[tuple[Row, Drawn]]:
    """Yield the programs of some rows side by side; those that have ended leave the batch.

    An encoder-decoder model's prefixes are read together as far as the shortest goes; the rest of a longer one takes
    the place of what would be drawn. A decoder-only model reads prefixes of any length with their prompts.
    """
    num_read = min(len(row.prefix) for row in rows) if model.is_encoder_decoder else None
    prompts = list(dict.fromkeys((row.prompt, row.prefix) for row in rows))
    decoder = Decoder(model, [prompt for prompt, _ in prompts], [prefix[:num_read] for _, prefix in prompts])
    places = {read: i for i, read in enumerate(prompts)}
    decoder.select(torch.tensor([places[row.prompt, row.prefix] for row in rows], device=model.device))
    forced = [() if num_read is None else row.prefix[num_read:] for row in rows]
    tape = Tape(model, len(rows), wanted, num_forced=max(map(len, forced)))
    tape.put(range(len(rows)), rows, forced)
    every = 1 if wanted.waits else GPU_STEPS
    for step in range(1, tape.width + 1):
        tokens = tape.choose(decoder.logits)
        if step % every == 0 or step == tape.width:
            is_alive = tape.is_alive.tolist()
            kept = [i for i, alive in enumerate(is_alive) if alive]
            if len(kept) <= DROP_BELOW * len(is_alive):
                yield from tape.take([i for i, alive in enumerate(is_alive) if not alive])
                if not kept:
                    return
                tape.select(kept)
                at = torch.tensor(kept, device=model.device)
                decoder.select(at)
                tokens = tokens[at]
        decoder.step(tokens)
