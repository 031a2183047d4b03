"""Greedy programs from many beginnings, whose keys and values stay for the next call: a branch costs its own tokens.

A row of the batch is a beginning under way. All rows write their next token into the same column of the cache, so that
beginnings of unequal length stand side by side, their ends together; a row that has ended makes room for the next
beginning, whose keys and values are copied from the program that it branches off.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from coderl.engines.cache import ReadLayer, SlotLayer, Slots
from coderl.engines.decoding import Decoder
from coderl.engines.settings import SamplingConfig
from coderl.engines.stops import FOUND, stop_table
from coderl.engines.transformers import cache_bytes, most_rows
from coderl.models.lm import LanguageModel
from coderl.types import InputError

Tokens = tuple[int, ...]
REFILL_SHARE = 0.125
"""Ended rows take on new beginnings when they are so much of the batch: until then they are drawn for nothing."""
DROP_BELOW = 0.75
"""With no beginnings left, ended rows leave the batch when so much of it or less is still under way."""


class Continuation(NamedTuple):
    """A program and, for each of its tokens that the model chose, what it found likeliest there."""

    tokens: Tokens
    """The beginning included, and the end of sequence where the model came to it."""
    likeliest: Int[np.ndarray, "T K"]
    """The K likeliest tokens at each position after the beginning, best first: the first is the one written."""
    log_probs: Float[np.ndarray, "T K"]
    """log p of each, in nats."""


@dataclass(frozen=True)
class _Read:
    """Keys and values of a prompt (of the start token for an encoder-decoder), and what cross-attention reads of it."""

    own: Float[Tensor, "L2 heads S d"]
    crossed: Float[Tensor, "L2 heads S2 d"] | None

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.own, self.crossed) if t is not None)


class GreedyWriter:
    """Writes the likeliest program, token by token, from any beginnings, and remembers what it has written.

    Only speed depends on what is remembered: what is forgotten is read again.
    """

    def __init__(
        self, model: LanguageModel, config: SamplingConfig | None = None, *, num_likeliest: int, memory_gib: float = 2.0
    ):
        """Prepare to write.

        Args:
            model: Of either family; an encoder-decoder must have relative positions.
            config: `max_new_tokens` is the longest program, its beginning included, and `stop` the texts that end one;
                nothing is drawn at random.
            num_likeliest: K, how many of the likeliest tokens are told of each position.
            memory_gib: What the keys and values of earlier programs may take.

        Raises:
            InputError: an encoder-decoder whose positions are absolute.
        """
        if model.is_encoder_decoder and not hasattr(model.backbone.config, "relative_attention_num_buckets"):
            kind = model.backbone.config.model_type
            raise InputError(f"a {kind} model counts positions from the start: only a T5 can be branched from")
        self.model = model
        self.config = config or SamplingConfig()
        self.num_likeliest = min(num_likeliest, model.vocab_size)
        self.memory_bytes = int(memory_gib * 2**30)
        self._prompts: OrderedDict[Tokens, _Read] = OrderedDict()
        self._written: OrderedDict[tuple[Tokens, Tokens], Float[Tensor, "L2 heads T d"]] = OrderedDict()
        self._by_prompt: dict[Tokens, dict[Tokens, None]] = {}
        self._num_bytes = 0

    def write(self, prompts: Sequence[Sequence[int]], beginnings: Sequence[Sequence[int]]) -> list[Continuation]:
        """Return, for each prompt and beginning, the program that the model writes from there on.

        Raises:
            InputError: a prompt is empty, or prompt and program are more tokens than the model has positions.
        """
        jobs = [(tuple(p), tuple(b)) for p, b in zip(prompts, beginnings, strict=True)]
        limit = None if self.model.is_encoder_decoder else self._max_positions
        for prompt, beginning in jobs:
            if not prompt:
                raise InputError("a prompt is empty")
            if limit is not None and len(prompt) + max(self.config.max_new_tokens, len(beginning)) > limit:
                most = self.config.max_new_tokens
                raise InputError(f"{len(prompt)} prompt tokens and {most} of a program are more than {limit} positions")
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                return _Batch(self, jobs).run()
        finally:
            self.model.train(was_training)
            self._forget_prompts()

    @property
    def _max_positions(self) -> int | None:
        return getattr(self.model.backbone.config, "max_position_embeddings", None)

    # ------------------------------------------------------------------------------------------- what is remembered

    def recall(self, jobs: Sequence[tuple[Tokens, Tokens]]) -> list[tuple[_Read, Tensor | None]]:
        """Return, for each prompt and tokens after it, the keys and values of both; read where they are forgotten."""
        self._read({prompt: () for prompt, _ in jobs if prompt not in self._prompts})
        for prompt, _ in jobs:
            self._prompts.move_to_end(prompt)
        return [(self._prompts[prompt], self._find(prompt, tokens) if tokens else None) for prompt, tokens in jobs]

    def remember(self, prompt: Tokens, tokens: Tokens, own: Float[Tensor, "L2 heads T d"]) -> None:
        """Keep the keys and values of a program's tokens, and forget the oldest where they are too many."""
        if (prompt, tokens) in self._written:
            return
        self._written[prompt, tokens] = own
        self._by_prompt.setdefault(prompt, {})[tokens] = None
        self._num_bytes += own.numel() * own.element_size()
        while self._num_bytes > self.memory_bytes and len(self._written) > 1:
            (of, oldest), dropped = self._written.popitem(last=False)
            del self._by_prompt[of][oldest]
            self._num_bytes -= dropped.numel() * dropped.element_size()

    def _forget_prompts(self) -> None:
        num_bytes = sum(read.num_bytes for read in self._prompts.values())
        while num_bytes > self.memory_bytes and len(self._prompts) > 1:
            num_bytes -= self._prompts.popitem(last=False)[1].num_bytes

    def _find(self, prompt: Tokens, tokens: Tokens) -> Float[Tensor, "L2 heads T d"]:
        num = len(tokens)
        for written in self._by_prompt.get(prompt, {}):
            if written[:num] == tokens:
                self._written.move_to_end((prompt, written))
                return self._written[prompt, written][:, :, :num]
        decoder = Decoder(self.model, [prompt], [tokens])
        own = _stacked(_own_cache(decoder.cache))[:, 0, :, -num:].clone()
        self.remember(prompt, tokens, own)
        return own

    def _read(self, prompts: dict[Tokens, Tokens]) -> None:
        """Read prompts in batches of like length, as many at once as rows are written."""
        order = sorted(prompts, key=len)
        size = most_rows(self.config, self.model.device)
        for start in range(0, len(order), size):
            chunk = order[start : start + size]
            cache = Decoder(self.model, chunk, [()] * len(chunk)).cache
            own = _stacked(_own_cache(cache))
            crossed = _stacked(cache.cross_attention_cache) if isinstance(cache, EncoderDecoderCache) else None
            for row, prompt in enumerate(chunk):
                num = 1 if crossed is not None else len(prompt)
                read = None if crossed is None else crossed[:, row, :, : len(prompt)].clone()
                self._prompts[prompt] = _Read(own[:, row, :, own.shape[3] - num :].clone(), read)


