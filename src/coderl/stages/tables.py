"""The rows of the run directory's tables, and the joins between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import Int8, Int64

from coderl import records
from coderl.types import (
    InputError,
    Outcome,
    Program,
    ProgramKind,
    Verdict,
)

Key = tuple[str, str, int]
"""What names a program in a stage: problem, kind, index."""
SELECTION = "selection.json"
"""The share of right programs of each judged actor, in the order of training, and which of them is kept."""
WARM_START = "warm-start"


@dataclass(frozen=True, slots=True)
class VerdictRow:
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
    def of(cls, program: Program, result: Verdict) -> VerdictRow:
        """Return the row for what the executor answered about `program`."""
        name = (program.problem_id, program.kind, program.index)
        return cls(
            *name,
            result.outcome,
            result.error_subtype,
            result.message,
            result.error_line,
            result.test_outcomes,
            result.isolation,
            result.fault,
        )

    def result(self) -> Verdict:
        """Return the executor's answer again, but for its cost."""
        return Verdict(
            self.outcome,
            self.error_subtype,
            self.message,
            self.error_line,
            self.test_outcomes,
            self.isolation,
            self.fault,
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
    def of(cls, program: Program, result: Verdict) -> Cost:
        """Return the row for what the executor answered about `program`."""
        return cls(program.problem_id, program.kind, program.index, result.cpu_s, result.wall_s)


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
class Ranked:
    """A program and its place among those of its problem."""

    problem_id: str
    kind: ProgramKind
    index: int
    place: int
    """0 is submitted first."""
    example_outcome: Outcome | None
    """None where the problem shows no example test or the sandbox failed."""
    behaviour: int | None
    """Number of its class of equal behaviour within the problem, as they are met; None where it fails the examples or
    no input could be made."""
    class_size: int
    """Programs of that class with the same verdict on the example tests, copies included."""
    program_value: float | None


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


def verdicts_of(stage: Path) -> dict[Key, VerdictRow]:
    """Return the verdicts that an execute stage wrote, by program."""
    return {key(row): row for row in records.read_table(stage / "verdicts", VerdictRow)}


def scores_of(stage: Path) -> dict[Key, Score]:
    """Return the scores that a score stage wrote, by program."""
    return {key(row): row for row in records.read_table(stage / "scores", Score)}


def judged(programs: Iterable[Program], verdicts: dict[Key, VerdictRow]) -> list[tuple[Program, VerdictRow]]:
    """Return the programs that have a verdict, with it: no untested problem, no sandbox fault."""
    pairs = ((p, verdicts.get(key(p))) for p in programs)
    return [(p, v) for p, v in pairs if v is not None and v.outcome is not None]


def by_problem(pairs: Iterable[tuple[Program, VerdictRow]]) -> dict[str, list[tuple[Program, VerdictRow]]]:
    """Return the judged programs of each problem, in order."""
    groups: dict[str, list[tuple[Program, VerdictRow]]] = defaultdict(list)
    for program, verdict in pairs:
        groups[program.problem_id].append((program, verdict))
    return dict(groups)


def sample_canaries(programs: Iterable[Program], verdicts: dict[Key, VerdictRow]) -> dict[str, float]:
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


# --------------------------------------------------------------------------------------- tables of millions of rows

_KINDS = tuple(ProgramKind)
_INDEX_BITS = 32
_NO_OUTCOME = -1


@dataclass(frozen=True, slots=True)
class Numbered:
    """The programs of some problems in a table, each as one number, and one outcome of each: 9 bytes a row."""

    numbers: Int64[np.ndarray, " rows"]
    """What `key` names: the problem's place among those asked for, the kind and the index."""
    outcomes: Int8[np.ndarray, " rows"]
    """-1 where there is none."""

    @property
    def problems(self) -> Int64[np.ndarray, " rows"]:
        """Each row's problem, as its place among those asked for."""
        return (self.numbers >> _INDEX_BITS) // len(_KINDS)

    def of_kinds(self, kinds: Collection[ProgramKind]) -> Numbered:
        """Return the rows of some kinds of program."""
        chosen = np.isin((self.numbers >> _INDEX_BITS) % len(_KINDS), [_KINDS.index(kind) for kind in kinds])
        return Numbered(self.numbers[chosen], self.outcomes[chosen])

    def looked_up(self, numbers: Int64[np.ndarray, " programs"]) -> Int8[np.ndarray, " programs"]:
        """Return the outcome of each program asked for, -1 where it has none or is not here; the last row counts."""
        if not len(self.numbers):
            return np.full(len(numbers), _NO_OUTCOME, np.int8)
        order = np.argsort(self.numbers, kind="stable")
        at = np.searchsorted(self.numbers, numbers, side="right", sorter=order) - 1
        found = order[np.maximum(at, 0)]
        return np.where(self.numbers[found] == numbers, self.outcomes[found], np.int8(_NO_OUTCOME))


def numbered(table: Path, row_type: type, problem_ids: Sequence[str], *, outcome: str | None = None) -> Numbered:
    """Return the programs of some problems in a table, in order; no object is made of a row.

    Args:
        table: a file or folder of rows about programs.
        row_type: of these rows.
        problem_ids: rows of other problems are left out.
        outcome: the column of the outcomes; without one nothing has an outcome.

    Raises:
        InputError: it is not such a table, or it numbers a program below 0 or beyond 32 bits.
    """
    places, kinds = _places(problem_ids), _places([kind.value for kind in _KINDS])
    names = ["problem_id", "kind", "index"] + ([outcome] if outcome else [])
    numbers, outcomes = [np.empty(0, np.int64)], [np.empty(0, np.int8)]
    for batch in records.read_columns(table, row_type, names):
        problem, kind = _places_in(batch["problem_id"], places), _places_in(batch["kind"], kinds)
        index = batch["index"].to_numpy()
        if (kind < 0).any() or (index >> _INDEX_BITS).any():
            raise InputError(f"{table}: a row names no program (an unknown kind or an impossible index)")
        number = ((problem * len(_KINDS) + kind) << _INDEX_BITS) + index
        found = _outcomes(batch[outcome], table) if outcome else np.full(len(number), _NO_OUTCOME, np.int8)
        numbers.append(number[problem >= 0])
        outcomes.append(found[problem >= 0])
    return Numbered(np.concatenate(numbers), np.concatenate(outcomes))


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


def _places_in(column: pa.Array, places: Mapping[str, int]) -> Int64[np.ndarray, " rows"]:
    """Return the place of each value of a column of texts, -1 for one that has none; each text is met once."""
    encoded = column.dictionary_encode()
    found = [places.get(text, -1) for text in encoded.dictionary.to_pylist()]
    return np.array(found, np.int64)[encoded.indices.to_numpy()]


def outcome_counts(table: Path, kinds: Collection[ProgramKind] = _KINDS) -> dict[str, int]:
    """Return how many programs of some kinds met each outcome, and how many faults of the sandbox there were.

    Raises:
        InputError: it is no table of verdicts.
    """
    names = [o.name.lower() for o in Outcome] + ["sandbox_fault"]
    wanted, counts = _places([kind.value for kind in kinds]), np.zeros(len(names), np.int64)
    for batch in records.read_columns(table, VerdictRow, ["kind", "outcome"]):
        outcomes = _outcomes(batch["outcome"], table)[_places_in(batch["kind"], wanted) >= 0]
        counts += np.bincount(outcomes % len(names), minlength=len(names))  # none, -1, is the last
    return dict(zip(names, counts.tolist(), strict=True))


def _outcomes(column: pa.Array, table: Path) -> Int8[np.ndarray, " rows"]:
    outcomes = column.fill_null(_NO_OUTCOME).to_numpy()
    if ((outcomes < _NO_OUTCOME) | (outcomes >= len(Outcome))).any():
        raise InputError(f"{table}: an outcome is a number from 0 to {len(Outcome) - 1}")
    return outcomes


def rankings(stage: Path, verdicts: Path, problem_ids: Sequence[str]) -> dict[str, list[tuple[bool, bool]]]:
    """Return problem -> (passes the example tests, is correct) of its programs, best first; faults are left out.

    Args:
        stage: the folder of the `rank` stage; the rows of a problem stand best first.
        verdicts: the folder of the `execute` stage of its programs.
        problem_ids: the problems asked for; one without programs gets an empty list.

    Raises:
        InputError: a table is missing, cut off or of other rows.
    """
    ranked = numbered(stage / "rankings", Ranked, problem_ids, outcome="example_outcome")
    hidden = numbered(verdicts / "verdicts", VerdictRow, problem_ids, outcome="outcome").looked_up(ranked.numbers)
    passes, is_right = ranked.outcomes == Outcome.PASSED_TEST, hidden == Outcome.PASSED_TEST
    by_problem = np.flatnonzero(hidden >= 0)
    by_problem = by_problem[np.argsort(ranked.problems[by_problem], kind="stable")]
    ends = np.searchsorted(ranked.problems[by_problem], np.arange(len(problem_ids)), side="right")
    rows = np.split(by_problem, ends[:-1]) if len(ends) else []
    return {
        name: list(zip(passes[at].tolist(), is_right[at].tolist(), strict=True))
        for name, at in zip(problem_ids, rows, strict=True)
    }
