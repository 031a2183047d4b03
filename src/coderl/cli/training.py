"""Commands for the stages that train."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from coderl import problems as data
from coderl.cli.apps import Flat, app
from coderl.prompts import PromptConfig
from coderl.rl.settings import ActorTrainingConfig, ReturnsConfig
from coderl.stages import learning, stages
from coderl.stages.console import Reporter
from coderl.training.settings import CriticConfig, RepairConfig, WarmStartConfig
from coderl.types import InputError


@app.command(name="warm-start")
def warm_start(
    *,
    actor: str,
    problems: str,
    out: Path,
    split: str | None = None,
    limit: int | None = None,
    config: Annotated[WarmStartConfig, Flat] = WarmStartConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Fine-tune the actor on reference solutions by cross-entropy.

        coderl warm-start --actor models/smollm2-135m-instruct --problems data/mbpp/mbpp.jsonl --split train \
            --out runs/mbpp/warm-start --optim.num-epochs 2

    Args:
        actor: A model folder or hub name.
        problems: A file or folder of problems, `miniapps`, or `hub:owner/name`.
        out: The stage's folder; the model goes to OUT/model.
        split: Only this split of the problems.
        limit: Only the first so many problems.
    """
    learning.warm_start(
        out,
        actor=actor,
        problems=data.load(problems, split=split, limit=limit),
        config=config,
        prompt=prompt,
        reporter=Reporter(),
    )


@app.command(name="train-critic")
def train_critic(
    *,
    init: str,
    programs: list[Path],
    verdicts: list[Path],
    problems: str,
    out: Path,
    split: str | None = None,
    binary: bool = False,
    config: Annotated[CriticConfig, Flat] = CriticConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Train the critic to predict what becomes of programs.

        coderl train-critic --init runs/mbpp/warm-start/model --programs runs/mbpp/sample \
            --verdicts runs/mbpp/execute --problems data/mbpp/mbpp.jsonl --out runs/mbpp/critic

    Args:
        init: A critic to go on from, or a language model to begin one from.
        programs: Folders of `sample` stages.
        verdicts: Folders of `execute` stages, one for each of the former.
        problems: Where the programs' problems are.
        out: The stage's folder; the critic goes to OUT/model.
        split: Only this split of the problems.
        binary: Two outcomes (passed or not) for critic sampling, in place of four.
    """
    learning.train_critic(
        out,
        init=init,
        pools=_pairs(programs, verdicts),
        problems=data.load(problems, split=split),
        config=config,
        num_outcomes=2 if binary else 4,
        prompt=prompt,
        reporter=Reporter(),
    )
    print(json.dumps(stages.facts_of(out), indent=2))


def _pairs(programs: Sequence[Path], verdicts: Sequence[Path]) -> list[tuple[Path, Path]]:
    if len(programs) != len(verdicts):
        raise InputError(f"{len(programs)} --programs and {len(verdicts)} --verdicts: give one of each for each pool")
    return list(zip(programs, verdicts, strict=True))


@app.command
def score(
    *,
    critic: Path,
    programs: Path,
    verdicts: Path,
    problems: str,
    out: Path,
    split: str | None = None,
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Write the critic's value of every judged program and of each of its tokens.

        coderl score --critic runs/mbpp/critic/model --programs runs/mbpp/sample --verdicts runs/mbpp/execute \
            --problems data/mbpp/mbpp.jsonl --out runs/mbpp/score

    Args:
        critic: A critic's folder.
        programs: The folder of a `sample` stage.
        verdicts: The folder of its `execute` stage.
        problems: Where the programs' problems are.
        out: The stage's folder; the scores go to OUT/scores.
        split: Only this split of the problems.
    """
    chosen = [p.problem for p in data.load(problems, split=split)]
    learning.score(
        out,
        critic=critic,
        programs=programs,
        verdicts=verdicts,
        problems=chosen,
        prompt=prompt,
        reporter=Reporter(),
    )


@app.command(name="train-actor")
def train_actor(
    *,
    actor: str,
    programs: Path,
    verdicts: Path,
    scores: Path | None = None,
    problems: str,
    out: Path,
    split: str | None = None,
    reference: str | None = None,
    config: Annotated[ActorTrainingConfig, Flat] = ActorTrainingConfig(),
    returns: ReturnsConfig = ReturnsConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Train the actor on its own programs, weighted by what the unit tests and the critic say of them.

        coderl train-actor --actor runs/mbpp/warm-start/model --programs runs/mbpp/sample \
            --verdicts runs/mbpp/execute --scores runs/mbpp/score --problems data/mbpp/mbpp.jsonl --split train \
            --out runs/mbpp/actor --optim.learning-rate 1e-5

    Args:
        actor: The model folder or hub name that drew the programs.
        programs: The folder of a `sample` stage.
        verdicts: The folder of its `execute` stage.
        scores: The folder of its `score` stage; not needed with `--returns.spread uniform`.
        problems: Where the programs' problems are; those with solutions also give the cross-entropy term.
        out: The stage's folder; the model goes to OUT/model.
        split: Only this split of the problems.
        reference: The model that `--kl-weight` and the canary refer to; the actor by default.
    """
    loaded = data.load(problems, split=split)
    learning.train_actor(
        out,
        actor=actor,
        pools=[(programs, verdicts, scores)],
        problems=[p.problem for p in loaded],
        solved=[p for p in loaded if p.solutions],
        config=config,
        returns_config=returns,
        prompt=prompt,
        reporter=Reporter(),
        reference=reference,
    )


@app.command(name="train-repair")
def train_repair(
    *,
    actor: str,
    programs: list[Path],
    verdicts: list[Path],
    problems: str,
    out: Path,
    split: str | None = None,
    seed: int = 0,
    config: Annotated[RepairConfig, Flat] = RepairConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Train the repair model on failed programs and their nearest reference solutions.

        coderl train-repair --actor runs/mbpp/warm-start/model --programs runs/mbpp/sample \
            --verdicts runs/mbpp/execute --problems data/mbpp/mbpp.jsonl --out runs/mbpp/repair

    Args:
        actor: The model folder or hub name to begin from.
        programs: Folders of `sample` stages.
        verdicts: Folders of `execute` stages, one for each of the former.
        problems: Where the programs' problems are.
        out: The stage's folder; the model goes to OUT/model.
        split: Only this split of the problems.
        seed: Decides which pairs are used where there are too many.
    """
    learning.train_repair(
        out,
        actor=actor,
        pools=_pairs(programs, verdicts),
        problems=data.load(problems, split=split),
        config=config,
        prompt=prompt,
        seed=seed,
        reporter=Reporter(),
    )
