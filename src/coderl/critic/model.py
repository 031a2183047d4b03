"""The critic: a language model's states over the program, pooled, and one linear layer that names the outcome.

h_t  = state having read D and w_1..w_t
m_t  = max(h_1, ..., h_t), element by element          the running maximum; padding never enters it
a_t  = mean(h_1, ..., h_t)                             the running mean (ours)
d    = mean of the prompt's states                     what is asked (ours)
f_t  = how likely the model itself finds w_1..w_t      of surprise and entropy so far (ours)
z_t  = W [m_t; a_t; d; f_t] + b                        logits of the prefix; z_T are the program's
q_t  = softmax(z_t / temperature)                      fitted on held-out problems after training, 1 before
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import pad as widen

from coderl.critic.settings import Pooling
from coderl.models.lm import Batch, LanguageModel
from coderl.records import atomic_dir, read_json, write_json
from coderl.types import InputError, Outcome

CRITIC_FILE = "critic.json"
HEAD_FILE = "head.safetensors"
BACKBONE_FOLDER = "backbone"
FORMAT = "coderl critic 3"
SURPRISES = (0.01, 0.1, 0.5, 1.0)
"""Nats; the tokens more surprising than each are counted."""
NUM_LIKELIHOOD_FEATURES = 6 + len(SURPRISES)
LEGACY_POSITIONS = 512
"""The original pads every program to so many positions and pools over all of them."""
LEGACY_WIDTH = 128
"""Of the original's hidden layer."""


class Critic(nn.Module):
    """The error predictor: logits of each outcome, for a program and for each of its prefixes.

    Source: CodeRL section 3.3.3 and Eq. 10-12.

    Deviation: the paper pools a program's states but judges a prefix by its last state, which training never shows to
        the linear layer. With `prefix` and `prefix_max` a prefix is pooled as a program is, so that the value of the
        whole prefix equals the program's, and training on programs trains prefixes. `token` is the paper's rule.
    Deviation: with `uses_likelihood` the linear layer also sees how surprised the backbone's own language model is by
        the program, and with `prefix` the means of states beside their maximum. On MiniAPPS a few numbers of likelihood
        tell passing programs better than all pooled states do (docs/experiments.md).
    Deviation: `legacy` is the original's code: two layers on the state that *predicts* w_t (it has not read it), scaled
        by d^-1/2, and each class's maximum over 512 positions, padding included, which decided 94% of its predictions.
        Padding of the prompt, which the original attends to, stays masked here.
    """

    temperature: Tensor

    def __init__(
        self,
        model: LanguageModel,
        *,
        num_outcomes: int = 4,
        pooling: Pooling = "prefix",
        uses_likelihood: bool = True,
        seed: int = 0,
    ):
        super().__init__()
        if num_outcomes not in (2, len(Outcome)):
            raise InputError(f"num_outcomes {num_outcomes}: expected 4 (the outcomes) or 2 (not passed, passed)")
        self.model = model
        self.num_outcomes = num_outcomes
        self.pooling: Pooling = pooling
        self.uses_likelihood = uses_likelihood and pooling != "legacy"
        self.register_buffer("temperature", torch.ones(()))
        width = self.num_states + NUM_LIKELIHOOD_FEATURES * self.uses_likelihood
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = _legacy_head(width, num_outcomes) if pooling == "legacy" else nn.Linear(width, num_outcomes)
        self.to(model.device)

    @property
    def num_states(self) -> int:
        """How many numbers of the linear layer's input are states; likelihoods come after them."""
        return self.model.hidden_size * (3 if self.pooling == "prefix" else 1)

    def token_logits(self, batch: Batch) -> Float[Tensor, "B T U"]:
        """Return the outcome logits of each prefix w_1..w_t; after the program's end they mean nothing.

        Source: Eq. 10-11 (before the softmax).
        """
        return self.both_logits(batch)[1]

    def program_logits(self, batch: Batch) -> Float[Tensor, "B U"]:
        """Return the outcome logits of each program, from the maximum of its states over program tokens only.

        Source: Eq. 12 and section 3.3.3 (before the softmax).
        """
        return self.both_logits(batch)[0]

    def both_logits(self, batch: Batch) -> tuple[Float[Tensor, "B U"], Float[Tensor, "B T U"]]:
        """Return `program_logits` and `token_logits` for the price of one."""
        if self.pooling == "legacy":
            return self._legacy_logits(batch)
        pooled, prefixes = self.head_inputs(batch)
        return self._head(pooled[:, -1]), self._head(prefixes)

    def head_inputs(self, batch: Batch) -> tuple[Float[Tensor, "B T I"], Float[Tensor, "B T I"]]:
        """Return what the linear layer reads of a program that ends at each token, and of a prefix that ends there.

        The same but for `token`. Beyond a program's end the former repeats the whole program's.
        """
        reading = self.model.read(batch, with_logits=self.uses_likelihood)
        features = (
            [] if reading.logits is None else [likelihood_features(reading.logits, batch).to(reading.states.dtype)]
        )
        pooled = [running_max(reading.states, batch)]
        if self.pooling == "prefix":
            asked = masked_mean(reading.prompt_states, batch.prompt_mask).unsqueeze(1)
            pooled += [running_mean(reading.states, batch), asked.expand_as(reading.states)]
        whole = torch.cat([*pooled, *features], -1)
        return whole, torch.cat([reading.states, *features], -1) if self.pooling == "token" else whole

    def _legacy_logits(self, batch: Batch) -> tuple[Float[Tensor, "B U"], Float[Tensor, "B T U"]]:
        num_tokens = batch.program_ids.shape[1]
        extra = (0, max(LEGACY_POSITIONS - num_tokens, 0))
        ids, mask = widen(batch.program_ids, extra, value=self.model.pad_id), widen(batch.program_mask, extra)
        states = self.model.read(replace(batch, program_ids=ids, program_mask=mask)).prefix_states[:, :-1]
        logits = self._head(states * self.model.hidden_size**-0.5)
        return logits.amax(1), logits[:, :num_tokens]

    def _head(self, states: Tensor) -> Tensor:
        return self.head(states.to(next(self.head.parameters()).dtype))

    # ------------------------------------------------------------------------------------------------ files

    def save(self, folder: Path) -> None:
        """Write the backbone, the linear layer and `critic.json` to `folder`, all of it or nothing."""
        head = {name: tensor.detach().cpu().contiguous() for name, tensor in self.head.state_dict().items()}
        with atomic_dir(Path(folder)) as temporary:
            self.model.save(temporary / BACKBONE_FOLDER)
            save_file(head, temporary / HEAD_FILE)
            facts = {
                "format": FORMAT,
                "num_outcomes": self.num_outcomes,
                "pooling": self.pooling,
                "uses_likelihood": self.uses_likelihood,
                "temperature": self.temperature.item(),
                "hidden_size": self.model.hidden_size,
            }
            write_json(temporary / CRITIC_FILE, facts)

    @classmethod
    def load(cls, folder: str | Path, *, dtype: str = "float32", device: str | None = None) -> Critic:
        """Return the critic that `save` wrote to `folder`.

        Raises:
            InputError: `folder` holds no critic, or parts of different ones.
        """
        folder = Path(folder)
        facts = _read_facts(folder)
        model = LanguageModel.load(folder / BACKBONE_FOLDER, dtype=dtype, device=device)
        critic = cls(
            model,
            num_outcomes=facts["num_outcomes"],
            pooling=facts["pooling"],
            uses_likelihood=facts["uses_likelihood"],
        )
        critic.temperature.fill_(facts["temperature"])
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


