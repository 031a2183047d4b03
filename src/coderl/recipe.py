"""One recipe, one `RunConfig`: the stages' configs composed once, read from TOML and dotted flags."""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coderl.codexglue.pairs import Task
from coderl.critic.model import Pooling
from coderl.critic_sampling.search import CriticSamplingConfig
from coderl.engines.actor import PromptConfig
from coderl.engines.transformers import SamplingConfig
from coderl.execution import ExecutionConfig
from coderl.rl.returns import AdvantageFilter, Baseline, Spread
from coderl.rl.staged import ActorTrainingConfig
from coderl.training.critic import CriticTrainingConfig
from coderl.training.optim import OptimConfig
from coderl.training.warm_start import WarmStartConfig
from coderl.types import InputError

Count = Annotated[int, Field(ge=1)]


class Config(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ProblemsConfig(Config):
    """Which problems train, validate and test; the three never overlap."""

    source: str = "miniapps"
    """A file or folder of problems, `miniapps`, or `hub:owner/name`."""
    test_source: str | None = None
    """Where the test problems are, if elsewhere."""
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"
    num_train: Count | None = None
    """Use only the first so many training problems."""
    num_validation: Count | None = None
    num_test: Count | None = None
    drop_overlap: bool = False
    """Leave out of training and validation what also stands, word for word, in validation or test, as in MBPP; else
    such a problem is refused."""
    num_shown_tests: Annotated[int, Field(ge=0)] | None = None
    """MBPP: how many of a task's asserts its prompt shows."""


class TinyConfig(Config):
    """An encoder-decoder trained from nothing, with its tokenizer, for machines without a GPU."""

    vocab_size: Count = 1000
    d_model: Count = 128
    d_ff: Count = 384
    num_layers: Count = 2
    num_heads: Count = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class ActorConfig(Config):
    """The policy's backbone."""

    init: str = "tiny"
    """`tiny` (a T5 from nothing), a model folder, or a hub name."""
    tiny: TinyConfig = TinyConfig()


class PretrainConfig(Config):
    """Masked spans, then next tokens (section 3.2): on the solutions' source text, or on a corpus."""

    corpus: Path | None = None
    """What `build-corpus` wrote; None: the solutions of the problems."""
    num_shards: Count | None = None
    """Only the first so many of the corpus's training shards, each of which is a sample of all its projects."""
    masked_span: OptimConfig | None = None
    next_token: OptimConfig | None = None
    window_tokens: Annotated[int, Field(ge=4)] = 512
    """The corpus's files are joined and cut every so many tokens."""
    num_validation: Count = 256
    """Windows of the corpus's validation split that the loss is reported on."""


class SampleConfig(Config):
    """How many programs a problem, and how they are drawn."""

    num_samples: Count = 8
    sampling: SamplingConfig = SamplingConfig()
    chunk_size: Count = 32
    """Problems a model call; also what a killed run may have to draw again."""


class SelectionConfig(Config):
    """How the actor of each round is judged on validation problems, and when the rounds end."""

    num_problems: Count | None = 100
    """Use only the first so many validation problems; None for all."""
    num_samples: Count = 4
    """Programs a problem, drawn as those of the rounds are."""
    max_drop: Annotated[float, Field(gt=0, le=1)] = 0.05
    """The rounds end when the share of right programs is so far below the best so far."""


class RoundsConfig(Config):
    """Sampling, execution, critic and actor update, repeated (the paper: once, offline)."""

    num_rounds: Count = 1
    problems_per_round: Count | None = None
    """Problems sampled in a round, the next ones in a shuffled order; None for all."""
    num_replayed: Annotated[int, Field(ge=0)] = 0
    """Earlier rounds whose samples, with the returns they had then, are trained on again in each round."""
    sample: SampleConfig = SampleConfig()
    selection: SelectionConfig | None = SelectionConfig()
    """The run's actor is that of the last round that none beats clearly on validation problems; None: the last."""


class CriticConfig(Config):
    """The error predictor."""

    init: Literal["actor"] | str = "actor"
    """`actor` (a copy of the warm-started actor's backbone), a model folder, or a hub name; its tokenizer must be the
    actor's."""
    num_layers: Count | None = None
    """Keep only so many of the model's first layers: a critic can be smaller than its actor, as the paper's is."""
    pooling: Pooling = "prefix"
    """What a prefix is judged by; `legacy` is the original's code."""
    uses_likelihood: bool = True
    """Show the linear layer how likely the model itself finds the program (ours)."""
    all_rounds: bool = True
    """Train in each round on the samples of all rounds so far, not on the last one's alone."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the problems that it is never trained on: half of them to stop early and to fit its temperature, the
    other half to measure it on."""
    use_solutions: bool = False
    """Train also on reference solutions, as PassedTest, as the original does."""
    training: CriticTrainingConfig = CriticTrainingConfig()


class ReturnsConfig(Config):
    """What multiplies the gradient of log p (sections 3.3.1 to 3.3.3)."""

    baseline: Baseline = "greedy"
    spread: Spread = "critic"
    mean_one: bool = False
    """Divide the critic's values of a program by their mean, so that they say where its return goes and not how much of
    it there is."""
    filter: AdvantageFilter = "all"
    negative_scale: Annotated[float, Field(ge=0, le=1)] = 0.5
    count_copies: bool = True
    """Whether a program drawn again for a problem counts again (the policy gradient) or once: then a problem that is
    always solved weighs no more than one that was solved for the first time."""


class RepairConfig(Config):
    """The program-repair model (Eq. 13)."""

    training: WarmStartConfig = WarmStartConfig()
    max_pairs: Count = 20_000
    use_samples: bool = True
    """What a failed program should become is also a sample that passed the training problem's hidden tests (ours), so
    that problems without a solution teach repair too; off, as in the paper, a reference solution only."""


class EvaluationConfig(Config):
    """Test programs a model, and what is reported of them."""

    num_samples: Count = 5
    ks: tuple[Count, ...] = (1, 5)
    temperatures: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.6, 0.2)
    """Every model is evaluated at each; the first is the headline's."""
    sampling: SamplingConfig = SamplingConfig()
    ce_control: bool = True
    """Train a control with more cross-entropy for the CPU time that reinforcement learning took."""
    ce_control_steps: Count | None = None
    """Train the control for so many updates instead: the clock is never the same twice, and this is."""
    search_control: bool = True
    """Draw plain samples of as many tokens as critic sampling, and rank both, for curves at equal cost."""
    control_beside: bool = False
    """Train the control in a process beside the other evaluations: for machines with a core to spare."""