def _own_cache(cache: Cache) -> Cache:
    return cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache


def _stacked(cache: Cache) -> Float[Tensor, "L2 B heads S d"]:
    """Return keys and values of all layers in one: those of layer i are 2 i and 2 i + 1."""
    layers: list[Any] = list(cache.layers)
    return torch.stack([states for layer in layers for states in (layer.keys, layer.values)])


# ------------------------------------------------------------------------------------------------------- rows under way


class _Batch:
    """The rows of one call."""

    def __init__(self, writer: GreedyWriter, jobs: list[tuple[Tokens, Tokens]]):
        self.writer, self.jobs = writer, jobs
        self.model, self.most = writer.model, writer.config.max_new_tokens
        self.device = self.model.device
        self.found: list[Continuation] = [self._nothing(b) for _, b in jobs]
        self.stops = stop_table(self.model, writer.config.stop) if writer.config.stop else None
        todo = [i for i, (_, b) in enumerate(jobs) if not self._has_ended(b)]
        self.todo = deque(sorted(todo, key=self._history))  # rows of like length side by side see fewer columns
        self.owner: list[int | None] = []
        self.slots: Slots | None = None

    def _has_ended(self, beginning: Tokens) -> bool:
        is_over = len(beginning) >= self.most or self.model.eos_id in beginning
        return is_over or (self.stops is not None and self.stops.end(beginning) is not None)

    def _nothing(self, beginning: Tokens) -> Continuation:
        shape = (0, self.writer.num_likeliest)
        return Continuation(beginning, np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32))

    def run(self) -> list[Continuation]:
        """Return the continuation of each job."""
        if not self.todo:
            return self.found
        self._open()
        while True:
            num_free = self.owner.count(None)
            if self.todo and num_free >= max(1, REFILL_SHARE * len(self.owner)):
                self._refill()
            elif num_free == len(self.owner):
                return self.found
            elif num_free and not self.todo and len(self.owner) - num_free <= DROP_BELOW * len(self.owner):
                self._select([row for row, job in enumerate(self.owner) if job is not None])
            self._step()

    def _open(self) -> None:
        """Make room for as many rows as there are beginnings, the batch allows and the memory holds."""
        config = self.writer.config
        width = max(self._history(i) for i in self.todo) + self.most
        (sample, _), *_ = self.writer.recall([(self.jobs[self.todo[0]][0], ())])
        num_read = max(len(prompt) for prompt, _ in self.jobs) if sample.crossed is not None else 0
        token_bytes = sample.own.numel() // sample.own.shape[2] * sample.own.element_size()
        room = max(1, int(cache_bytes(config, self.device) / (token_bytes * (width + num_read))))
        num_rows = min(len(self.todo), most_rows(config, self.device), room)
        self.slots = Slots(sample.own, num_rows, num_read)
        self.owner = [None] * num_rows
        self.tokens = torch.zeros(num_rows, dtype=torch.long, device=self.device)
        self.num_written = torch.zeros_like(self.tokens)
        self.limits = torch.zeros_like(self.tokens)
        self.states = torch.zeros_like(self.tokens)
        records = (num_rows, self.most, self.writer.num_likeliest)
        self.likeliest = torch.zeros(records, dtype=torch.long, device=self.device)
        self.log_probs = torch.zeros(records, device=self.device)
        self.cache = self._new_cache()

    def _history(self, job: int) -> int:
        """Return how many positions a job's row has when its first token is drawn."""
        prompt, beginning = self.jobs[job]
        return len(beginning) + (1 if self.model.is_encoder_decoder else len(prompt))

    def _new_cache(self) -> Cache:
        assert self.slots is not None
        own: Any = DynamicCache()
        own.layers = [SlotLayer(self.slots, i) for i in range(self.slots.num_layers)]
        if not self.model.is_encoder_decoder:
            return own
        crossed: Any = DynamicCache()
        crossed.layers = [ReadLayer(self.slots, i) for i in range(self.slots.num_layers)]
        return EncoderDecoderCache(own, crossed)

    def _refill(self) -> None:
        """Let ended rows take on the next beginnings."""
        assert self.slots is not None
        free = [row for row, job in enumerate(self.owner) if job is None]
        pairs = [(row, self.todo.popleft()) for row in free[: len(self.todo)]]
        self.slots.reserve(max(self._history(job) for _, job in pairs) - 1)
        known = self.writer.recall([(self.jobs[job][0], self.jobs[job][1][:-1]) for _, job in pairs])
        for (row, job), (read, own) in zip(pairs, known, strict=True):
            prompt, beginning = self.jobs[job]
            base = read.own if beginning else read.own[:, :, :-1]  # without a beginning its last token is read again
            self.slots.load(row, [base] if own is None else [base, own], read.crossed)
            self.owner[row] = job
            start = self.model.start_id if self.model.is_encoder_decoder else prompt[-1]
            self.tokens[row] = beginning[-1] if beginning else start
            self.num_written[row] = 0
            self.limits[row] = self.most - len(beginning)
            self.states[row] = self.stops.read(beginning) if self.stops else 0
        self.slots.settle(self._active())

    def _active(self) -> list[int]:
        return [row for row, job in enumerate(self.owner) if job is not None]

    def _step(self) -> None:
        """Let every row read a token and choose the next; take out those that end with it."""
        assert self.slots is not None
        values, ids = self._choices()
        rows = torch.arange(len(self.owner), device=self.device)
        at = self.num_written.clamp(max=self.most - 1)  # an ended row goes on in its last place
        self.likeliest[rows, at], self.log_probs[rows, at] = ids, values
        self.num_written += 1
        self.tokens = ids[:, 0]
        has_ended = (self.tokens == self.model.eos_id) | (self.num_written >= self.limits)
        if self.stops:
            self.states = self.stops.after(self.states, self.tokens)
            has_ended |= self.states == FOUND
        self.slots.advance()
        for row, ended in enumerate(has_ended.tolist()):
            if ended and self.owner[row] is not None:
                self._take_out(row)

    def _choices(self) -> tuple[Float[Tensor, "R K"], Int[Tensor, "R K"]]:
        assert self.slots is not None
        mask = self.slots.mask()
        options = {"past_key_values": self.cache, "use_cache": True}
        if self.model.is_encoder_decoder:
            shape = (len(self.owner), self.slots.num_read, self.model.hidden_size)
            unread = torch.zeros((), dtype=self.model.backbone.dtype, device=self.device).expand(shape)
            outputs = self.model.backbone(
                encoder_outputs=BaseModelOutput(last_hidden_state=unread),  # cross-attention has its cache
                attention_mask=self.slots.read_mask,
                decoder_input_ids=self.tokens[:, None],
                decoder_attention_mask=mask,
                **options,
            )
        else:
            places = self.slots.lengths()[:, None]
            given = {"input_ids": self.tokens[:, None], "attention_mask": mask.long(), "position_ids": places}
            outputs = self.model.backbone(**given, logits_to_keep=1, **options)
        logits = outputs.logits[:, -1].float()
        values, ids = logits.topk(self.writer.num_likeliest)
        return values - logits.logsumexp(-1, keepdim=True), ids

    def _take_out(self, row: int) -> None:
        assert self.slots is not None
        job = self.owner[row]
        assert job is not None
        prompt, beginning = self.jobs[job]
        num = int(self.num_written[row])
        likeliest, log_probs = (of[row, :num].cpu().numpy().copy() for of in (self.likeliest, self.log_probs))
        tokens = (*beginning, *likeliest[:, 0].tolist())
        self.found[job] = Continuation(tokens, likeliest, log_probs)
        self.writer.remember(prompt, tokens[:-1], self.slots.last(row, len(tokens) - 1))
        self.owner[row] = None
        self.slots.free(row)

    def _select(self, rows: list[int]) -> None:
        assert self.slots is not None
        kept = torch.tensor(rows, device=self.device)
        self.slots.select(kept)
        self.owner = [self.owner[row] for row in rows]
        for name in ("tokens", "num_written", "limits", "states", "likeliest", "log_probs"):
            setattr(self, name, getattr(self, name)[kept])
        self.slots.settle(self._active())
        self.cache = self._new_cache()
