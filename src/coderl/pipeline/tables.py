"""The rows of the run directory's tables, and the joins between them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from coderl import records
from coderl.types import ExecutionResult, Outcome, Program, ProgramKind, SandboxError

Key = tuple[str, str, int]
"""What names a program in a stage: problem, kind, index."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the sandbox said of one program; `outcome` is None where the sandbox, not the program, failed."""

    problem_id: str
    kind: ProgramKind
    index: int
    outcome: Outcome | None
    error_subtype: str | None
    message: str
    error_line: int | None
    test_outcomes: tuple[Outcome | None, ...]
    isolation: str
    fault: str | None
    """The sandbox's own failure; such a program is masked out of training and counted."""

    @classmethod
    def of(cls, program: Program, result: ExecutionResult | SandboxError) -> Verdict:
        """Return the row for what the executor answered about `program`."""
        name = (program.problem_id, program.kind, program.index)
        if isinstance(result, SandboxError):
            return cls(*name, None, None, "", None, (), "", str(result) or "unknown fault")
        return cls(
            *name,
            result.outcome,
            result.error_subtype,
            result.message,
            result.error_line,
            result.test_outcomes,
            result.isolation,
            None,
        )

    def result(self) -> ExecutionResult:
        """Return the executor's answer again, but for its cost."""
        assert self.outcome is not None
        return ExecutionResult(
            self.outcome,
            self.error_subtype,
            self.message,
            self.error_line,
            self.test_outcomes,
            isolation=self.isolation,
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """What a verdict took. Apart from it, for times differ from run to run and verdicts do not."""

    problem_id: str
    kind: ProgramKind
    index: int
    cpu_s: float
    wall_s: float

    @classmethod
    def of(cls, program: Program, result: ExecutionResult | SandboxError) -> Cost:
        """Return the row for what the executor answered about `program`."""
        spent = (0.0, 0.0) if isinstance(result, SandboxError) else (result.cpu_s, result.wall_s)
        return cls(program.problem_id, program.kind, program.index, *spent)


@dataclass(frozen=True, slots=True)
class Score:
    """What the critic said of one program."""

    problem_id: str
    kind: ProgramKind
    index: int
    program_probs: tuple[float, ...]
    """One an outcome: p(u | W, D), Eq. 12."""
    token_values: tuple[float, ...]
    """One a token: q(w_t), the probability of the program's true outcome after the prefix up to w_t, Eq. 10."""
    passing_values: tuple[float, ...]
    """One a token: the probability of PassedTest after the prefix up to w_t, Eq. 11."""


@dataclass(frozen=True, slots=True)
class TrainedSample:
    """A sample that an actor was trained on; copies of a program are one."""

    problem_id: str
    num_tokens: int
    staleness: int
    """Rounds since it was drawn; 0 for one of the policy that was trained."""
    mean_return: float
    """Of its tokens; 0 for a sample that could not move the actor and cost no step."""


@runtime_checkable
class Row(Protocol):
    """A row about one program."""

    @property
    def problem_id(self) -> str:
        """Whose program."""
        ...

    @property
    def kind(self) -> ProgramKind:
        """What made it."""
        ...

    @property
    def index(self) -> int:
        """Which of its kind."""
        ...


def key(row: Row) -> Key:
    """Return what names the program of a row."""
    return (row.problem_id, row.kind.value, row.index)


def programs_of(stage: Path) -> list[Program]:
    """Return the programs that a stage wrote."""
    return list(records.read_table(stage / "programs", Program))


def verdicts_of(stage: Path) -> dict[Key, Verdict]:
    """Return the verdicts that an execute stage wrote, by program."""
    return {key(row): row for row in records.read_table(stage / "verdicts", Verdict)}


def scores_of(stage: Path) -> dict[Key, Score]:
    """Return the scores that a score stage wrote, by program."""
    return {key(row): row for row in records.read_table(stage / "scores", Score)}


def judged(programs: Iterable[Program], verdicts: dict[Key, Verdict]) -> list[tuple[Program, Verdict]]:
    """Return the programs that have a verdict, with it: no untested problem, no sandbox fault."""
    pairs = ((p, verdicts.get(key(p))) for p in programs)
    return [(p, v) for p, v in pairs if v is not None and v.outcome is not None]


def by_problem(pairs: Iterable[tuple[Program, Verdict]]) -> dict[str, list[tuple[Program, Verdict]]]:
    """Return the judged programs of each problem, in order."""
    groups: dict[str, list[tuple[Program, Verdict]]] = defaultdict(list)
    for program, verdict in pairs:
        groups[program.problem_id].append((program, verdict))
    return dict(groups)


def sample_canaries(programs: Iterable[Program], verdicts: dict[Key, Verdict]) -> dict[str, float]:
    """Return how the drawn programs fare as a whole: what a collapsing policy shows first.

    Shares are of the samples that have a verdict; `unique_share` counts a problem's programs of the same text once.
    """
    pairs = [(p, v) for p, v in judged(programs, verdicts) if p.kind is ProgramKind.SAMPLE]
    count = max(len(pairs), 1)
    return {
        "pass_rate": sum(v.outcome is Outcome.PASSED_TEST for _, v in pairs) / count,
        "compile_error_rate": sum(v.outcome is Outcome.COMPILE_ERROR for _, v in pairs) / count,
        "unique_share": len({(p.problem_id, p.code) for p, _ in pairs}) / count,
        "mean_tokens": sum(len(p.tokens) for p, _ in pairs) / count,
    }


def outcome_counts(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Return how many programs met each outcome, and how many faults of the sandbox there were."""
    counts = Counter(v.outcome.name.lower() if v.outcome is not None else "sandbox_fault" for v in verdicts)
    names = [o.name.lower() for o in Outcome] + ["sandbox_fault"]
    return {name: counts[name] for name in names}
