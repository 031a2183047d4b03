"""Programs with known outcomes -> the critic, stopped, chosen and calibrated on held-out problems."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as column_cross_entropy

from coderl.critic.calibration import PREFIX_FRACTIONS, auroc, fit_temperature
from coderl.critic.columns import outcome_column
from coderl.critic.model import Critic
from coderl.training import losses
from coderl.training.loop import StepMetrics, train
from coderl.training.losses import CriticExample
from coderl.training.settings import CriticTrainingConfig
from coderl.types import InputError, Outcome


def train_critic(
    critic: Critic,
    examples: Sequence[CriticExample],
    config: CriticTrainingConfig,
    *,
    validation: Sequence[CriticExample] = (),
    checkpoint_dir: Path | None = None,
) -> Iterator[StepMetrics]:
    """Yield the metrics of each update of `critic`; it ends with the weights of the lowest validation loss, calibrated.

    Source: CodeRL section 3.3.3. Deviation: the original has no validation and trains for 10 epochs, which over-fits.

    Args:
        critic: of 4 outcomes or binary.
        examples: programs of the training problems; solutions may be among them, as PASSED_TEST.
        config: `optim.patience` counts validations.
        validation: programs of *other* problems; the temperature is fitted on them too.
        checkpoint_dir: see `loop.train`.

    Raises:
        InputError: not one class weight an outcome, or nothing to train.
    """
    weights = class_weights_of(examples, critic.num_outcomes, config)
    if config.optim is None and (not config.fit_head or critic.pooling == "legacy"):
        raise InputError("a critic needs an optimiser: fit_head is off, or its pooling is `legacy`")
    if config.fit_head and critic.pooling != "legacy" and not (checkpoint_dir and any(checkpoint_dir.glob("step-*"))):
        fit_head(critic, examples, l2=config.head_l2, class_weights=weights, prefix_weight=config.prefix_weight)
    if config.optim is not None:
        yield from train(
            critic,
            examples,
            partial(losses.critic_loss_of, class_weights=weights, prefix_weight=config.prefix_weight),
            config.optim,
            checkpoint_dir=checkpoint_dir,
            length_of=losses.num_tokens,
            validate=partial(critic_validation, critic, validation, config) if validation else None,
        )
    calibrate(critic, validation)


def class_weights_of(
    examples: Sequence[CriticExample], num_outcomes: int, config: CriticTrainingConfig
) -> Sequence[float] | None:
    """Return one weight an outcome, or None where all count alike.

    Raises:
        InputError: the config has another number of them.
    """
    if config.class_weights == "none":
        return None
    if config.class_weights == "balanced":
        columns = [outcome_column(e.outcome, num_outcomes) for e in examples for _ in range(e.num_copies)]
        return losses.balanced_weights(columns, num_outcomes)
    if len(config.class_weights) != num_outcomes:
        raise InputError(f"class_weights {config.class_weights}: expected {num_outcomes} numbers")
    return config.class_weights


# ------------------------------------------------------------------------------------------------- the linear layer


@torch.no_grad()
def fit_head(
    critic: Critic,
    examples: Sequence[CriticExample],
    *,
    l2: float,
    class_weights: Sequence[float] | None = None,
    prefix_weight: float = 0.0,
    batch_size: int = 64,
) -> None:
    """Set the critic's linear layer to the minimum of its loss over the examples, the network below it held fixed.

    Multinomial logistic regression by L-BFGS. Source: Kumar et al. 2022, who show that fine-tuning a network under a
    random linear layer spoils what it knew.

    Args:
        critic: not of `legacy` pooling.
        examples: programs with outcomes.
        l2: of the states' weights, on inputs of mean 0 and standard deviation 1; the likelihoods' is a fortieth.
        class_weights: one an outcome column.
        prefix_weight: of the prefixes of a quarter, a half and three quarters of each program, together.
        batch_size: programs in a forward pass.
    """
    assert isinstance(critic.head, nn.Linear)
    inputs, columns, weights = _head_rows(critic, examples, class_weights, prefix_weight, batch_size)
    share = (weights / weights.sum()).unsqueeze(-1)
    shift = (inputs * share).sum(0)
    scale = ((inputs - shift).square() * share).sum(0).sqrt().clamp(min=1e-6)
    penalties = inputs.new_full((inputs.shape[1],), l2)
    penalties[critic.num_states :] /= 40
    weight, bias = _logistic_regression((inputs - shift) / scale, columns, weights, critic.num_outcomes, penalties)
    weight = weight / scale
    critic.head.weight.copy_(weight)
    critic.head.bias.copy_(bias - weight @ shift)


def _head_rows(
    critic: Critic,
    examples: Sequence[CriticExample],
    class_weights: Sequence[float] | None,
    prefix_weight: float,
    batch_size: int,
) -> tuple[Float[Tensor, "R I"], Int[Tensor, " R"], Float[Tensor, " R"]]:
    """Return inputs, column and weight of each program, and of its prefixes where they count."""
    critic.eval()
    order = sorted(examples, key=losses.num_tokens)
    rows, columns, weights = [], [], []
    shares = PREFIX_FRACTIONS if prefix_weight else (1.0,)
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        programs, prefixes = critic.head_inputs(
            critic.model.collate([e.prompt for e in part], [e.program for e in part])
        )
        for row, example in enumerate(part):
            column = outcome_column(example.outcome, critic.num_outcomes)
            for share in shares:
                position = math.ceil(share * len(example.program)) - 1
                is_whole = share == 1.0
                rows.append((programs if is_whole else prefixes)[row, position].float())
                columns.append(column)
                weight = 1.0 if is_whole else prefix_weight / (len(shares) - 1)
                weights.append(weight * example.num_copies * (class_weights[column] if class_weights else 1.0))
    device = critic.model.device
    return torch.stack(rows), torch.tensor(columns, device=device), torch.tensor(weights, device=device)


def _logistic_regression(
    inputs: Float[Tensor, "R I"],
    columns: Int[Tensor, " R"],
    weights: Float[Tensor, " R"],
    num_outcomes: int,
    penalties: Float[Tensor, " I"],
) -> tuple[Float[Tensor, "U I"], Float[Tensor, " U"]]:
    with torch.enable_grad():
        weight = inputs.new_zeros(num_outcomes, inputs.shape[1]).requires_grad_()
        bias = inputs.new_zeros(num_outcomes).requires_grad_()
        optimiser = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            each = column_cross_entropy(inputs @ weight.T + bias, columns, reduction="none")
            loss = (each * weights).sum() / weights.sum() + (penalties * weight.square()).sum()
            loss.backward()
            return loss

        optimiser.step(closure)  # type: ignore[arg-type]
    return weight.detach(), bias.detach()


# --------------------------------------------------------------------------------------------------- held-out programs


@torch.inference_mode()
def calibrate(critic: Critic, examples: Sequence[CriticExample]) -> None:
    """Set the critic's temperature to what fits the outcomes of the examples best; 1 without examples."""
    logits = _program_logits(critic, examples, batch_size=64)
    columns = [outcome_column(e.outcome, critic.num_outcomes) for e in examples]
    copies = [float(e.num_copies) for e in examples]
    critic.temperature.fill_(fit_temperature(logits, columns, weights=copies))


