"""Samples with token returns, and solutions -> the improved actor: policy gradient and cross-entropy in every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from coderl.models.lm import Batch, LanguageModel
from coderl.rl.losses import policy_loss
from coderl.rl.settings import ActorTrainingConfig
from coderl.training import losses
from coderl.training.loop import StepMetrics, Validate, train
from coderl.training.losses import ActorExample, CrossEntropyExample, Figures, Size
from coderl.training.optim import suitable_rate
from coderl.training.settings import OptimConfig
from coderl.types import InputError

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class ActorStepExample:
    """A sample, and the solution (of any problem) that anchors it."""

    sample: ActorExample
    solution: CrossEntropyExample | None


def drop_zero_returns(samples: Sequence[ActorExample]) -> tuple[list[ActorExample], int]:
    """Return the samples that can move the actor, and how many cannot because all their token returns are 0."""
    kept = [sample for sample in samples if any(sample.token_returns)]
    return kept, len(samples) - len(kept)


def with_log_probs(
    actor: LanguageModel, samples: Sequence[ActorExample], *, batch_size: int = 64
) -> list[ActorExample]:
    """Return the samples with the log-probability that `actor`, which drew them, gives each of their tokens.

    At temperature 1, as the policy that is trained is compared with them, whatever temperature they were drawn at.
    """
    found: list[ActorExample] = []
    with torch.no_grad():
        for start in range(0, len(samples), batch_size):
            part = samples[start : start + batch_size]
            log_probs = actor.log_probs(actor.collate([s.prompt for s in part], [s.program for s in part]))
            found += [
                replace(sample, sampling_log_probs=tuple(row[: len(sample.program)]))
                for sample, row in zip(part, log_probs.tolist(), strict=True)
            ]
    return found


def train_actor(
    actor: LanguageModel,
    samples: Sequence[ActorExample],
    solutions: Sequence[CrossEntropyExample],
    config: ActorTrainingConfig,
    *,
    reference: LanguageModel | None = None,
    checkpoint_dir: Path | None = None,
    validate: Validate | None = None,
) -> Iterator[StepMetrics]:
    """Yield the metrics of each update of `actor`; none at all where no sample has a return.

    Source: CodeRL Eq. 14 and section 3.4. Deviation: samples whose returns are all 0 are dropped before they cost a
        step; in one reproduction of the original they were 69% of all.

    Args:
        actor: the warm-started policy.
        samples: of all problems; an epoch sees each once.
        solutions: reference programs; none repeats before all have been drawn. Empty: no cross-entropy term.
        config: weights of the terms, and the optimiser's settings.
        reference: the frozen policy that `kl_weight` refers to.
        checkpoint_dir: see `loop.train`.
        validate: see `loop.train`.

    Raises:
        InputError: clipping without sampling log-probabilities, or a KL weight without a reference.
    """
    if config.kl_weight and reference is None:
        raise InputError("kl_weight needs a reference model")
    kept, num_dropped = drop_zero_returns(samples)
    if config.clip_range is not None and any(s.sampling_log_probs is None for s in kept):
        raise InputError("clip_range needs samples with the log-probabilities they were drawn with")
    if not kept:
        return
    dropped_share = num_dropped / len(samples)
    optim = suitable_rate(config.optim, actor, share=0.1)
    steps = train(
        actor,
        step_examples(kept, solutions if config.ce_weight else (), optim, config.solution_share),
        partial(actor_loss_of, config=config, reference=reference),
        optim,
        checkpoint_dir=checkpoint_dir,
        length_of=lambda example: losses.num_tokens(example.sample),
        validate=validate,
    )
    for step in steps:
        step.metrics["zero_return_share"] = dropped_share
        yield step


def step_examples(
    samples: Sequence[ActorExample],
    solutions: Sequence[CrossEntropyExample],
    optim: OptimConfig,
    solution_share: float = 1.0,
) -> Callable[[int], list[ActorStepExample]]:
    """Return the function of the epoch that gives samples their solutions, none twice before all have been drawn.

    Every sample has one, or every so many as `solution_share` says. With `bucket_by_length`, samples and the epoch's
    solutions are paired by the rank of their lengths, so that a batch of like samples is one of like solutions.
    """

    def of_epoch(epoch: int) -> list[ActorStepExample]:
        count = math.ceil(len(samples) * solution_share)
        drawn = in_turn(solutions, count, optim.seed, start=epoch * count)
        if not drawn:
            return [ActorStepExample(sample, None) for sample in samples]
        ordered = list(samples)
        if optim.bucket_by_length:
            ordered.sort(key=losses.num_tokens)
            drawn.sort(key=losses.num_tokens)
        given: list[CrossEntropyExample | None] = [None] * len(ordered)
        for index, solution in enumerate(drawn):
            given[index * len(ordered) // count] = solution
        return [ActorStepExample(s, w) for s, w in zip(ordered, given, strict=True)]

    return of_epoch


def in_turn(items: Sequence[Item], count: int, seed: int, *, start: int) -> list[Item]:
    """Return places `start` .. `start + count` of an endless series of shuffles of all items."""
    if not items:
        return []
    drawn: list[Item] = []
    while len(drawn) < count:
        shuffle, offset = divmod(start + len(drawn), len(items))
        order = np.random.default_rng([seed, shuffle, 1]).permutation(len(items))[offset:]
        drawn += [items[i] for i in order[: count - len(drawn)]]
    return drawn


# ------------------------------------------------------------------------------------------------------------- loss


def actor_loss_of(
    actor: LanguageModel,
    examples: Sequence[ActorStepExample],
    whole: Sequence[ActorStepExample] | None = None,
    *,
    config: ActorTrainingConfig,
    reference: LanguageModel | None = None,
) -> tuple[Tensor, Figures]:
    """Return rl_weight * L_rl + ce_weight * L_ce + kl_weight * KL over the examples, as a share of `whole`.

    Samples and solutions are read in one forward pass.
    """
    whole = examples if whole is None else whole
    samples, all_samples = [e.sample for e in examples], [e.sample for e in whole]
    solutions, all_solutions = ([e.solution for e in part if e.solution is not None] for part in (examples, whole))
    both = [*samples, *solutions]
    batch = actor.collate([e.prompt for e in both], [e.program for e in both])
    log_probs, first = actor.log_probs(batch), len(samples)
    loss, metrics = _sample_loss(log_probs[:first], batch[:first], samples, all_samples, config)
    if config.kl_weight and reference is not None:
        kl = _kl(reference, log_probs[:first], batch[:first], losses.size_of(all_samples), config)
        metrics["kl"] = kl.detach()
        loss = loss + config.kl_weight * kl
    if solutions:
        how = {"reduction": config.reduction, "size": losses.size_of(all_solutions)}
        ce = losses.cross_entropy(log_probs[first:], batch.program_mask[first:], **how)
        metrics["ce_loss"] = ce.detach()
        loss = loss + config.ce_weight * ce
    return loss, metrics


def _sample_loss(
    log_probs: Float[Tensor, "B T"],
    batch: Batch,
    samples: Sequence[ActorExample],
    whole: Sequence[ActorExample],
    config: ActorTrainingConfig,
) -> tuple[Tensor, Figures]:
    """Return rl_weight * L_rl."""
    how = {"reduction": config.reduction, "size": losses.size_of(whole)}
    loss = policy_loss(log_probs, samples, batch, config, how)
    return config.rl_weight * loss, {
        "rl_loss": loss.detach(),
        "mean_return": _mean_return(samples, whole),
        "staleness": sum(s.staleness for s in samples) / len(whole),
    }


def _kl(
    reference: LanguageModel, log_probs: Float[Tensor, "B T"], batch: Batch, size: Size, config: ActorTrainingConfig
) -> Float[Tensor, ""]:
    with torch.no_grad():
        theirs = reference.log_probs(batch.to(reference.device)).to(log_probs.device)
    return losses.kl_penalty(log_probs, theirs, batch.program_mask, reduction=config.reduction, size=size)


def _mean_return(samples: Sequence[ActorExample], whole: Sequence[ActorExample]) -> float:
    """Return the samples' share of the mean token return of `whole`."""
    return sum(map(sum, (s.token_returns for s in samples))) / max(losses.size_of(whole).num_tokens, 1)
