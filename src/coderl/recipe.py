"""One recipe, one `RunConfig`: the settings of every stage composed once, read from TOML and dotted flags."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from coderl.critic_sampling.settings import CriticSamplingConfig
from coderl.engines.settings import SampleConfig, SamplingConfig
from coderl.execution import ExecutionConfig
from coderl.models.settings import TinyConfig
from coderl.prompts import PromptConfig
from coderl.rl.settings import ActorTrainingConfig, ReturnsConfig
from coderl.settings import Config, Count, explain
from coderl.training.settings import CriticConfig, PretrainConfig, RepairConfig, WarmStartConfig
from coderl.types import InputError


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


class ActorConfig(Config):
    """The policy's backbone."""

    init: str = "tiny"
    """`tiny` (a T5 from nothing), a model folder, or a hub name."""
    tiny: TinyConfig = TinyConfig()


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
