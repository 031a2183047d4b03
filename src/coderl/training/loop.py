"""The one optimisation loop: examples and a loss -> new weights, as a generator of step metrics.

Every training stage is this loop with another loss. It runs on `accelerate`, so that `accelerate launch` gives it many
processes and mixed precision. What a run does depends on its settings and examples alone: the order of examples comes
from (seed, epoch) and the dropout of a part of a batch from (seed, step, part), so that a run that was killed and
resumed ends with the same weights, bit for bit on a CPU, whatever the caller does between steps.

On CPUs that holds for any number of processes. A batch is worked off in `gradient_accumulation_steps` parts, which the
processes share, and gradients are added in the order of the parts (`gradients.OrderedSum`). A batch of one part is
worked off by every process alike. On GPUs a batch has that many parts for each process, and sums are as equal as
rounding lets them be.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, DistributedType
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from coderl import processes
from coderl.records import atomic_path
from coderl.training import checkpoint
from coderl.training.checkpoint import Progress
from coderl.training.gradients import OrderedSum
from coderl.training.losses import as_numbers
from coderl.training.optim import (
    build_optimiser,
    fraction_done,
    learning_rate,
    plan_batches,
    precision_of,
    prepare_backbones,
    split_by_tokens,
    suitable_rate,
)
from coderl.training.settings import OptimConfig
from coderl.types import InputError

E = TypeVar("E")
LossFn = Callable[..., tuple[Tensor, Any]]
"""loss_fn(model, examples) -> (mean loss over the examples, `losses.Figures` to log). A third parameter named `whole`
says that the function divides by the size of `whole` instead, of which `examples` are a part: then the loss of a batch
does not depend on how it is split over processes and accumulation steps."""
Validate = Callable[[], dict[str, float]]


@runtime_checkable
class Stateful(Protocol):
    """Examples that depend on what came before them, which is kept in a run's checkpoints."""

    def state(self) -> dict[str, Any]:
        """Return it as JSON values."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` returned."""
        ...


class StoredExamples(Sequence[E]):
    """Examples that are read or drawn when they are asked for, one place on disk after the other."""

    group_sizes: Sequence[int]
    """How many examples, in order, lie in each place."""

    def lengths(self) -> Sequence[int]:
        """Return the tokens of each example, for batches of like length, without drawing them."""
        raise NotImplementedError


BEST_FILE = "best.safetensors"


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """What one update did."""

    step: int
    """1 for the first."""
    epoch: float
    """Passes over the examples so far."""
    loss: float
    learning_rate: float
    grad_norm: float
    """Before clipping."""
    num_examples: int
    num_tokens: int
    """Tokens of prompts and programs since the run began, where it is known what an example has."""
    cpu_s: float
    """CPU-seconds of updates since the run began, earlier parts of a resumed run included."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The loss's own figures."""
    validation: dict[str, float] = field(default_factory=dict)
    """Of a validation after this step; `start_...` in the first step are those before it."""

    def record(self) -> dict[str, int | float]:
        """Return everything as one flat JSON object."""
        own = {name: getattr(self, name) for name in self.__slots__ if name not in ("metrics", "validation")}
        return {**own, **self.metrics, **{f"validation_{name}": value for name, value in self.validation.items()}}


class TrainingError(RuntimeError):
    """Training cannot go on: the loss or its gradient is not a finite number."""


# ----------------------------------------------------------------------------------------------------- the loop


