"""The original's trained networks in our folders: its critics with their error head, its actors."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from coderl.critic.model import Critic
from coderl.models.codet5 import load_checkpoint
from coderl.models.lm import LanguageModel
from coderl.types import InputError

ERROR_HEAD, RL_HEAD = "error_head.", "rl_head."


def load_critic(folder: str | Path, tokenizer: PreTrainedTokenizerBase, *, binary: bool = False) -> Critic:
    """Return the critic of a checkpoint of `train.py --tuning_mode critic`, with all it does (`pooling="legacy"`).

    Source: salesforce/CodeRL, `modeling_t5.py`: three layers (d to 128, ReLU, 128 to 4) on decoder states scaled by
        d^-1/2, the maximum over 512 positions.

    Args:
        folder: Holds `pytorch_model.bin` or `model.safetensors`.
        tokenizer: The original's: see `codet5.load_tokenizer`.
        binary: True for the critic of critic sampling: of its head's four outputs the first two are used, as not
            passed and passed.

    Raises:
        InputError: the folder holds no such checkpoint.
    """
    model, head = load_checkpoint(folder, tokenizer, extra=(ERROR_HEAD,))
    if not head:
        raise InputError(f"{folder}: a language model without an error head, not a critic")
    weights = {name.removeprefix(ERROR_HEAD): tensor for name, tensor in head.items()}
    if binary:
        weights |= {name: weights[name][:2] for name in ("2.weight", "2.bias") if name in weights}
    critic = Critic(model, num_outcomes=2 if binary else 4, pooling="legacy")
    try:
        critic.head.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{folder}: not the original's error head ({' '.join(str(error).split())[:150]})") from None
    return critic.eval()


def load_actor(folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> tuple[LanguageModel, float | None]:
    """Return the actor of a checkpoint of `train.py`, and how far its cloned RL head is from its own, if it has one.

    The distance is the norm of the difference relative to the norm. The original computes its RL loss with the cloned
    head (`--clone_rl_head`) and generates with the language model's own; so does the actor, which has that one alone.

    Raises:
        InputError: the folder holds no such checkpoint, or a critic.
    """
    model, others = load_checkpoint(folder, tokenizer, extra=(RL_HEAD, ERROR_HEAD))
    if any(name.startswith(ERROR_HEAD) for name in others):
        raise InputError(f"{folder}: a critic (it has an error head), not an actor")
    if not others:
        return model, None
    own, cloned = model.backbone.get_parameter("shared.weight"), others.get(f"{RL_HEAD}weight")
    if len(others) > 1 or cloned is None or cloned.shape != own.shape:
        raise InputError(f"{folder}: not the original's RL head, expected rl_head.weight of {tuple(own.shape)}")
    with torch.no_grad():
        return model, ((cloned - own).norm() / own.norm()).item()
