"""How much of one data set's solutions stands in another's: whether a test set was in the training set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from coderl.types import InputError, LabelledProblem


@dataclass(frozen=True, slots=True)
class ProgramOverlap:
    """How much of one solution stands in the other data set."""

    problem_id: str
    index: int
    """Which of the problem's solutions."""
    num_lines: int
    """Lines of code that count: not blank, and not common in its own data set."""
    num_shared: int
    """Those of them that are a line of some solution of the other data set."""

    @property
    def share(self) -> float:
        """The part of the lines that is shared, 0 to 1."""
        return self.num_shared / self.num_lines if self.num_lines else 0.0


@dataclass(frozen=True, slots=True)
class Overlap:
    """The measure of section 4.5, over the solutions of a data set."""

    programs: tuple[ProgramOverlap, ...]
    num_other_programs: int
    """Solutions that they were compared with."""

    @property
    def num_disjoint(self) -> int:
        """Programs without a shared line; the paper finds 514 of MBPP's 974 in APPS."""
        return sum(p.num_shared == 0 for p in self.programs)

    @property
    def num_mostly_shared(self) -> int:
        """Programs of which more than half is shared; in the paper 12.6 %."""
        return sum(2 * p.num_shared > p.num_lines for p in self.programs)

    @property
    def num_at_most_3(self) -> int:
        """Programs with at most three shared lines; in the paper 90.9 %."""
        return sum(p.num_shared <= 3 for p in self.programs)


def overlap(
    problems: Iterable[LabelledProblem], others: Iterable[LabelledProblem], *, max_uses: int | None = 2
) -> Overlap:
    """Return how many lines of each solution of `problems` are lines of a solution of `others`, without their indent.

    Source: CodeRL section 4.5, after Austin et al. 2021, who leave out the lines that stand more than twice in the
        data set, as `return` and `continue` do.
    Deviation: neither says how comments count (here: as lines) nor what a program of common lines only is (here: a
        program that shares nothing).

    Args:
        problems: The data set that may be contaminated; each solution is a program.
        others: What it may be contaminated by.
        max_uses: A line that stands more often than this in the solutions of `problems` does not count; None: all do.

    Raises:
        InputError: a data set has no solutions, or `max_uses` is not positive.
    """
    if max_uses is not None and max_uses < 1:
        raise InputError(f"max_uses {max_uses}: expected 1 or more")
    programs = [(p.problem.problem_id, i, list(_lines(s))) for p in problems for i, s in enumerate(p.solutions)]
    other_programs = [set(_lines(s)) for p in others for s in p.solutions]
    for name, found in (("first", programs), ("second", other_programs)):
        if not found:
            raise InputError(f"the {name} data set has no solutions to compare")
    known = set().union(*other_programs)
    uses = Counter(line for _, _, lines in programs for line in lines)
    rows = []
    for problem_id, index, lines in programs:
        counted = [line for line in lines if max_uses is None or uses[line] <= max_uses]
        rows.append(ProgramOverlap(problem_id, index, len(counted), sum(line in known for line in counted)))
    return Overlap(tuple(rows), len(other_programs))


def _lines(program: str) -> Iterator[str]:
    return (line.strip() for line in program.split("\n") if line.strip())
