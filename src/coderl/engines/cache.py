"""Key-value caches that grow by doubling: a step writes one position where the library copies all of them."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
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
