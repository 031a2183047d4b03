"""Failed samples and solutions -> the repair model: cross-entropy from a failed program to its nearest solution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from coderl.models.lm import LanguageModel
from coderl.training.loop import StepMetrics, Validate
from coderl.training.losses import CrossEntropyExample
from coderl.training.settings import WarmStartConfig
from coderl.training.warm_start import warm_start


@dataclass(frozen=True, slots=True)
class RepairPair:
    """A failed program and what it should become."""

    failed_index: int
    """Position among the failed programs."""
    solution: str
    similarity: float
    """2 x matching characters / all characters, in [0, 1]."""


def repair_pairs(failed: Sequence[str], solutions: Sequence[str], *, min_similarity: float = 0.0) -> list[RepairPair]:
    """Return, for each failed program of ONE problem, the reference solution that takes the least change.

    Source: CodeRL Eq. 13. Deviation: the paper pairs a failed program with every solution; a repair model trained so
        learns to write the solution anew, whatever it was given.

    Args:
        failed: texts of programs that did not pass.
        solutions: texts of the problem's reference solutions; the first of equally near ones is taken.
        min_similarity: pairs below it are left out.
    """
    pairs = []
    for index, program in enumerate(failed):
        nearest = nearest_text(program, solutions)
        if nearest is not None and nearest[1] >= min_similarity:
            pairs.append(RepairPair(index, *nearest))
    return pairs


def nearest_text(text: str, candidates: Sequence[str]) -> tuple[str, float] | None:
    """Return the candidate most similar to `text`, and how similar it is; None without candidates."""
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(text)
    best: tuple[str, float] | None = None
    for candidate in candidates:
        matcher.set_seq1(candidate)
        floor = -1.0 if best is None else best[1]
        if matcher.real_quick_ratio() > floor and matcher.quick_ratio() > floor and matcher.ratio() > floor:
            best = candidate, matcher.ratio()
    return best


def train_repair(
    model: LanguageModel,
    examples: Sequence[CrossEntropyExample],
    config: WarmStartConfig,
    *,
    checkpoint_dir: Path | None = None,
    validate: Validate | None = None,
) -> Iterator[StepMetrics]:
    """Yield the metrics of each update of the repair model: prompts name the failed program and its outcome.

    Source: CodeRL Eq. 13.
    """
    return warm_start(model, examples, config, checkpoint_dir=checkpoint_dir, validate=validate)
