"""The stage that reads a run's problems once and keeps them: what trains, validates and tests never mixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coderl import problems as data
from coderl.problems import jsonl
from coderl.recipe import ProblemsConfig
from coderl.stages.stage import Facts, Work, stage
from coderl.types import InputError, LabelledProblem

NAMES = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Splits:
    """The problems of a run."""

    train: list[LabelledProblem]
    validation: list[LabelledProblem]
    test: list[LabelledProblem]

    @property
    def solved(self) -> list[LabelledProblem]:
        """The training problems with reference solutions: what cross-entropy can learn from."""
        return [p for p in self.train if p.solutions]

    @property
    def tested(self) -> list[LabelledProblem]:
        """The training problems with hidden tests: what reinforcement learning can learn from."""
        return [p for p in self.train if p.hidden_tests]


@stage
def split_problems(work: Work, *, config: ProblemsConfig = ProblemsConfig()) -> Facts:
    """Read the problems of a data set and write OUT/train.jsonl, OUT/validation.jsonl and OUT/test.jsonl.

        coderl split-problems --source data/mbpp/mbpp.jsonl --out runs/mbpp/problems

    Raises:
        InputError: a split is empty, or a problem stands in two of them and `drop_overlap` is off.
    """
    splits = read_splits(config)
    for name in NAMES:
        jsonl.write(work.folder / f"{name}.jsonl", getattr(splits, name))
    return {f"num_{name}": len(getattr(splits, name)) for name in NAMES}


def kept_splits(folder: Path) -> Splits:
    """Return the problems that the stage wrote."""
    return Splits(*(data.load(folder / f"{name}.jsonl") for name in NAMES))


def read_splits(config: ProblemsConfig) -> Splits:
    """Return the problems to train, validate and test on, read from their source.

    Raises:
        InputError: a split is empty, or a problem stands in two of them and `drop_overlap` is off.
    """
    asked = (
        (config.source, config.train_split, config.num_train),
        (config.source, config.validation_split, config.num_validation),
        (config.test_source or config.source, config.test_split, config.num_test),
    )
    shown = config.num_shown_tests
    train, validation, test = (data.load(s, split=name, limit=n, num_shown_tests=shown) for s, name, n in asked)
    if config.drop_overlap:
        validation = _without(validation, test)
        train = _without(train, [*validation, *test])
    splits = Splits(train, validation, test)
    for name in NAMES:
        if not any(p.hidden_tests for p in getattr(splits, name)):
            raise InputError(f"{config.source}: no {name} problem has tests, so nothing of it could be run")
    _refuse_overlap(splits)
    return splits


def _statement(labelled: LabelledProblem) -> str:
    return " ".join(labelled.problem.description.split())


def _without(problems: Sequence[LabelledProblem], others: Sequence[LabelledProblem]) -> list[LabelledProblem]:
    """Return the problems whose statement is none of the others'."""
    taken = {_statement(p) for p in others}
    return [p for p in problems if _statement(p) not in taken]


def _refuse_overlap(splits: Splits) -> None:
    seen: dict[str, str] = {}
    for name in NAMES:
        for labelled in getattr(splits, name):
            text = _statement(labelled)
            if seen.setdefault(text, name) != name:
                stands = f"problem {labelled.problem.problem_id!r} of {name} also stands in {seen[text]}"
                raise InputError(f"{stands}: splits must not mix")
