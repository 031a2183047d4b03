"""Networks that stay in memory from one stage of a process to the next."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from torch import nn

from coderl import records
from coderl.critic.model import Critic
from coderl.engines.actor import Actor
from coderl.engines.settings import SamplingConfig
from coderl.models.lm import LanguageModel
from coderl.prompts import PromptConfig

Network = TypeVar("Network", bound=nn.Module)
MAX_HELD_BYTES = 4 << 30
"""Of weights that are kept for a later stage."""
_held: OrderedDict[tuple[str, ...], nn.Module] = OrderedDict()


def language_model(source: Path | str, dtype: str = "float32") -> LanguageModel:
    """Return the model of a folder or hub name, to be read from: nobody may change it.

    Raises:
        InputError: see `LanguageModel.load`.
    """
    return _shared(LanguageModel, source, dtype, lambda: LanguageModel.load(source, dtype=dtype))


def own_language_model(source: Path | str) -> LanguageModel:
    """Return a copy of the model that the caller may train."""
    return copy.deepcopy(language_model(source))


def critic(folder: Path | str) -> Critic:
    """Return the critic of a folder, to be read from.

    Raises:
        InputError: see `Critic.load`.
    """
    return _shared(Critic, folder, "", lambda: Critic.load(Path(folder)))


def own_critic(folder: Path | str) -> Critic:
    """Return a copy of the critic that the caller may train."""
    return copy.deepcopy(critic(folder))


def actor(source: Path | str, prompt: PromptConfig, sampling: SamplingConfig | None = None) -> Actor:
    """Return the actor whose model is in a folder or on a hub."""
    sampling = sampling or SamplingConfig()
    return Actor(language_model(source, sampling.dtype), prompt, sampling)


def _shared(kind: type[Network], source: Path | str, dtype: str, load: Callable[[], Network]) -> Network:
    content = records.hash_path(Path(source)) if Path(source).exists() else ""
    name = (kind.__name__, str(source), content, dtype)
    if name not in _held:
        _held[name] = load()
    _held.move_to_end(name)
    while len(_held) > 1 and sum(map(_num_bytes, _held.values())) > MAX_HELD_BYTES:
        _held.popitem(last=False)
    found = _held[name]
    assert isinstance(found, kind)
    return found


def _num_bytes(network: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in network.parameters())
