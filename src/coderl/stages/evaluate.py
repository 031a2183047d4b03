"""How the programs of a stage fared, problem by problem, and the scores that follow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from coderl.critic_sampling.candidates import Candidate
from coderl.evaluation.counts import JUDGED, Numbered, numbered
from coderl.evaluation.pass_at_k import ProblemCounts, Summary, summarise
from coderl.types import LabelledProblem, Outcome, Program, ProgramKind

DRAWN = frozenset(ProgramKind) - {ProgramKind.BASELINE}
"""The kinds of program that a model is measured by."""


def problem_counts(
    programs: Path,
    verdicts: Path,
    problems: Iterable[LabelledProblem],
    *,
    kinds: Collection[ProgramKind] = DRAWN,
    examples: Path | None = None,
) -> list[ProblemCounts]:
    """Return how the programs of each problem fared, untested problems and sandbox faults told apart.

    Args:
        programs: the folder of a stage that wrote programs.
        verdicts: the folder of its `execute` stage.
        problems: in the order of the counts; taken one by one, so that their tests need not be held.
        kinds: of the programs that count.
        examples: the folder that says what the example tests make of them: an `execute` stage's or a `critic-sample`
            stage's; None where they were not run.

    Raises:
        InputError: a table is missing, cut off or of other rows.
    """
    asked = [(p.problem.problem_id, p.problem.difficulty, bool(p.hidden_tests)) for p in problems]
    ids = [problem_id for problem_id, _, _ in asked]
    drawn = numbered(programs / "programs", Program, ids).of_kinds(kinds)
    outcomes = numbered(verdicts / "verdicts", JUDGED, ids, outcome="outcome").looked_up(drawn.numbers)
    is_judged, is_right = outcomes >= 0, outcomes == Outcome.PASSED_TEST
    passes = None
    if examples is not None:
        passes = is_judged & (_example_outcomes(examples, ids).looked_up(drawn.numbers) == Outcome.PASSED_TEST)
    problem_of = drawn.problems

    def number(chosen: np.ndarray) -> list[int]:
        return np.bincount(problem_of[chosen], minlength=len(ids)).tolist()

    judged, right, masked = number(is_judged), number(is_right), number(~is_judged)
    passing = number(passes) if passes is not None else None
    passing_right = number(passes & is_right) if passes is not None else None
    return [
        ProblemCounts(
            problem_id=problem_id,
            difficulty=difficulty,
            num_samples=judged[at] if is_tested else 0,
            num_correct=right[at] if is_tested else 0,
            num_passing_examples=None if passing is None else passing[at] if is_tested else 0,
            num_correct_passing_examples=None if passing_right is None else passing_right[at] if is_tested else 0,
            num_masked=masked[at] if is_tested else 0,
            is_tested=is_tested,
        )
        for at, (problem_id, difficulty, is_tested) in enumerate(asked)
    ]


def _example_outcomes(stage: Path, ids: Sequence[str]) -> Numbered:
    if (stage / "candidates").exists():
        return numbered(stage / "candidates", Candidate, ids, outcome="result_outcome")
    return numbered(stage / "verdicts", JUDGED, ids, outcome="outcome")


def evaluation(
    folder: Path, problems: Sequence[LabelledProblem], ks: Sequence[int], *, greedy: bool = False
) -> Summary:
    """Return the scores of the programs under `folder`: its `sample`, `execute` and, for n@k, `examples` stages."""
    examples = next((f for f in (folder / "examples", folder / "sample") if _has_examples(f) and not greedy), None)
    kinds = {ProgramKind.BASELINE} if greedy else DRAWN
    counts = problem_counts(folder / "sample", folder / "execute", problems, kinds=kinds, examples=examples)
    reached = [k for k in ks if all(k <= c.num_programs for c in counts if c.num_programs)]
    return summarise(counts, ks, [(1, max(reached))] if examples and reached else [])


def _has_examples(stage: Path) -> bool:
    return (stage / "candidates").exists() or (stage.name == "examples" and stage.exists())
