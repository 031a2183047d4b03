"""The critic: a language model's states over the program, max-pooled, and one linear layer that names the outcome.

h_t  = state having read D and w_1..w_t
m_t  = max(h_1, ..., h_t), element by element          the running maximum; padding never enters it
z_t  = W m_t + b                                       logits of the prefix; z_T are the program's
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from coderl.lm import Batch, LanguageModel
from coderl.records import atomic_dir, read_json, write_json
from coderl.types import InputError, Outcome

Pooling = Literal["prefix_max", "token"]
"""What a prefix is judged by: the running maximum of its states, or its last state alone (the paper's)."""

CRITIC_FILE = "critic.json"
HEAD_FILE = "head.safetensors"
BACKBONE_FOLDER = "backbone"
FORMAT = "coderl critic 1"


class Critic(nn.Module):
    """The error predictor: logits of each outcome, for a program and for each of its prefixes.

    Source: CodeRL section 3.3.3 and Eq. 10-12.

    Deviation: the paper pools a program's states but judges a prefix by its last state, which training never shows to
        the linear layer. With `prefix_max` a prefix is pooled as a program is, so that the value of the whole prefix
        equals the program's, and training on programs trains prefixes. `token` is the paper's rule.
    Deviation: the original pools over 512 positions, padding included, which decided 94% of its predictions.
    """

    def __init__(self, model: LanguageModel, *, num_outcomes: int = 4, pooling: Pooling = "prefix_max", seed: int = 0):
        super().__init__()
        if num_outcomes not in (2, len(Outcome)):
            raise InputError(f"num_outcomes {num_outcomes}: expected 4 (the outcomes) or 2 (not passed, passed)")
        self.model = model
        self.num_outcomes = num_outcomes
        self.pooling: Pooling = pooling
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(model.hidden_size, num_outcomes)
        self.head.to(model.device)

    @property
    def is_binary(self) -> bool:
        """True for the critic of critic sampling, which knows passed and not passed only."""
        return self.num_outcomes == 2

    def token_logits(self, batch: Batch) -> Float[Tensor, "B T U"]:
        """Return the outcome logits of each prefix w_1..w_t; after the program's end they mean nothing.

        Source: Eq. 10-11 (before the softmax).
        """
        return self._head(self._pooled(batch) if self.pooling == "prefix_max" else self.model.states(batch))

    def program_logits(self, batch: Batch) -> Float[Tensor, "B U"]:
        """Return the outcome logits of each program, from the maximum of its states over program tokens only.

        Source: Eq. 12 and section 3.3.3 (before the softmax).
        """
        return self._head(self._pooled(batch)[:, -1])

    def both_logits(self, batch: Batch) -> tuple[Float[Tensor, "B U"], Float[Tensor, "B T U"]]:
        """Return `program_logits` and `token_logits` for the price of one."""
        states = self.model.states(batch)
        pooled = running_max(states, batch)
        return self._head(pooled[:, -1]), self._head(pooled if self.pooling == "prefix_max" else states)

    def _pooled(self, batch: Batch) -> Float[Tensor, "B T H"]:
        return running_max(self.model.states(batch), batch)

    def _head(self, states: Tensor) -> Tensor:
        return self.head(states.to(self.head.weight.dtype))

    # ------------------------------------------------------------------------------------------------ files

    def save(self, folder: Path) -> None:
        """Write the backbone, the linear layer and `critic.json` to `folder`, all of it or nothing."""
        head = {name: tensor.detach().cpu().contiguous() for name, tensor in self.head.state_dict().items()}
        with atomic_dir(Path(folder)) as temporary:
            self.model.save(temporary / BACKBONE_FOLDER)
            save_file(head, temporary / HEAD_FILE)
            facts = {"format": FORMAT, "num_outcomes": self.num_outcomes, "pooling": self.pooling}
            write_json(temporary / CRITIC_FILE, {**facts, "hidden_size": self.model.hidden_size})

    @classmethod
    def load(cls, folder: str | Path, *, dtype: str = "float32", device: str = "cpu") -> Critic:
        """Return the critic that `save` wrote to `folder`.

        Raises:
            InputError: `folder` holds no critic, or parts of different ones.
        """
        folder = Path(folder)
        facts = _read_facts(folder)
        model = LanguageModel.load(folder / BACKBONE_FOLDER, dtype=dtype, device=device)
        critic = cls(model, num_outcomes=facts["num_outcomes"], pooling=facts["pooling"])
        try:
            critic.head.load_state_dict(load_file(folder / HEAD_FILE))
        except (OSError, SafetensorError, RuntimeError, KeyError) as error:
            message = " ".join(str(error).split())
            raise InputError(f"{folder / HEAD_FILE}: not the linear layer of this critic ({message})") from None
        return critic.eval()


def running_max(states: Float[Tensor, "B T H"], batch: Batch) -> Float[Tensor, "B T H"]:
    """Return max(h_1..h_t) for each t; beyond a program's end, its last value."""
    outside = ~batch.program_mask.unsqueeze(-1)
    return states.masked_fill(outside, torch.finfo(states.dtype).min).cummax(dim=1).values


def _read_facts(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such critic folder")
    if not (folder / CRITIC_FILE).exists():
        what = "a language model" if (folder / "config.json").exists() else "something else"
        raise InputError(f"{folder}: expected a critic, found {what} (no {CRITIC_FILE})")
    facts = read_json(folder / CRITIC_FILE)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT or facts.get("pooling") not in get_args(Pooling):
        raise InputError(f"{folder / CRITIC_FILE}: not a {FORMAT!r} file")
    return facts