def train(
    model: nn.Module,
    examples: Sequence[E] | Callable[[int], Sequence[E]],
    loss_fn: LossFn,
    config: OptimConfig,
    *,
    checkpoint_dir: Path | None = None,
    length_of: Callable[[E], int] | None = None,
    validate: Validate | None = None,
) -> Iterator[StepMetrics]:
    """Yield the metrics of each update of `model`, in place; when the generator ends, so has training.

    Whoever stops asking stops training: the weights are then those of the last step.

    Args:
        model: the weights to move, those that require a gradient.
        examples: fixed, or a function of the epoch (0 for the first) that draws that epoch's; resuming needs it to
            return the same for the same epoch. `StoredExamples` need not be in memory; what `Stateful` ones remember
            from one epoch to the next is kept in the checkpoints.
        loss_fn: see `LossFn`.
        config: when to end, at what rate, in which order.
        checkpoint_dir: where to leave checkpoints; a run found there is resumed, a finished one only loaded.
        length_of: tokens of an example, for batches of like length.
        validate: figures of the current weights; see `keep_best`, `best_metric` and `patience`.

    Raises:
        TrainingError: the loss or the gradient of a step is not finite.
        InputError: `checkpoint_dir` holds another run.
    """
    draw = examples if callable(examples) else lambda epoch: examples
    config = suitable_rate(config, model)
    run = _Run(model, loss_fn, config, checkpoint_dir, validate)
    run.length_of = length_of
    num_examples = None if callable(examples) else len(examples)
    run.state = examples if isinstance(examples, Stateful) else None
    run.resume(num_examples=num_examples)
    progress = run.progress
    while not run.is_done():
        drawn = draw(progress.epoch)
        plan = _plan(drawn, length_of, config, progress.epoch)
        plan = [rows for rows in plan if len(rows) >= run.num_parts]
        if not plan:
            raise ValueError(f"{len(drawn)} examples in epoch {progress.epoch}: too few for one batch")
        for rows in plan[progress.num_batches_done :]:
            metrics = run.update([drawn[i] for i in rows], len(plan))
            yield run.close_step(metrics)
            run.save_where_due()  # after the caller has noted the step, or a kill between the two would lose the note
            if run.is_done():
                break
    run.finish()


def _plan(drawn: Sequence[E], length_of: Callable[[E], int] | None, config: OptimConfig, epoch: int) -> list[list[int]]:
    group_sizes = None
    if isinstance(drawn, StoredExamples):
        lengths, group_sizes = drawn.lengths(), drawn.group_sizes
    else:
        lengths = [length_of(e) for e in drawn] if length_of else [0] * len(drawn)
    bucket = config.bucket_by_length and (length_of is not None or group_sizes is not None)
    return plan_batches(
        lengths, config.batch_size, seed=config.seed, epoch=epoch, bucket_by_length=bucket, group_sizes=group_sizes
    )


class _Objective(nn.Module, Generic[E]):
    """The loss as a module's forward pass, which is where accelerate's wrappers (DDP, FSDP, autocast) take hold."""

    def __init__(self, model: nn.Module, loss_fn: LossFn):
        super().__init__()
        self.model = model
        self.loss_fn = loss_fn
        self.takes_whole = "whole" in inspect.signature(loss_fn).parameters

    def forward(self, part: list[E], whole: list[E]) -> tuple[Tensor, dict[str, Any]]:
        """Return the part's share of the loss and figures of the whole batch."""
        if self.takes_whole:
            return self.loss_fn(self.model, part, whole)
        loss, metrics = self.loss_fn(self.model, part)
        share = len(part) / len(whole)
        return loss * share, {name: value * share for name, value in metrics.items()}


def _refuse_sharded(accelerator: Accelerator) -> None:
    """Refuse the launchers' ways to spread one model over processes.

    Raises:
        InputError: accelerate was told to use FSDP, DeepSpeed or another.
    """
    kinds = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    if accelerator.distributed_type not in kinds:
        raise InputError(
            f"accelerate is set to {accelerator.distributed_type.value}: coderl trains with a whole model in each "
            "process; launch it with torchrun, or with accelerate's multi_gpu or multi_cpu"
        )


