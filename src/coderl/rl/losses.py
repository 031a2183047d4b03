"""The losses of online learning: what the actor and its critic learn from one draw, in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as column_cross_entropy

from coderl.critic.prefix import PrefixCritic
from coderl.models import lora
from coderl.models.lm import Batch, LanguageModel
from coderl.rl.settings import ActorTrainingConfig, OnlineConfig
from coderl.training.losses import (
    ActorExample,
    CrossEntropyExample,
    Example,
    Size,
    as_numbers,
    clipped_policy_gradient,
    cross_entropy_of,
    kl_penalty,
    policy_gradient,
    reduce_tokens,
    size_of,
)
from coderl.training.settings import Reduction


class ActorCritic(nn.Module):
    """What online learning moves: the actor, its critic if it has one, and the average of the actor's past weights."""

    def __init__(self, actor: LanguageModel, critic: PrefixCritic | None = None, averaged: LanguageModel | None = None):
        super().__init__()
        self.actor, self.critic, self.averaged = actor, critic, averaged
        if averaged is not None:
            averaged.requires_grad_(False)

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Move the average by 1 - `decay` of the way towards the actor."""
        assert self.averaged is not None
        for mean, now in zip(self.averaged.parameters(), self.actor.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)

    @torch.no_grad()
    def refresh(self, drawer: LanguageModel) -> None:
        """Let the model that draws have the weights as they are now, adapters merged, in its own precision."""
        source = self.actor if self.averaged is None else self.averaged
        if drawer is source:
            return
        backbone = source.backbone
        now = backbone.state_dict() if source.lora is None else lora.merged_state(backbone)
        for name, held in drawer.backbone.state_dict().items():
            held.copy_(now[name])


@dataclass(frozen=True, slots=True)
class OnlineExample(Example):
    """A program of the last draw with what each of its tokens earned, and what the critic should have said."""

    token_returns: tuple[float, ...]
    """rho_t, one a program token."""
    sampling_log_probs: tuple[float, ...] = ()
    """log p of each token under the policy that drew it, at its temperature; empty where no ratio is needed."""
    critic_targets: tuple[tuple[float, ...], ...] = ()
    """Outcome probabilities at the prefixes 0..T; empty where there is no critic."""
    solution: CrossEntropyExample | None = None
    """The reference program (of any problem) that anchors it."""


@dataclass(frozen=True, slots=True)
class Read:
    """What one forward pass says of some programs."""

    log_probs: Float[Tensor, "B T"]
    """log p(w_t | w_<t, D) at the temperature of drawing; 0 beyond a program's end."""
    entropies: Float[Tensor, "B T"]
    """Of the distribution that each token was drawn from, in nats."""
    outcome_logits: Float[Tensor, "B one_more U"] | None
    """Of the critic, at the prefixes 0..T."""


def read(model: ActorCritic, batch: Batch, *, temperature: float = 1.0) -> Read:
    """Return log-probabilities, entropies and the critic's logits of a batch, the actor read once."""
    reading = model.actor.read(batch, with_logits=True)
    assert reading.logits is not None
    scaled = reading.logits.float() / temperature
    nll = column_cross_entropy(scaled.transpose(1, 2), batch.program_ids, reduction="none")
    log_z = scaled.logsumexp(-1)
    mean = (scaled * (scaled - log_z.unsqueeze(-1)).exp()).sum(-1)
    logits = None if model.critic is None else model.critic(reading.prefix_states, batch)
    return Read(torch.where(batch.program_mask, -nll, 0.0), log_z - mean, logits)


