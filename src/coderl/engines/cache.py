"""Key-value caches that copy little: one that grows by doubling, and one whose rows come and go.

A step writes one position, where the library's own copies all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache, DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer

from coderl.models.lm import LanguageModel

FIRST_CAPACITY = 32


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, views of buffers with room for more positions."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self,
        key_states: Float[Tensor, "B heads new d"],
        value_states: Float[Tensor, "B heads new d"],
        *_: Any,
        **__: Any,
    ) -> tuple[Float[Tensor, "B heads all d"], Float[Tensor, "B heads all d"]]:
        """Append positions and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        stop = start + key_states.shape[2]
        if self.buffers is None or self.buffers[0].shape[2] < stop:
            self._grow(key_states, value_states, start, max(FIRST_CAPACITY, 2 * stop))
        assert self.buffers is not None
        keys, values = self.buffers
        keys[:, :, start:stop] = key_states
        values[:, :, start:stop] = value_states
        self.keys, self.values = keys[:, :, :stop], values[:, :, :stop]
        return self.keys, self.values

    def _grow(self, key_states: Tensor, value_states: Tensor, length: int, capacity: int) -> None:
        grown = []
        for new, old in ((key_states, self.keys), (value_states, self.values)):
            batch, heads, _, width = new.shape
            buffer = new.new_empty(batch, heads, capacity, width)
            if length:
                assert old is not None
                buffer[:, :, :length] = old
            grown.append(buffer)
        self.buffers = (grown[0], grown[1])

    def batch_select_indices(self, indices: Int[Tensor, " rows"]) -> None:
        """Keep (or repeat) the given rows."""
        super().batch_select_indices(indices)
        self.buffers = None  # the selected rows are a new tensor: the next update gives them room


def new_cache(model: LanguageModel) -> Cache:
    """Return an empty cache for `model`; one with sliding windows or other layers of its own keeps the library's."""
    config = model.backbone.config
    layers = DynamicCache(config=config).layers
    growing = DynamicCache()
    growing.layer_class_to_replicate = GrowingLayer
    own = growing if all(type(layer) is DynamicLayer for layer in layers) else DynamicCache(config=config)
    return EncoderDecoderCache(own, DynamicCache()) if model.is_encoder_decoder else own


class Slots:
    """Keys and values of a batch whose rows are loaded and freed one by one, all of them ending in the same column.

    A row's positions are the columns from its start to `now`; what stands left of its start is masked. So the distance
    between two positions of a row is that of their columns, which is all that relative positions ask for.
    """

    def __init__(self, example: Float[Tensor, "L2 heads S d"], num_rows: int, num_read: int):
        """Make empty rows.

        Args:
            example: Keys and values of some row, of which shape and place are taken: layer i has 2 i and 2 i + 1.
            num_rows: R.
            num_read: Positions that cross-attention reads; 0 where there is none.
        """
        num, heads, _, width = example.shape
        self.num_layers, self.num_read = num // 2, num_read
        self.own = example.new_zeros(num, num_rows, heads, FIRST_CAPACITY, width)
        self.crossed = example.new_zeros(num, num_rows, heads, num_read, width)
        self.read_mask = torch.zeros(num_rows, num_read, dtype=torch.bool, device=example.device)
        self.read_mask[:, :1] = True  # a row that reads nothing would have no mean
        self.starts = torch.zeros(num_rows, dtype=torch.long, device=example.device)
        self.first = self.now = 0

    def reserve(self, length: int) -> None:
        """Make room for rows of so many positions to begin with."""
        if length > self.now:
            self._move(length - self.now)

    def load(
        self, row: int, parts: Sequence[Float[Tensor, "L2 heads _ d"]], crossed: Float[Tensor, "L2 heads _ d"] | None
    ) -> None:
        """Begin a row with the given positions, one part after the other."""
        length = sum(part.shape[2] for part in parts)
        self.reserve(length)
        at = self.now - length
        self.starts[row] = at
        self.first = min(self.first, at)
        for part in parts:
            self.own[:, row, :, at : at + part.shape[2]] = part
            at += part.shape[2]
        if crossed is not None:
            num = crossed.shape[2]
            self.crossed[:, row, :, :num] = crossed
            self.read_mask[row] = torch.arange(self.num_read, device=self.read_mask.device) < num

    def free(self, row: int) -> None:
        """Let a row hold nothing; it goes on being computed."""
        self.starts[row] = self.now

    def last(self, row: int, num: int) -> Float[Tensor, "L2 heads S d"]:
        """Return a copy of the last positions of a row."""
        return self.own[:, row, :, self.now - num : self.now].clone()

    def lengths(self) -> Int[Tensor, " R"]:
        """Return how many positions each row holds, without the one to come."""
        return self.now - self.starts

    def mask(self) -> Bool[Tensor, "R S"]:
        """Return which columns of the next step's keys each row sees, its own new one included; makes room for it."""
        if self.now == self.own.shape[3]:
            self._move(-self.first)
        columns = torch.arange(self.first, self.now + 1, device=self.starts.device)
        return columns >= self.starts[:, None]

    def advance(self) -> None:
        """End a step: the column that it wrote is one of each row."""
        self.now += 1

    def settle(self, rows: Sequence[int]) -> None:
        """Let the view begin where the longest of some rows does."""
        if rows:
            self.first = int(self.starts[torch.tensor(rows, device=self.starts.device)].min())

    def select(self, rows: Int[Tensor, " kept"]) -> None:
        """Keep the given rows."""
        self.own, self.crossed = self.own[:, rows], self.crossed[:, rows]
        self.read_mask, self.starts = self.read_mask[rows], self.starts[rows]

    def _move(self, shift: int) -> None:
        """Move what is seen so many columns to the right, into a buffer with room to go on."""
        capacity = max(FIRST_CAPACITY, 2 * (self.now + shift))
        grown = self.own.new_zeros(*self.own.shape[:3], capacity, self.own.shape[4])
        grown[:, :, :, self.first + shift : self.now + shift] = self.own[:, :, :, self.first : self.now]
        self.own = grown
        self.starts += shift
        self.first, self.now = self.first + shift, self.now + shift


class SlotLayer(DynamicLayer):
    """The keys and values of one layer in `Slots`."""

    def __init__(self, slots: Slots, index: int):
        super().__init__()
        self.slots, self.index = slots, 2 * index
        self.is_initialized = True

    def update(
        self, key_states: Float[Tensor, "R heads 1 d"], value_states: Float[Tensor, "R heads 1 d"], *_: Any, **__: Any
    ) -> tuple[Float[Tensor, "R heads S d"], Float[Tensor, "R heads S d"]]:
        """Write the next column and return all that are seen."""
        slots = self.slots
        slots.own[self.index, :, :, slots.now] = key_states[:, :, 0]
        slots.own[self.index + 1, :, :, slots.now] = value_states[:, :, 0]
        seen = slots.own[self.index : self.index + 2, :, :, slots.first : slots.now + 1]
        return seen[0], seen[1]

    def get_seq_length(self) -> int:
        """Return how many columns are seen before a step."""
        return self.slots.now - self.slots.first

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many columns a step sees, and where they begin."""
        return self.get_seq_length() + query_length, 0


class ReadLayer(DynamicLayer):
    """What one layer's cross-attention reads in `Slots`: a view, valid until rows are selected."""

    def __init__(self, slots: Slots, index: int):
        super().__init__()
        self.keys, self.values = slots.crossed[2 * index], slots.crossed[2 * index + 1]
        self.is_initialized = True
