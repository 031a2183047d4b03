"""Next-token logits of many rows: each prompt is read once, its cache repeated, finished rows dropped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from coderl.engines.cache import new_cache
from coderl.models.lm import LanguageModel, pad_rows


class Decoder:
    """The state of a batch of rows under way; `logits` predict the next token of each.

    `prefixes` must be of one length for an encoder-decoder model, whose decoder has no padding on the left; a
    decoder-only model reads prompt and prefix as one.
    """

    def __init__(self, model: LanguageModel, prompts: Sequence[Sequence[int]], prefixes: Sequence[Sequence[int]]):
        self.model = model
        self.cache = new_cache(model)
        self.num_steps = 0
        if model.is_encoder_decoder:
            self.logits = self._read_encoder_decoder(prompts, prefixes)
        else:
            joined = [[*prompt, *prefix] for prompt, prefix in zip(prompts, prefixes, strict=True)]
            self.logits = self._read_decoder_only(joined)

    def _read_encoder_decoder(
        self, prompts: Sequence[Sequence[int]], prefixes: Sequence[Sequence[int]]
    ) -> Float[Tensor, "P V"]:
        ids, mask = (t.to(self.model.device) for t in pad_rows(prompts, self.model.pad_id, side="right"))
        self.mask = None if mask.all() else mask
        self.encoded = self.model.backbone.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        starts = torch.tensor([[self.model.start_id, *prefix] for prefix in prefixes], device=self.model.device)
        logits = self._forward_decoder(starts)
        # from here on the cross-attention reads its cache: only the shape of the encoder's states is looked at
        self.encoded = self.encoded.new_zeros(()).expand(self.encoded.shape)
        return logits

    def _forward_decoder(self, tokens: Int[Tensor, "R L"]) -> Float[Tensor, "R V"]:
        outputs = self.model.backbone(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.encoded),
            attention_mask=self.mask,
            decoder_input_ids=tokens,
            past_key_values=self.cache,
            use_cache=True,
        )
        return outputs.logits[:, -1].float()

    def _read_decoder_only(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "P V"]:
        ids, mask = (t.to(self.model.device) for t in pad_rows(prompts, self.model.pad_id, side="left"))
        self.lengths = mask.sum(-1)
        self.mask = None if mask.all() else mask.long()
        return self._forward_joined(ids, (mask.long().cumsum(-1) - 1).clamp(min=0))

    def _forward_joined(self, tokens: Int[Tensor, "R L"], positions: Int[Tensor, "R L"]) -> Float[Tensor, "R V"]:
        outputs = self.model.backbone(
            input_ids=tokens,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return outputs.logits[:, -1].float()

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep (or repeat) the given rows."""
        self.cache.batch_select_indices(rows)
        self.logits = self.logits[rows]
        if self.mask is not None:
            self.mask = self.mask[rows]
        if self.model.is_encoder_decoder:
            self.encoded = self.encoded[:1].expand(len(rows), *self.encoded.shape[1:])
        else:
            self.lengths = self.lengths[rows]

    def step(self, tokens: Int[Tensor, " R"]) -> None:
        """Let each row read its next token."""
        if self.model.is_encoder_decoder:
            self.logits = self._forward_decoder(tokens[:, None])
            return
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        self.logits = self._forward_joined(tokens[:, None], (self.lengths + self.num_steps)[:, None])
        self.num_steps += 1