def running_mean(states: Float[Tensor, "B T H"], batch: Batch) -> Float[Tensor, "B T H"]:
    """Return mean(h_1..h_t) for each t; beyond a program's end, its last value."""
    mask = batch.program_mask.unsqueeze(-1)
    return states.masked_fill(~mask, 0.0).cumsum(1) / mask.cumsum(1).clamp(min=1)


def masked_mean(states: Float[Tensor, "B S H"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B H"]:
    """Return the mean of the states that the mask keeps."""
    return states.masked_fill(~mask.unsqueeze(-1), 0.0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


@torch.no_grad()
def likelihood_features(logits: Float[Tensor, "B T V"], batch: Batch) -> Float[Tensor, "B T ten"]:
    """Return f_t of each prefix, in float32 and without gradient.

    log(1 + 10 x) of mean, sum and maximum over s = 1..t of the surprise -log p(w_s), then of the entropy, both in nats;
    log(1 + n) of how many tokens surprise more than each of `SURPRISES`. Beyond a program's end they stay what they
    were. One program at a time, as a vocabulary of 50,000 makes their softmax large.
    """
    measures = []
    for row, ids in zip(logits, batch.program_ids, strict=True):
        log_probs = row.float().log_softmax(-1)
        surprise = -log_probs.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        measures.append(torch.stack([surprise, torch.special.entr(log_probs.exp()).sum(-1)], -1))
    values = torch.stack(measures).masked_fill(~batch.program_mask.unsqueeze(-1), 0.0)
    sums = values.cumsum(1)
    means = sums / batch.program_mask.cumsum(1).clamp(min=1).unsqueeze(-1)
    amounts = torch.stack([means, sums, values.cummax(1).values], -1).flatten(2)
    counts = (values[..., :1] > values.new_tensor(SURPRISES)).float().cumsum(1)
    return torch.cat([(10 * amounts).log1p(), counts.log1p()], -1)


def _legacy_head(width: int, num_outcomes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, LEGACY_WIDTH), nn.ReLU(), nn.Linear(LEGACY_WIDTH, num_outcomes))


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
