"""Log-probabilities of tokens from hidden states: logits of real tokens alone, and of a chunk of them at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

CHUNK_LOGITS = 1 << 25
"""Numbers of logits that are held at a time: with more, chunks are computed again when gradients pass through them."""
OTHER_HEADS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Settings of models that do more to their logits than a matrix and a scale."""


def token_log_probs(head: OutputLayer, hidden: Float[Tensor, "N H"], tokens: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Return log p of each token in float32, from the state before it."""
    num_logits = len(tokens) * head.num_tokens
    if num_logits <= CHUNK_LOGITS:
        return _of_chunk(head, hidden, tokens)
    size = max(1, CHUNK_LOGITS // head.num_tokens)
    chunks = zip(hidden.split(size), tokens.split(size), strict=True)
    if not (torch.is_grad_enabled() and hidden.requires_grad):
        return torch.cat([_of_chunk(head, states, read) for states, read in chunks])
    kept = [checkpoint(_of_chunk, head, states, read, use_reentrant=False) for states, read in chunks]
    return torch.cat(kept)


def _of_chunk(head: OutputLayer, hidden: Tensor, tokens: Tensor) -> Tensor:
    return -cross_entropy(head(hidden).float(), tokens, reduction="none")


class OutputLayer:
    """A backbone's way from its last hidden states to logits."""

    def __init__(self, backbone: PreTrainedModel, scale: float, num_tokens: int):
        self.backbone, self.scale, self.num_tokens = backbone, scale, num_tokens

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the logits of some states."""
        layer: Any = self.backbone.get_output_embeddings()
        return layer(hidden if self.scale == 1 else hidden * self.scale)


@torch.no_grad()
def output_layer(backbone: PreTrainedModel, probe: Callable[[], tuple[Tensor, Tensor]]) -> OutputLayer | None:
    """Return the way from a backbone's hidden states to its logits; None where it is none that is known here.

    Args:
        backbone: whose last layer is looked for.
        probe: returns some hidden states and the logits that the backbone itself makes of them.
    """
    config = backbone.config
    if backbone.get_output_embeddings() is None or any(getattr(config, name, None) is not None for name in OTHER_HEADS):
        return None
    was_training = backbone.training
    backbone.eval()
    hidden, expected = probe()
    backbone.train(was_training)
    for scale in (1.0, config.hidden_size**-0.5):
        found = OutputLayer(backbone, scale, expected.shape[-1])
        error = (found(hidden).float() - expected.float()).nan_to_num().abs().max()
        if error <= 0.02 * expected.float().nan_to_num(neginf=0).abs().max() + 1e-6:
            return found
    return None
