"""One recipe, one `RunConfig`: the settings of every stage composed once, read from TOML and dotted flags."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Dict as FromDict
from pydantic import Field, ValidationError, model_validator

from coderl.critic_sampling.settings import CriticSamplingConfig
from coderl.engines.settings import SampleConfig, SamplingConfig
from coderl.execution import ExecutionConfig
from coderl.flags import MANY, spread_lists
from coderl.models.settings import TinyConfig
from coderl.prompts import PromptConfig
from coderl.rl.settings import ActorTrainingConfig, OnlineConfig, ReturnsConfig
from coderl.settings import Config, Count, Reads, explain
from coderl.training.settings import CriticConfig, PretrainConfig, RepairConfig, WarmStartConfig
from coderl.types import InputError

RECIPE = "recipe.json"
"""The resolved configuration of a run; one that is refused does not replace it."""


class ProblemsConfig(Config):
    """Which problems train, validate and test; the three never overlap."""

    source: Annotated[str, Reads()] = "miniapps"
    """A file or folder of problems, `miniapps`, or `hub:owner/name`."""
    test_source: Annotated[str | None, Reads()] = None
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

    num_rounds: Annotated[int, Field(ge=0)] = 1
    """0: none, for a run that learns online only."""
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
    chunk_size: Count = 32
    """Test problems a part: what a killed run may have to draw again, and what several processes share."""
    ce_control: bool = True
    """Train a control with more cross-entropy, on as many tokens as reinforcement learning drew and trained on."""
    ce_control_steps: Count | None = None
    """Train the control for so many updates instead: the clock is never the same twice, and this is."""
    search_control: bool = True
    """Draw plain samples of as many tokens as critic sampling, and rank both, for curves at equal cost."""
    control_beside: bool = False
    """Train the control in a process beside the other evaluations: for machines with a core to spare."""

    @model_validator(mode="after")
    def _has_one_place_for_temperatures(self) -> EvaluationConfig:
        if self.sampling.temperature != SamplingConfig().temperature:
            raise ValueError("sampling.temperature is not used here: give evaluation.temperatures")
        return self

    @model_validator(mode="after")
    def _draws_enough(self) -> EvaluationConfig:
        if max(self.ks, default=1) > self.num_samples:
            raise ValueError(f"ks: pass@{max(self.ks)} needs as many programs, and num_samples is {self.num_samples}")
        return self


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
    online: OnlineConfig | None = None
    """Online learning, after the rounds; None: the rounds alone."""
    search_pool: SampleConfig | None = None
    """Programs that the run's actor draws for training problems: what binary critic and repair model learn from beside
    those of the rounds. None: from the rounds alone."""
    repair: RepairConfig | None = RepairConfig()
    critic_sampling: CriticSamplingConfig | None = CriticSamplingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the run that a TOML recipe and dotted flags (`--warm-start.optim.learning-rate 1e-4`) describe.

    Raises:
        InputError: the file is missing or not TOML, a key is unknown, or a value is not what its key takes.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe") from None
    except (ValueError, RecursionError, IsADirectoryError) as error:  # also of a number of too many digits
        raise InputError(f"{path}: not a TOML recipe ({error})") from None
    try:
        config = RunConfig.model_validate(settings)
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error, RunConfig)}") from None
    return with_flags(config, settings, overrides) if overrides else config


def with_flags(config: RunConfig, settings: dict[str, Any], flags: Sequence[str]) -> RunConfig:
    """Return the run with some settings given anew by flags, parsed as those of any command.

    Args:
        config: what the settings are without flags.
        settings: as the recipe gives them.
        flags: `--rounds.num-rounds 3`, `--rounds.num-rounds=3` or `rounds.num_rounds=3`.

    Raises:
        InputError: a flag is unknown or does not take its value.
    """
    app = App(
        default_parameter=MANY,
        config=FromDict(settings, source="the recipe", use_commands_as_keys=False),
        help_flags=(),
        version_flags=(),
    )

    @app.default
    def collect(*, config: Annotated[RunConfig, Parameter(name="*")] = config) -> RunConfig:
        return config

    dashed = [f"--{flag}" if re.match(r"[a-z][\w.]*=", flag) else flag for flag in spread_lists(flags)]
    try:
        return app(dashed, exit_on_error=False, print_error=False, result_action="return_value")
    except ValidationError as error:
        raise InputError(explain(error, RunConfig)) from None
    except CycloptsError as error:
        cause = error.__cause__
        raise InputError(
            explain(cause, RunConfig) if isinstance(cause, ValidationError) else " ".join(str(error).split())
        ) from None