def _program_logits(critic: Critic, examples: Sequence[CriticExample], batch_size: int) -> list[list[float]]:
    critic.eval()
    order = sorted(range(len(examples)), key=lambda i: losses.num_tokens(examples[i]))
    rows: list[list[float]] = [[] for _ in examples]
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        batch = critic.model.collate([examples[i].prompt for i in part], [examples[i].program for i in part])
        for i, row in zip(part, critic.program_logits(batch).float().tolist(), strict=True):
            rows[i] = row
    return rows


@torch.inference_mode()
def critic_validation(
    critic: Critic, examples: Sequence[CriticExample], config: CriticTrainingConfig
) -> dict[str, float]:
    """Return the unweighted loss (with the prefix term, if trained), accuracy and AUROC of passing on the examples."""
    order = sorted(examples, key=losses.num_tokens)
    batch_size = 64 if config.optim is None else config.optim.batch_size
    totals: dict[str, float] = {}
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        loss, metrics = losses.critic_loss_of(critic, part, order, prefix_weight=config.prefix_weight)
        for name, value in losses.as_numbers({"loss": loss.detach(), **metrics}).items():
            totals[name] = totals.get(name, 0.0) + value
    scores = [torch.tensor(row).softmax(-1)[-1].item() for row in _program_logits(critic, order, batch_size)]
    counted = [
        (s, e.outcome is Outcome.PASSED_TEST) for s, e in zip(scores, order, strict=True) for _ in range(e.num_copies)
    ]
    totals["auroc"] = auroc([s for s, _ in counted], [p for _, p in counted])
    return totals
