"""Counts over tables of millions of programs: columns as arrays, no object a row."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int8, Int64

from coderl import tables
from coderl.types import InputError, Outcome, ProgramKey, ProgramKind, Verdict

JUDGED = tuple[ProgramKey, Verdict]
"""A row of verdicts. What they cost stands in a table of its own: times differ from run to run, and verdicts do not."""
CLOCKS = ("cpu_s", "wall_s")

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


def numbered(table: Path, row_type: Any, problem_ids: Sequence[str], *, outcome: str | None = None) -> Numbered:
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
    for batch in tables.read_columns(table, row_type, names):
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
    for batch in tables.read_columns(table, JUDGED, ["kind", "outcome"]):
        outcomes = _outcomes(batch["outcome"], table)[_places_in(batch["kind"], wanted) >= 0]
        counts += np.bincount(outcomes % len(names), minlength=len(names))  # none, -1, is the last
    return dict(zip(names, counts.tolist(), strict=True))


def outcomes_by_difficulty(
    table: Path, difficulties: Mapping[str, str], kinds: Collection[ProgramKind] = _KINDS
) -> dict[str, dict[Outcome, int]]:
    """Return how many programs of some kinds met each outcome, for the problems of each difficulty.

    Args:
        table: of verdicts.
        difficulties: problem -> difficulty.
        kinds: of the programs that count.

    Raises:
        InputError: it is no table of verdicts.
    """
    found = numbered(table, JUDGED, list(difficulties), outcome="outcome").of_kinds(kinds)
    places = _places(dict.fromkeys(difficulties.values()))
    of_problem = np.array([places[name] for name in difficulties.values()], np.int64)
    which = of_problem[found.problems]
    return {
        name: {u: int(np.count_nonzero((which == at) & (found.outcomes == u))) for u in Outcome}
        for name, at in places.items()
    }


def _outcomes(column: pa.Array, table: Path) -> Int8[np.ndarray, " rows"]:
    outcomes = column.fill_null(_NO_OUTCOME).to_numpy()
    if ((outcomes < _NO_OUTCOME) | (outcomes >= len(Outcome))).any():
        raise InputError(f"{table}: an outcome is a number from 0 to {len(Outcome) - 1}")
    return outcomes
