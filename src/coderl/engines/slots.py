"""Continuous batching for decoder-only models: rows live in slots of fixed size, and whoever ends makes room.

Nothing changes its shape or place from step to step, so that on a GPU the whole step (drawing, writing down, reading
the token) is recorded once as a CUDA graph and replayed: a step then costs what the arithmetic costs, not what it takes
to launch some hundred kernels, and the host looks only every so many steps at which rows have ended.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from coderl.engines.decoding import Decoder
from coderl.engines.engine import Drawn
from coderl.engines.tape import Row, Tape, Wanted
from coderl.models.lm import LanguageModel

LENGTH_STEP = 64
"""Attention reads the slots up to the longest row, rounded up to so many positions; each length is one graph."""
REFILL_BELOW = 0.75
"""Rows are admitted, or places given up, when so much of the batch or less is still under way."""
READ_TOKENS = 16_384
"""Prompt tokens that are read in one pass, padding included."""
GPU_STEPS = 16
"""Steps between two looks at which rows have ended, where looking means to wait for a GPU."""
_log = logging.getLogger(__name__)


def fits_slots(model: LanguageModel, num_tokens: int) -> bool:
    """Return whether every layer of the model attends to all of so many tokens, as slots need."""
    config = model.backbone.config
    if model.is_encoder_decoder or getattr(config, "_attn_implementation", None) not in ("sdpa", "eager"):
        return False
    if all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers):
        return True
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    return window is not None and num_tokens <= window and kinds == {"sliding_attention"}


class SlotLayer(DynamicLayer):
    """Keys and values of one layer: a slot a row, written at the row's own position."""

    def __init__(self, slots: Slots, keys: Float[Tensor, "R heads L d"], values: Float[Tensor, "R heads L e"]):
        super().__init__()
        self.slots, self.buffers = slots, (keys, values)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write one position of every row; return the slots as far as they are attended to."""
        slots = self.slots
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[slots.rows, :, slots.positions] = new[:, :, 0]
        keys, values = self.buffers
        return keys[:, :, : slots.length], values[:, :, : slots.length]

    def get_seq_length(self) -> int:
        """Return how many positions came before."""
        return self.slots.length - 1


class Slots:
    """The keys and values of a batch of rows, each with its own length, and the logits of their next tokens."""

    def __init__(self, model: LanguageModel, num_rows: int, capacity: int):
        device = model.device
        self.model, self.capacity = model, capacity
        self.length = 0
        """How many positions of each slot are attended to."""
        self.rows = torch.arange(num_rows, device=device)
        self.positions = torch.zeros(num_rows, dtype=torch.long, device=device)
        """Where each row's next token goes."""
        self.logits = torch.zeros(num_rows, model.vocab_size, device=device)
        self.cache: DynamicCache | None = None

    def put(self, places: Sequence[int], decoder: Decoder, owners: Sequence[int], lengths: Sequence[int]) -> None:
        """Fill some slots with what `decoder` has read: its prompt number `owners[i]` goes to slot `places[i]`."""
        device = self.rows.device
        at, of = (torch.tensor(numbers, device=device) for numbers in (places, owners))
        layers: list[Any] = list(decoder.cache.layers)
        if self.cache is None:
            cache: Any = DynamicCache()
            cache.layers = [self._empty(layer) for layer in layers]
            self.cache = cache
        assert self.cache is not None
        for slot, layer in zip(self.cache.layers, layers, strict=True):
            assert isinstance(slot, SlotLayer)
            for buffer, read in zip(slot.buffers, (layer.keys, layer.values), strict=True):
                assert read is not None
                buffer[at, :, : read.shape[2]] = self._from_the_left(read, decoder)[of]
        self.logits[at] = decoder.logits[of]
        self.positions[at] = torch.tensor(lengths, device=device)

    def _empty(self, layer: Any) -> SlotLayer:
        keys, values = (
            t.new_zeros(len(self.rows), t.shape[1], self.capacity, t.shape[3]) for t in (layer.keys, layer.values)
        )
        return SlotLayer(self, keys, values)

    @staticmethod
    def _from_the_left(read: Float[Tensor, "P heads W d"], decoder: Decoder) -> Float[Tensor, "P heads W d"]:
        """Move what is padded on the left to the left; what stands behind it is never attended to."""
        if decoder.mask is None:
            return read
        width = read.shape[2]
        places = torch.arange(width, device=read.device) + (width - decoder.lengths)[:, None]
        return read.gather(2, places.clamp(max=width - 1)[:, None, :, None].expand_as(read))

    def read(self, tokens: Int[Tensor, " R"]) -> None:
        """Let each row read its next token; a row that has ended reads into its own slot, to no effect."""
        self.positions.clamp_(max=self.length - 1)
        seen = torch.arange(self.length, device=self.rows.device) <= self.positions[:, None]
        dtype = self.model.backbone.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
        outputs = self.model.backbone(
            input_ids=tokens[:, None],
            attention_mask=mask[:, None, None],
            position_ids=self.positions[:, None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.logits.copy_(outputs.logits[:, -1])
        self.positions.add_(1)

    def select(self, kept: Sequence[int]) -> None:
        """Keep the given rows."""
        at = torch.tensor(kept, dtype=torch.long, device=self.rows.device)
        self.rows, self.positions, self.logits = self.rows[: len(kept)], self.positions[at], self.logits[at]
        for layer in self.cache.layers if self.cache is not None else ():
            assert isinstance(layer, SlotLayer)
            layer.buffers = (layer.buffers[0][at], layer.buffers[1][at])


@dataclass(frozen=True, slots=True)
class _Read:
    """A prompt that was read, for the rows that continue it."""

    decoder: Decoder
    number: int


class ContinuousBatch:
    """Rows under way, and those that wait for a place."""

    def __init__(self, model: LanguageModel, rows: Sequence[Row], num_rows: int, wanted: Wanted):
        self.model, self.wanted = model, wanted
        self.waiting = deque(rows)
        self.read: dict[tuple[int, ...], _Read] = {}
        longest = max(len(row.read) for row in rows) + wanted.config.max_new_tokens
        self.slots = Slots(model, num_rows, -(-longest // LENGTH_STEP) * LENGTH_STEP)
        self.tape = Tape(model, num_rows, wanted)
        self.most_positions = [0] * num_rows
        """How far each row has come at most."""
        self.every = 1 if wanted.waits else GPU_STEPS
        self.replay = GraphReplay(self._advance) if model.device.type == "cuda" else None

    def run(self) -> Iterator[tuple[Row, Drawn]]:
        """Yield the programs of all rows as they end."""
        self._admit(range(len(self.tape.rows)))
        while self.most_positions:
            for _ in range(self.every):
                self._step()
            is_alive = self.tape.is_alive.tolist()
            kept = [i for i, alive in enumerate(is_alive) if alive]
            self.most_positions = [n * alive for n, alive in zip(self.most_positions, is_alive, strict=True)]
            if kept and len(kept) > REFILL_BELOW * len(is_alive):
                continue
            ended = [i for i, row in enumerate(self.tape.rows) if row is not None and not is_alive[i]]
            yield from self.tape.take(ended)
            if self.waiting:
                self._admit([i for i, alive in enumerate(is_alive) if not alive])
            elif not kept or self.replay is None or len(kept) <= len(is_alive) // 2:
                self._give_up_places(kept)

    def _advance(self) -> None:
        self.slots.read(self.tape.choose(self.slots.logits))

    def _step(self) -> None:
        self.most_positions = [n + 1 for n in self.most_positions]
        needed = min(max(self.most_positions), self.slots.capacity)
        self.slots.length = min(-(-needed // LENGTH_STEP) * LENGTH_STEP, self.slots.capacity)
        if self.replay is None:
            self._advance()
        else:
            self.replay(self.slots.length)

    def _give_up_places(self, kept: Sequence[int]) -> None:
        self.tape.select(kept)
        self.slots.select(kept)
        self.most_positions = [self.most_positions[i] for i in kept]
        if self.replay is not None:
            self.replay.forget()

    # ------------------------------------------------------------------------------------------------ admission

    def _admit(self, places: Sequence[int]) -> None:
        """Give free places to waiting rows, in order; their prompts are read first, each once."""
        admitted = [self.waiting.popleft() for _ in range(min(len(places), len(self.waiting)))]
        self._read_prompts(list(dict.fromkeys(row.read for row in admitted)))
        groups: dict[int, list[tuple[int, Row]]] = {}
        for place, row in zip(places, admitted, strict=False):
            groups.setdefault(id(self.read[row.read].decoder), []).append((place, row))
        for group in groups.values():
            held = [self.read[row.read] for _, row in group]
            at, lengths = [place for place, _ in group], [len(row.read) for _, row in group]
            self.slots.put(at, held[0].decoder, [h.number for h in held], lengths)
            self.tape.put(at, [row for _, row in group])
            for place, length in zip(at, lengths, strict=True):
                self.most_positions[place] = length
        still = self.waiting[0].read if self.waiting else None
        self.read = {read: found for read, found in self.read.items() if read == still}

    def _read_prompts(self, prompts: Sequence[tuple[int, ...]]) -> None:
        unread = sorted((read for read in prompts if read not in self.read), key=len)
        start = 0
        while start < len(unread):
            stop = start + 1
            while stop < len(unread) and (stop + 1 - start) * len(unread[stop]) <= READ_TOKENS:
                stop += 1
            decoder = Decoder(self.model, unread[start:stop], [()] * (stop - start))
            self.read |= {read: _Read(decoder, i) for i, read in enumerate(unread[start:stop])}
            start = stop


class GraphReplay:
    """Does a step as a CUDA graph, recorded the second time a length is met; without graphs where that fails."""

    def __init__(self, step: Any):
        self.step = step
        self.graphs: dict[int, Any] = {}
        self.pool: Any = None
        self.has_failed = False

    def __call__(self, length: int) -> None:
        """Do the step with slots of this length; the first of a length is done eagerly, which also warms it up."""
        if self.has_failed:
            self.step()
        elif length in self.graphs:
            if self.graphs[length] is None:
                self._record(length)
            else:
                self.graphs[length].replay()
        else:
            self._warm_up(torch.cuda.Stream())
            self.graphs[length] = None

    def _warm_up(self, stream: Any) -> None:
        """Do the step beside the main stream, as the recording of a graph needs it."""
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.step()
        torch.cuda.current_stream().wait_stream(stream)

    def _record(self, length: int) -> None:
        try:
            graph = torch.cuda.CUDAGraph()
            self.pool = self.pool or torch.cuda.graph_pool_handle()
            with torch.cuda.graph(graph, pool=self.pool):
                self.step()
        except RuntimeError as error:
            _log.warning("drawing goes on without CUDA graphs: %s", str(error).splitlines()[0])
            self.forget()
            self.has_failed = True
            torch.cuda.synchronize()
            self.step()
            return
        self.graphs[length] = graph
        graph.replay()

    def forget(self) -> None:
        """Drop all graphs: what they were recorded on has moved."""
        self.graphs.clear()
        self.pool = None
