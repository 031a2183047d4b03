"""The losses, a pure function an equation, and the bridges from examples to them.

Equations take log-probabilities [B, T] and a mask of real tokens. How a sum over tokens becomes one number is always
named, because the paper and the original differ in it: `sequence_sum` sums over a program's tokens and averages over
programs (the paper, Eq. 1 and 14); `token_mean` averages over all tokens of the batch (the original, and our default);
`sequence_mean` averages over a program's tokens and then over programs.

A batch may be split over processes and accumulation steps. Then each part is divided by the size of the whole
(`Size`), so that the parts' losses add up to exactly the loss of the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy as column_cross_entropy

from coderl.critic.columns import outcome_column
from coderl.critic.model import Critic
from coderl.models.lm import LanguageModel
from coderl.training.settings import Reduction
from coderl.types import Outcome


@dataclass(frozen=True, slots=True)
class Size:
    """What a loss over a whole batch is divided by."""

    num_programs: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Example:
    """A program and the prompt it answers, as tokens."""

    prompt: tuple[int, ...]
    program: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CrossEntropyExample(Example):
    """A program to imitate: a reference solution, a repair, a piece of a corpus."""


@dataclass(frozen=True, slots=True)
class ActorExample(Example):
    """A sampled program with what each of its tokens earned."""

    token_returns: tuple[float, ...]
    """rho_t, one a program token."""
    sampling_log_probs: tuple[float, ...] | None = None
    """log p of each token under the policy that drew it; needed by PPO clipping only."""
    problem_id: str = ""
    """For the record."""
    staleness: int = 0
    """Rounds since it was drawn; 0 for a sample of the policy that is being trained."""


@dataclass(frozen=True, slots=True)
class CriticExample(Example):
    """A program whose outcome is known."""

    outcome: Outcome
    num_copies: int = 1
    """How many samples of the problem are this very program; it counts as so many and costs one."""


def num_copies(examples: Sequence[CriticExample]) -> int:
    """Return how many samples the examples stand for."""
    return sum(example.num_copies for example in examples)


def size_of(examples: Sequence[Example]) -> Size:
    """Return how many programs and program tokens the examples hold."""
    return Size(len(examples), sum(len(example.program) for example in examples))


def num_tokens(example: Example) -> int:
    """Return the tokens of the prompt and the program together: what examples are sorted by."""
    return len(example.prompt) + len(example.program)


# ---------------------------------------------------------------------------------------------------------- equations


def reduce_tokens(
    values: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    reduction: Reduction = "token_mean",
    size: Size | None = None,
) -> Float[Tensor, ""]:
    """Return one number for the values at real tokens; what stands elsewhere is never looked at.

    Args:
        values: one a token.
        mask: where a program has a token.
        reduction: see the module.
        size: of the whole batch, if these rows are a part of it.
    """
    kept = torch.where(mask, values, 0.0)
    lengths = mask.sum(1)
    if reduction == "token_mean":
        return kept.sum() / max(int(lengths.sum()) if size is None else size.num_tokens, 1)
    num_programs = max(len(values) if size is None else size.num_programs, 1)
    if reduction == "sequence_sum":
        return kept.sum() / num_programs
    return (kept.sum(1) / lengths.clamp(min=1)).sum() / num_programs


def cross_entropy(
    log_probs: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    reduction: Reduction = "token_mean",
    size: Size | None = None,
) -> Float[Tensor, ""]:
    """Return L_ce = -sum_t log p(w_t | w_<t, D), reduced.

    Source: CodeRL Eq. 1. Deviation: the mean over tokens by default, as the original trains.
    """
    return reduce_tokens(-log_probs, mask, reduction=reduction, size=size)


def policy_gradient(
    log_probs: Float[Tensor, "B T"],
    token_returns: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    reduction: Reduction = "token_mean",
    size: Size | None = None,
) -> Float[Tensor, ""]:
    """Return L_rl = -sum_t rho_t log p(w_t | w_<t, D), reduced; rho is a constant to the gradient.

    Source: CodeRL Eq. 14, with rho_t = (r(W^s) - r(W^b)) q(w_t).
    """
    return reduce_tokens(-token_returns.detach() * log_probs, mask, reduction=reduction, size=size)


def clipped_policy_gradient(
    log_probs: Float[Tensor, "B T"],
    sampling_log_probs: Float[Tensor, "B T"],
    token_returns: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    clip_range: float | tuple[float, float],
    reduction: Reduction = "token_mean",
    size: Size | None = None,
) -> Float[Tensor, ""]:
    """Return -min(x rho, clip(x, 1 - c, 1 + c') rho), reduced, with x = p / p_sampling for each token.

    `clip_range` is c, or c and c'.

    Source: Schulman et al. 2017 (PPO), Eq. 7, with c' = c; Yu et al. 2025 (DAPO), Eq. 8, with c' > c. Its gradient at
        x = 1 is that of `policy_gradient`. Not in CodeRL.
    """
    ratio = torch.where(mask, log_probs - sampling_log_probs.detach(), 0.0).exp()
    rho = token_returns.detach()
    low, high = clip_range if isinstance(clip_range, tuple) else (clip_range, clip_range)
    worst = torch.minimum(ratio * rho, ratio.clamp(1 - low, 1 + high) * rho)
    return reduce_tokens(-worst, mask, reduction=reduction, size=size)


def kl_penalty(
    log_probs: Float[Tensor, "B T"],
    reference_log_probs: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    reduction: Reduction = "token_mean",
    size: Size | None = None,
) -> Float[Tensor, ""]:
    """Return an estimate of KL(p || p_reference) from sampled tokens: exp(d) - d - 1 with d = log p_ref - log p.

    Source: Schulman 2020, estimator k3: never negative, 0 where both agree. Not in CodeRL.
    """
    difference = torch.where(mask, reference_log_probs.detach() - log_probs, 0.0)
    return reduce_tokens(difference.exp() - difference - 1, mask, reduction=reduction, size=size)


def outcome_cross_entropy(
    logits: Float[Tensor, "B U"],
    columns: Int[Tensor, " B"],
    *,
    class_weights: Float[Tensor, " U"] | None = None,
    copies: Float[Tensor, " B"] | None = None,
    num_programs: int | None = None,
) -> Float[Tensor, ""]:
    """Return L_critic = -log p(u | W, D), each program weighted by its class and copies, over the number of programs.

    Source: CodeRL section 3.3.3 (its critic loss). Deviation: class weights are ours; with `balanced_weights` their
        mean over the training set is 1, so dividing by the number of programs keeps the scale.
    """
    losses = column_cross_entropy(logits, columns, weight=class_weights, reduction="none")
    if copies is not None:
        losses = losses * copies
    return losses.sum() / (len(columns) if num_programs is None else num_programs)


def balanced_weights(columns: Sequence[int], num_outcomes: int) -> list[float]:
    """Return n / (U' n_u) for each class u, with U' the number of classes seen; 1 for an unseen class.

    Each seen class then weighs the same in total, and the mean weight of the examples is 1.
    """
    counts = [columns.count(u) for u in range(num_outcomes)]
    num_seen = sum(count > 0 for count in counts)
    return [len(columns) / (num_seen * count) if count else 1.0 for count in counts]


# ------------------------------------------------------------------------------------------- from examples to losses


def cross_entropy_of(
    model: LanguageModel,
    examples: Sequence[CrossEntropyExample],
    whole: Sequence[CrossEntropyExample] | None = None,
    *,
    reduction: Reduction = "token_mean",
) -> tuple[Tensor, dict[str, float]]:
    """Return the cross-entropy of the examples, as a share of `whole` where given."""
    batch = model.collate([e.prompt for e in examples], [e.program for e in examples])
    size = size_of(examples if whole is None else whole)
    loss = cross_entropy(model.log_probs(batch), batch.program_mask, reduction=reduction, size=size)
    return loss, {"ce_loss": loss.item()}


@torch.inference_mode()
def validation_loss(
    model: LanguageModel, examples: Sequence[CrossEntropyExample], *, batch_size: int = 32
) -> dict[str, float]:
    """Return the mean of -log p over the tokens of all examples, in nats, as `loss`: what early stopping looks at."""
    ordered = sorted(examples, key=num_tokens)
    parts = (ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size))
    return {"loss": sum(cross_entropy_of(model, part, ordered)[0].item() for part in parts)}


def critic_loss_of(
    critic: Critic,
    examples: Sequence[CriticExample],
    whole: Sequence[CriticExample] | None = None,
    *,
    class_weights: Sequence[float] | None = None,
    prefix_weight: float = 0.0,
) -> tuple[Tensor, dict[str, float]]:
    """Return the critic's loss on the examples and the share it names rightly.

    Args:
        critic: of 4 outcomes or binary.
        examples: programs with outcomes.
        whole: the batch that `examples` are a part of.
        class_weights: one an outcome column.
        prefix_weight: weight of the same loss at every prefix, mean over a program's tokens (ours, not the paper's):
            it makes a prefix value an estimate of how programs that begin so turn out.
    """
    batch = critic.model.collate([e.prompt for e in examples], [e.program for e in examples])
    columns = torch.tensor(
        [outcome_column(e.outcome, critic.num_outcomes) for e in examples], device=critic.model.device
    )
    weights = None if class_weights is None else torch.tensor(class_weights, device=columns.device)
    copies = torch.tensor([float(e.num_copies) for e in examples], device=columns.device)
    num_programs = num_copies(examples if whole is None else whole)
    program_logits, token_logits = critic.both_logits(batch)
    loss = outcome_cross_entropy(
        program_logits.float(), columns, class_weights=weights, copies=copies, num_programs=num_programs
    )
    metrics = {
        "critic_loss": loss.item(),
        "critic_accuracy": ((program_logits.argmax(-1) == columns) * copies).sum().item() / num_programs,
    }
    if prefix_weight:
        targets = columns.unsqueeze(1).expand(-1, token_logits.shape[1])
        losses = column_cross_entropy(token_logits.float().transpose(1, 2), targets, weight=weights, reduction="none")
        size = Size(num_programs, 0)
        prefix = reduce_tokens(losses * copies[:, None], batch.program_mask, reduction="sequence_mean", size=size)
        loss = loss + prefix_weight * prefix
        metrics["prefix_loss"] = prefix.item()
    return loss, metrics
