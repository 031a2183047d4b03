"""How many of a model's layers are kept."""

from __future__ import annotations

from torch import nn

from coderl.models.lm import LanguageModel
from coderl.types import InputError


def keep_first_layers(model: LanguageModel, num_layers: int) -> None:
    """Drop all but the first `num_layers` of the model's layers (of encoder and decoder alike), in place.

    Raises:
        InputError: the model has fewer, or keeps its layers where this function does not find them.
    """
    lists = {name: m for name, m in model.backbone.named_modules() if isinstance(m, nn.ModuleList)}
    stacks = [m for name, m in lists.items() if not any(name.startswith(f"{other}.") for other in lists)]
    num_found = model.backbone.config.num_hidden_layers
    if not 1 <= num_layers <= num_found or any(len(stack) != num_found for stack in stacks):
        raise InputError(f"num_layers {num_layers}: expected 1 to {num_found} layers of this model")
    for stack in stacks:
        del stack[num_layers:]
    for config in {
        id(c): c for m in model.backbone.modules() if (c := getattr(m, "config", None)) is not None
    }.values():
        for name in ("num_hidden_layers", "num_layers", "num_decoder_layers"):
            if isinstance(getattr(config, name, None), int):
                setattr(config, name, num_layers)
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:num_layers]
