"""Figures that tell a collapse while the loss still looks well: what the updates pull at, and how far the actor went.

Source: a reproduction of the original whose cross-entropy stayed healthy while compile errors rose from 4% to 61%, with
gradients of negative samples three times as large as those of positive ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from coderl.models.lm import Batch, LanguageModel
from coderl.training import losses
from coderl.training.losses import ActorExample
from coderl.types import Outcome, ProgramKind, Rollout

NUM_SAMPLES = 32
"""Samples a figure is measured on, evenly spread over those given: a canary must cost little."""


def sample_canaries(rollouts: Iterable[Rollout]) -> dict[str, float]:
    """Return how the drawn programs fare as a whole: what a collapsing policy shows first.

    Shares are of the samples that have a verdict; `unique_share` counts a problem's programs of the same text once.
    """
    drawn = [r for r in rollouts if r.program.kind is ProgramKind.SAMPLE]
    count = max(len(drawn), 1)
    return {
        "pass_rate": sum(r.outcome is Outcome.PASSED_TEST for r in drawn) / count,
        "compile_error_rate": sum(r.outcome is Outcome.COMPILE_ERROR for r in drawn) / count,
        "unique_share": len({(r.program.problem_id, r.program.code) for r in drawn}) / count,
        "mean_tokens": sum(len(r.program.tokens) for r in drawn) / count,
    }


def gradient_norms(actor: LanguageModel, samples: Sequence[ActorExample]) -> dict[str, float]:
    """Return the gradient norm of L_rl (mean over tokens) on samples with a positive return, and on negative ones.

    A sign without samples has norm 0. The actor's weights and gradients stay as they are.
    """
    return {
        f"grad_norm_{name}": _gradient_norm(
            actor, _spread_over([s for s in samples if sign * sum(s.token_returns) > 0])
        )
        for name, sign in (("positive", 1), ("negative", -1))
    }


def _gradient_norm(actor: LanguageModel, samples: Sequence[ActorExample]) -> float:
    if not samples:
        return 0.0
    was_training = actor.training
    actor.eval()
    batch = actor.collate([s.prompt for s in samples], [s.program for s in samples])
    width = batch.program_ids.shape[1]
    rho = torch.tensor([[*s.token_returns, *[0.0] * (width - len(s.program))] for s in samples], device=actor.device)
    loss = losses.policy_gradient(actor.log_probs(batch), rho, batch.program_mask)
    parameters = [p for p in actor.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    actor.train(was_training)
    return sum(g.float().square().sum().item() for g in gradients if g is not None) ** 0.5


@torch.inference_mode()
def kl_to_reference(actor: LanguageModel, reference: LanguageModel, samples: Sequence[ActorExample]) -> float:
    """Return the mean KL divergence a token from the actor to the reference, exact over the vocabulary, on the samples.

    nan without samples. Of the samples' prefixes, which another policy may have drawn.
    """
    total, num_tokens = 0.0, 0
    for sample in _spread_over(samples):
        batch = actor.collate([sample.prompt], [sample.program])
        ours = _log_softmax(actor, batch)
        theirs = _log_softmax(reference, batch.to(reference.device)).to(ours.device)
        total += (ours.exp() * (ours - theirs)).sum().item()
        num_tokens += len(sample.program)
    return total / num_tokens if num_tokens else float("nan")


def _log_softmax(model: LanguageModel, batch: Batch) -> Float[Tensor, "T V"]:
    """Return log p(w | w_<t, D) of every token of the vocabulary, for a batch of one program."""
    logits = model.read(batch, with_logits=True).logits
    assert logits is not None
    return logits[0].float().log_softmax(-1)


def _spread_over(samples: Sequence[ActorExample]) -> list[ActorExample]:
    if len(samples) <= NUM_SAMPLES:
        return list(samples)
    return [samples[i * len(samples) // NUM_SAMPLES] for i in range(NUM_SAMPLES)]