class CodexglueConfig(WarmStartConfig):
    """Fine-tuning on a task of CodeXGLUE; what is not given is CodeT5's for the task, see `codexglue_config`."""

    max_source_tokens: Annotated[int, Field(ge=8)] = 320
    """A longer text to read loses its middle."""
    max_target_tokens: Annotated[int, Field(ge=8)] = 256
    """A longer text to write is cut."""


def codexglue_config(task: Task, given: CodexglueConfig) -> CodexglueConfig:
    """Return the settings of CodeT5-base for a task, those that `given` names in their place.

    Source: CodeT5's `sh/run_exp.py`: AdamW without decay, 1,000 steps of warm-up, then linearly to 0. Deviation: the
        weights kept are those of the lowest validation loss (there also of the best BLEU), gradients are clipped, and
        small refinement has the lengths of the medium one (there 130 and 120).
    """
    lengths, num_epochs, patience, batch_size, rate = {
        "code-to-text": ((256, 128), 15, 2, 48, 5e-5),
        "text-to-code": ((320, 150), 30, 3, 32, 1e-4),
        "code-to-code": ((320, 256), 100, 5, 25, 5e-5),
        "refinement": ((240, 240), 50, 5, 32, 5e-5),
    }[task]
    optim = {"num_epochs": num_epochs, "patience": patience, "batch_size": batch_size, "learning_rate": rate,
             "schedule": "linear", "warmup_steps": 1000, "weight_decay": 0.0,
             "checkpoint_every_steps": 500}  # fmt: skip
    own = given.model_dump(exclude_unset=True)
    settings = {"max_source_tokens": lengths[0], "max_target_tokens": lengths[1], **own}
    return CodexglueConfig.model_validate({**settings, "optim": {**optim, **own.get("optim", {})}})


class RunConfig(Config):
    """A whole run, from problems to report."""

    name: str = "run"
    seed: int = 0
    num_threads: Count | None = None
    """Torch threads; None leaves the choice to torch."""
    problems: ProblemsConfig = ProblemsConfig()
    prompt: PromptConfig = PromptConfig()
    actor: ActorConfig = ActorConfig()
    pretrain: PretrainConfig = PretrainConfig()
    warm_start: WarmStartConfig | None = WarmStartConfig()
    rounds: RoundsConfig = RoundsConfig()
    execution: ExecutionConfig = ExecutionConfig()
    critic: CriticConfig = CriticConfig()
    binary_critic: CriticConfig = CriticConfig()
    returns: ReturnsConfig = ReturnsConfig()
    actor_training: ActorTrainingConfig = ActorTrainingConfig()
    search_pool: SampleConfig | None = None
    """Programs that the run's actor draws for training problems: what binary critic and repair model learn from beside
    those of the rounds. None: from the rounds alone."""
    repair: RepairConfig | None = RepairConfig()
    critic_sampling: CriticSamplingConfig | None = CriticSamplingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the run that a TOML recipe and dotted flags (`--warm-start.learning-rate 1e-4`) describe.

    Raises:
        InputError: the file is missing or not TOML, a key is unknown, or a value is not what its key takes.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe") from None
    except (ValueError, RecursionError, IsADirectoryError) as error:  # also of a number of too many digits
        raise InputError(f"{path}: not a TOML recipe ({error})") from None
    for name, value in _flags(overrides):
        _set(settings, name, value)
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error, RunConfig)}") from None


def _flags(tokens: Sequence[str]) -> list[tuple[str, Any]]:
    pairs, rest = [], list(tokens)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--"):
            raise InputError(f"{flag!r}: expected a flag such as --warm-start.learning-rate 1e-4")
        name, equals, value = flag[2:].partition("=")
        if not equals:
            if not rest:
                raise InputError(f"{flag}: expected a value after it")
            value = rest.pop(0)
        pairs.append((name.replace("-", "_"), _literal(value)))
    return pairs


def _literal(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None if text.lower() == "none" else text


def _set(settings: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        settings = settings.setdefault(parent, {})
        if not isinstance(settings, dict):
            raise InputError(f"--{name}: {parent} is a value, not a group of settings")
    settings[last] = value


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return one line for the first thing wrong with some settings, naming the nearest known key."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    name = ".".join(location)
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"unknown key {name!r}; {hint}"
    return f"{name} = {first['input']!r}: {first['msg'].lower()}"


def _keys_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    for part in location:
        field = model.model_fields.get(part)
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((m for m in map(_model_in, typing.get_args(annotation)) if m), None)
    return None