class _Run:
    """The state of one call of `train`."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        config: OptimConfig,
        checkpoint_dir: Path | None,
        validate: Validate | None,
    ):
        self.group = processes.group()
        AcceleratorState._reset_state()  # an earlier stage of this process may have used another precision
        on_cpus = processes.environment_size() > 1 and not torch.accelerator.is_available()
        self.accelerator = Accelerator(cpu=on_cpus, mixed_precision=precision_of(config))
        _refuse_sharded(self.accelerator)
        self.config, self.checkpoint_dir, self.validate = config, checkpoint_dir, validate
        self.state: Stateful | None = None
        self.model = model
        self.length_of: Callable[[Any], int] | None = None
        prepare_backbones(model, config)
        optimiser = build_optimiser(model, config)
        is_exact = self.accelerator.device.type == "cpu"  # no wrapper then, whose sums have an order of their own
        is_bare = is_exact or self.group.num_processes == 1
        self.objective = self.accelerator.prepare_model(_Objective(model, loss_fn), evaluation_mode=is_bare)
        self.optimiser = self.accelerator.prepare(optimiser)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.num_parts = config.gradient_accumulation_steps * (1 if is_exact else self.group.num_processes)
        self.ordered_sum: OrderedSum | None = None
        if is_exact and self.group.num_processes > 1 and self.num_parts > 1:
            self.ordered_sum = OrderedSum(self.parameters, self.group.rank, self.group.num_processes)
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None
        self.fingerprint: dict[str, Any] = {}
        self.start_validation: dict[str, float] = {}

    # ------------------------------------------------------------------------------------------ one update

    def update(self, batch: list[E], num_batches: int) -> StepMetrics:
        """Take one step on `batch` and move `progress` past it."""
        progress, config = self.progress, self.config
        rate = learning_rate(config, progress.step + 1, fraction_done(config, progress))
        started = time.process_time()
        loss, metrics = self._backward(batch)
        grad_norm = self._apply(rate)
        progress.cpu_s = self._agreed_cpu_s(progress.cpu_s + time.process_time() - started)
        progress.step += 1
        progress.num_tokens += sum(map(self.length_of, batch)) if self.length_of else 0
        progress.num_batches_done += 1
        progress.epochs_done = progress.epoch + progress.num_batches_done / num_batches
        if progress.num_batches_done == num_batches:
            progress.epoch, progress.num_batches_done = progress.epoch + 1, 0
        return StepMetrics(
            progress.step,
            progress.epochs_done,
            loss,
            rate,
            grad_norm,
            len(batch),
            progress.num_tokens,
            progress.cpu_s,
            metrics,
        )

    def _backward(self, batch: list[E]) -> tuple[float, dict[str, float]]:
        """Compute the gradient of a batch; return its loss and the loss's own figures."""
        self.objective.train()
        parts = [batch[k :: self.num_parts] for k in range(self.num_parts)]
        if self.ordered_sum is not None:
            found = self._exact_gradient(self.ordered_sum, parts, batch)
        else:
            found = self._accumulated_gradient(parts, batch)
        totals: dict[str, float] = {}
        for name, value in (item for figures in found for item in figures.items()):
            totals[name] = totals.get(name, 0.0) + value
        loss = totals.pop("loss")
        if not math.isfinite(loss):
            raise TrainingError(f"the loss of step {self.progress.step + 1} is {loss}: lower the learning rate?")
        return loss, totals

    def _accumulated_gradient(self, parts: list[list[E]], batch: list[E]) -> list[dict[str, float]]:
        """Accumulate the gradients of this process's parts, which accelerate's wrapper adds to those of the others.

        Without a wrapper, on CPUs, every process does the whole batch.
        """
        num_processes = 1 if self.accelerator.device.type == "cpu" else self.group.num_processes
        per_process = len(parts) // num_processes
        first = self.group.rank * per_process if num_processes > 1 else 0
        figures = []
        for number in range(first, first + per_process):
            with self._gradient_sync(is_last=number == first + per_process - 1):
                figures.append(self._gradient_of(number, parts[number], batch, scale=num_processes))
        return figures if num_processes == 1 else [f for of_rank in self.group.gather(figures) for f in of_rank]

    def _exact_gradient(self, ordered_sum: OrderedSum, parts: list[list[E]], batch: list[E]) -> list[dict[str, float]]:
        """Compute one part a process at a time, and add the gradients in the order of the parts."""
        figures: list[dict[str, float]] = []
        are_used = [False] * len(self.parameters)
        for first in range(0, len(parts), self.group.num_processes):
            now = range(first, min(first + self.group.num_processes, len(parts)))
            mine, number = None, first + self.group.rank
            if number in now:
                figures_of_part = self._gradient_of(number, parts[number], batch, scale=1)
                mine = figures_of_part, [p.grad is not None for p in self.parameters]
            told = [answer for answer in self.group.gather(mine) if answer is not None]
            figures += [answer[0] for answer in told]
            are_used = [any(of) for of in zip(are_used, *(answer[1] for answer in told), strict=True)]
            ordered_sum.add(len(now))
        ordered_sum.give_back(are_used)
        return figures

    def _gradient_of(self, number: int, part: list[E], batch: list[E], *, scale: int) -> dict[str, float]:
        """Add the gradient of part `number` of a batch to the parameters' own; return its share of the figures."""
        pieces, most = [part], self.config.max_part_tokens
        if self.length_of is not None and most is not None:
            pieces = split_by_tokens(part, self.length_of, most)
        totals: dict[str, Any] = {}
        with self._randomness_of(number):
            for piece in pieces:
                with self._gradient_sync(is_last=piece is pieces[-1]):
                    loss, metrics = self.objective(piece, batch)
                    self.accelerator.backward(loss * scale)  # accelerate's wrappers average over processes
                for name, value in as_numbers({"loss": loss.detach(), **metrics}).items():
                    totals[name] = totals.get(name, 0.0) + value
        return totals

    def _agreed_cpu_s(self, cpu_s: float) -> float:
        """Return the CPU-seconds that limit the run: those of the main process, or some would go on without others."""
        return cpu_s if self.config.max_cpu_s is None else self.group.on_main(lambda: cpu_s)

    def _apply(self, rate: float) -> float:
        grad_norm = self.accelerator.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        norm = 0.0 if grad_norm is None else float(grad_norm)
        if not math.isfinite(norm) and self.accelerator.mixed_precision != "fp16":  # fp16's scaler skips such steps
            raise TrainingError(f"the gradient of step {self.progress.step + 1} is {norm}: lower the learning rate?")
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad()
        return norm

    def _gradient_sync(self, *, is_last: bool) -> Any:
        return nullcontext() if is_last else self.accelerator.no_sync(self.objective)

    @contextmanager
    def _randomness_of(self, number: int) -> Iterator[None]:
        """Dropout from (seed, step, part) alone, leaving the caller's random numbers as they were."""
        device = self.accelerator.device
        key = [self.config.seed, self.progress.step, number]
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
            yield

    # ------------------------------------------------------------------------------- validation and the end

    def close_step(self, metrics: StepMetrics) -> StepMetrics:
        """Validate where it is due; return the metrics with what validation found."""
        every, is_epoch_end = self.config.validate_every_steps, self.progress.num_batches_done == 0
        is_due = self.progress.step % every == 0 if every else is_epoch_end
        found = dict(self.start_validation)
        self.start_validation = {}
        if self.validate and (is_due or self.is_done()):
            found |= self._validated()
        return dataclasses.replace(metrics, validation=found)

    def save_where_due(self) -> None:
        """Write a checkpoint every so many steps and at the end."""
        every = self.config.checkpoint_every_steps
        if self.checkpoint_dir is not None and (self.is_done() or (every and self.progress.step % every == 0)):
            state = None if self.state is None else self.state.state()
            checkpoint.save(self.accelerator, self.checkpoint_dir, self.progress, self.fingerprint, state)

    def _validated(self) -> dict[str, float]:
        assert self.validate is not None
        was_training = self.model.training
        self.model.eval()
        found = self.group.on_main(self.validate)
        self.model.train(was_training)
        if not self.config.keep_best and self.config.patience is None:
            return found
        value, best = found[self.config.best_metric], self.progress.best_value
        is_better = best is None or (value < best if self.config.best_is == "lowest" else value > best)
        if is_better:
            self.progress.best_value, self.progress.best_step = value, self.progress.step
            self.progress.num_validations_since_best = 0
            self._remember_best()
        else:
            self.progress.num_validations_since_best += 1
        patience = self.config.patience
        self.progress.has_stopped = patience is not None and self.progress.num_validations_since_best >= patience
        return found

    def _remember_best(self) -> None:
        if not self.config.keep_best:
            return
        self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        if self.checkpoint_dir is not None and self.group.is_main:
            with atomic_path(self.checkpoint_dir / BEST_FILE) as temporary:
                save_model(self.model, str(temporary))

    def is_done(self) -> bool:
        """True when a limit is reached or validation has stopped the run."""
        return self.progress.has_stopped or fraction_done(self.config, self.progress) >= 1.0

    def finish(self) -> None:
        """Leave the model with the best weights known, for use."""
        best_file = None if self.checkpoint_dir is None else self.checkpoint_dir / BEST_FILE
        if self.validate and self.config.keep_best and self.progress.best_step != self.progress.step:
            if self.best is not None:
                self.model.load_state_dict(self.best)
            elif best_file is not None and best_file.exists():
                load_model(self.model, str(best_file), device=str(self.accelerator.device))
        self.model.eval()
        self.accelerator.free_memory()

    # ---------------------------------------------------------------------------------------- checkpoints

    def resume(self, *, num_examples: int | None) -> None:
        """Load the last checkpoint, if there is one; else look at the model before its first step."""
        self.fingerprint = {
            "config": self.config.model_dump(mode="json"),
            "number of weights": sum(p.numel() for p in self.parameters),
            "number of examples": num_examples,
        }
        if self.checkpoint_dir is not None:
            self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
            self.progress, kept = checkpoint.restore(self.accelerator, self.checkpoint_dir, self.fingerprint)
            if self.state is not None and kept is not None:
                self.state.load_state(kept)
        if self.validate and self.progress.step == 0:
            self.start_validation = {f"start_{name}": value for name, value in self._validated().items()}