def online_loss(
    model: ActorCritic,
    examples: Sequence[OnlineExample],
    whole: Sequence[OnlineExample] | None = None,
    *,
    config: OnlineConfig,
    rl_weight: float = 1.0,
    reference: LanguageModel | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of actor and critic over the examples, as a share of `whole`.

    rl_weight * L_rl + ce_weight * L_ce + kl_weight * KL - entropy_weight * H + critic_weight * L_critic

    Source: CodeRL Eq. 14 and section 3.4 for the first two.

    Args:
        model: actor and critic.
        examples: programs of the last draw.
        whole: the batch that `examples` are a part of.
        config: the weights.
        rl_weight: of L_rl, in place of the config's: 0 while the critic learns alone.
        reference: the frozen policy that the KL divergence is to.
    """
    whole = examples if whole is None else whole
    actor, training, temperature = model.actor, config.training, config.sampling.temperature
    batch = actor.collate([e.prompt for e in examples], [e.program for e in examples])
    found = read(model, batch, temperature=temperature)
    how: dict[str, Any] = {"reduction": training.reduction, "size": size_of(whole)}
    policy = policy_loss(found.log_probs, examples, batch, training, how)
    entropy = reduce_tokens(found.entropies, batch.program_mask, **how)
    loss = rl_weight * policy - config.entropy_weight * entropy
    metrics = {"rl_loss": policy.item(), "entropy": entropy.item()}
    if training.kl_weight and reference is not None:
        with torch.no_grad():
            theirs = read(ActorCritic(reference), batch.to(reference.device), temperature=temperature).log_probs
        kl = kl_penalty(found.log_probs, theirs.to(batch.program_ids.device), batch.program_mask, **how)
        loss, metrics["kl"] = loss + training.kl_weight * kl, kl.item()
    if found.outcome_logits is not None:
        targets = padded([e.critic_targets for e in examples], found.outcome_logits)
        critic = prefix_cross_entropy(found.outcome_logits, targets, batch, **how)
        loss, metrics["critic_loss"] = loss + config.critic_weight * critic, critic.item()
    solutions = [e.solution for e in examples if e.solution is not None]
    if solutions and training.ce_weight:
        anchors = [e.solution for e in whole if e.solution is not None]
        ce, ce_metrics = cross_entropy_of(actor, solutions, anchors, reduction=training.reduction)
        loss, metrics = loss + training.ce_weight * ce, metrics | as_numbers(ce_metrics)
    return loss, metrics


def policy_loss(
    log_probs: Float[Tensor, "B T"],
    examples: Sequence[ActorExample] | Sequence[OnlineExample],
    batch: Batch,
    config: ActorTrainingConfig,
    how: dict[str, Any],
) -> Float[Tensor, ""]:
    """Return L_rl of some programs, clipped where the settings say so; `how` is that of `reduce_tokens`."""
    mask, rho = batch.program_mask, padded([e.token_returns for e in examples], log_probs)
    assert mask.device.type != "cpu" or [len(e.token_returns) for e in examples] == mask.sum(1).tolist()
    if config.clip_range is None:
        return policy_gradient(log_probs, rho, mask, **how)
    drawn_with = padded([e.sampling_log_probs or () for e in examples], log_probs)
    assert mask.device.type != "cpu" or [len(e.sampling_log_probs or ()) for e in examples] == mask.sum(1).tolist()
    return clipped_policy_gradient(log_probs, drawn_with, rho, mask, clip_range=config.clip, **how)


def prefix_cross_entropy(
    logits: Float[Tensor, "B one_more U"],
    targets: Float[Tensor, "B one_more U"],
    batch: Batch,
    *,
    reduction: Reduction = "token_mean",
    size: Size | None = None,
) -> Float[Tensor, ""]:
    """Return -sum_u target_u log p_u at every prefix, reduced as a program of one token more.

    Source: CodeRL section 3.3.3 (its critic loss), at every prefix.

    Args:
        logits: of the critic.
        targets: outcome probabilities; see `advantages.lambda_targets`.
        batch: the programs.
        reduction: see `training.losses`.
        size: of the whole batch, if these rows are a part of it.
    """
    mask = torch.cat([torch.ones_like(batch.program_mask[:, :1]), batch.program_mask], dim=1)
    losses = -(targets * logits.log_softmax(-1)).sum(-1)
    whole = None if size is None else Size(size.num_programs, size.num_tokens + size.num_programs)
    return reduce_tokens(losses, mask, reduction=reduction, size=whole)


def padded(rows: Sequence[Sequence[Any]], like: Tensor) -> Tensor:
    """Return rows of numbers (or of rows of numbers) as a tensor of the shape and place of `like`, zeros at the end.

    It is made in one piece: to fill it row by row would launch a copy a row on a GPU.
    """
    width = like.shape[1]
    blank: Any = 0.0 if like.dim() == 2 else (0.0,) * like.shape[2]
    filled = [[*row, *[blank] * (width - len(row))] for row in rows]
    return torch.tensor(filled, dtype=like.dtype, device=like.device)
