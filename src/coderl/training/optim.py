"""What the optimisation loop depends on, as pure functions: its settings, the rate of a step, the order of examples."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from coderl.training.checkpoint import Progress
from coderl.training.settings import OptimConfig
from coderl.types import InputError

E = TypeVar("E")

DEFAULT_NUM_EPOCHS = 10
BUCKET_BATCHES = 32
"""Batches that are sorted by length together: enough to fill batches with like lengths, few enough to stay random."""


PAPER_RATE, PAPER_WEIGHTS, MAX_RATE = 2e-5, 770e6, 2e-3
"""The paper's rate for CodeT5-large, and the largest that suits a small model by itself."""


def suitable_rate(config: OptimConfig, model: nn.Module, share: float = 1.0) -> OptimConfig:
    """Return the settings with a peak rate: the one given, or a share of what suits the model's number of weights.

    Source: CodeRL section 4.2 for 2e-5 at 770 million weights. Deviation: fewer weights take more, by the inverse of
        the square root of their number; with 2e-5 a model of 0.3 million learns nothing (docs/experiments.md).
    """
    if config.learning_rate is not None:
        return config
    num_weights = max(sum(p.numel() for p in model.parameters()), 1)
    rate = 0.01 if config.optimiser == "adafactor" else min(PAPER_RATE * (PAPER_WEIGHTS / num_weights) ** 0.5, MAX_RATE)
    return config.model_copy(update={"learning_rate": share * rate})


def learning_rate(config: OptimConfig, step: int, fraction_done: float) -> float:
    """Return the rate of update `step` (1 for the first) when `fraction_done` of the run lies behind it.

    Source: CodeRL section 4.2 for warm-up and polynomial decay with power 0.5. Deviation: the decay counts from the
        first step, not from the end of the warm-up, so that it is also known for runs that end after a time.
    """
    warmup = min(1.0, step / config.warmup_steps) if config.warmup_steps else 1.0
    left = max(0.0, 1.0 - fraction_done)
    decay = {"constant": 1.0, "linear": left, "polynomial": left**config.power}[config.schedule]
    assert config.learning_rate is not None, "see `suitable_rate`"
    floor = 0.0 if config.schedule == "constant" else min(config.min_learning_rate, config.learning_rate)
    return warmup * (floor + (config.learning_rate - floor) * decay)


def plan_batches(
    lengths: Sequence[int],
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    bucket_by_length: bool = True,
    group_sizes: Sequence[int] | None = None,
) -> list[list[int]]:
    """Return the positions of the examples of each batch of one epoch, every example once, the same for the same seed.

    Args:
        lengths: of each example.
        batch_size: the last batch (of a group) may be smaller.
        seed: with `epoch`, what the order depends on.
        epoch: 0 for the first.
        bucket_by_length: examples of like length share a batch; the order of batches stays random.
        group_sizes: how many examples, in order, lie in each place (a shard on disk); one place after the other, in
            random order, is then used up. None: they are all at hand.
    """
    rng = np.random.default_rng([seed, epoch])
    if group_sizes is None:
        return _shuffled_batches(range(len(lengths)), lengths, batch_size, rng, bucket_by_length)
    starts = np.cumsum([0, *group_sizes])
    plan = []
    for group in rng.permutation(len(group_sizes)):
        rows = range(int(starts[group]), int(starts[group + 1]))
        plan += _shuffled_batches(rows, lengths, batch_size, rng, bucket_by_length)
    return plan


def _shuffled_batches(
    rows: range, lengths: Sequence[int], batch_size: int, rng: np.random.Generator, bucket_by_length: bool
) -> list[list[int]]:
    order = [rows[i] for i in rng.permutation(len(rows)).tolist()]
    if bucket_by_length:
        span = batch_size * BUCKET_BATCHES
        groups = [order[start : start + span] for start in range(0, len(order), span)]
        order = [i for group in groups for i in sorted(group, key=lambda i: lengths[i])]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if bucket_by_length:
        rng.shuffle(batches)  # type: ignore[arg-type]
    return batches


def split_by_tokens(examples: Sequence[E], length_of: Callable[[E], int], max_tokens: int) -> list[list[E]]:
    """Return the examples in parts of like length of at most so many tokens, padding included, or of one example."""
    parts: list[list[E]] = []
    for example in sorted(examples, key=length_of):
        if parts and (len(parts[-1]) + 1) * length_of(example) <= max_tokens:
            parts[-1].append(example)
        else:
            parts.append([example])
    return parts or [[]]


def fraction_done(config: OptimConfig, progress: Progress) -> float:
    """Return how much of the run lies behind, by whichever limit comes first."""
    is_unlimited = all(
        limit is None for limit in (config.num_epochs, config.num_steps, config.max_tokens, config.max_cpu_s)
    )
    limits = [
        (progress.step, config.num_steps),
        (progress.epochs_done, DEFAULT_NUM_EPOCHS if is_unlimited else config.num_epochs),
        (progress.num_tokens, config.max_tokens),
        (progress.cpu_s, config.max_cpu_s),
    ]
    return max(done / limit for done, limit in limits if limit is not None)


def build_optimiser(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Return the optimiser of a model's trainable weights, decay on all but norms and biases.

    Source: Adafactor as in Shazeer and Stern 2018, which pretrained T5; no momentum. Deviation: the original decays
        T5's norm weights by mistake.
    """
    assert config.learning_rate is not None, "see `suitable_rate`"
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if _decays(name, p)], "weight_decay": config.weight_decay},
        {"params": [p for name, p in named if not _decays(name, p)], "weight_decay": 0.0},
    ]
    if config.optimiser == "adafactor":
        return torch.optim.Adafactor(groups, config.learning_rate)
    return torch.optim.AdamW(groups, config.learning_rate, config.betas, fused=True)


def precision_of(config: OptimConfig) -> str | None:
    """Return in which precision to compute: what is asked for, else what the launcher says, else by the hardware.

    None leaves it to `accelerate launch`; without one a GPU that computes in bfloat16 does, and a processor does not.
    """
    if config.mixed_precision is not None or "ACCELERATE_MIXED_PRECISION" in os.environ:
        return config.mixed_precision
    is_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if is_gpu else None


def prepare_backbones(model: nn.Module, config: OptimConfig) -> None:
    """Set how the pretrained networks within a model compute attention and keep activations, as the settings say.

    Raises:
        InputError: a network cannot compute attention so, or the package for it is missing.
    """
    backbones = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    for backbone in backbones:
        if config.gradient_checkpointing and backbone.supports_gradient_checkpointing:
            enable = getattr(backbone, "activation_checkpointing_enable", backbone.gradient_checkpointing_enable)
            enable({"use_reentrant": False})
        if config.attention is not None:
            try:
                backbone.set_attn_implementation(config.attention)
            except (ValueError, ImportError) as error:
                raise InputError(f"attention = {config.attention!r}: {' '.join(str(error).split())}") from None


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and "bias" not in name
