"""What the stages of a run read of each other: programs, and what became of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from coderl import records, tables
from coderl.evaluation.counts import CLOCKS, JUDGED
from coderl.types import Outcome, Program, ProgramKey, Rollout, Score, Verdict

SCORED = tuple[ProgramKey, Score]
MAX_HELD_ROWS = 100_000
"""Longer tables are read anew each time."""


def programs_of(stage: Path) -> list[Program]:
    """Return the programs that a stage wrote."""
    return _rows(stage / "programs", Program)


def verdicts_of(stage: Path) -> dict[ProgramKey, Verdict]:
    """Return the verdicts that an execute stage wrote, by program."""
    return dict(_rows(stage / "verdicts", JUDGED, CLOCKS))


def scores_of(stage: Path) -> dict[ProgramKey, Score]:
    """Return the scores that a score stage wrote, by program."""
    return dict(_rows(stage / "scores", SCORED))


class ByProblem:
    """The rows of a table, problem by problem: of a long table only those of the problems asked for are in memory."""

    def __init__(self, folder: Path, row_type: Any, problem_of: Callable[[Any], str], without: tuple[str, ...] = ()):
        self._problem_of = problem_of
        self._long: tables.RowsByKey | None = None
        self._groups: dict[str, list[Any]] = {}
        if tables.num_rows(folder) > MAX_HELD_ROWS:
            self._long = tables.RowsByKey(folder, row_type, without=without)
        else:
            self._groups = self._grouped(_rows(folder, row_type, without))

    @classmethod
    def of_programs(cls, stage: Path) -> ByProblem:
        """Return the programs that a stage wrote."""
        return cls(stage / "programs", Program, lambda program: program.problem_id)

    @classmethod
    def of_verdicts(cls, stage: Path) -> ByProblem:
        """Return the pairs of a program's key and its verdict that an execute stage wrote."""
        return cls(stage / "verdicts", JUDGED, lambda pair: pair[0].problem_id, CLOCKS)

    @classmethod
    def of_scores(cls, stage: Path) -> ByProblem:
        """Return the pairs of a program's key and its scores that a score stage wrote."""
        return cls(stage / "scores", SCORED, lambda pair: pair[0].problem_id)

    def problem_ids(self) -> list[str]:
        """Return the problems that have rows, in the order in which they come."""
        return list(self._groups) if self._long is None else self._long.texts()

    def of(self, problem_ids: Iterable[str]) -> dict[str, list[Any]]:
        """Return the rows of some problems, in the order of the table; none of a problem without."""
        if self._long is not None:
            return self._grouped(self._long.rows(problem_ids))
        return {name: self._groups[name] for name in problem_ids if name in self._groups}

    def _grouped(self, rows: Iterable[Any]) -> dict[str, list[Any]]:
        groups: dict[str, list[Any]] = {}
        for row in rows:
            groups.setdefault(self._problem_of(row), []).append(row)
        return groups


def rollouts_of(programs: Path, verdicts: Path, scores: Path | None = None) -> list[Rollout]:
    """Return the programs that have an outcome, with it: no untested problem, no fault of the sandbox."""
    judged = verdicts_of(verdicts)
    scored = {} if scores is None else scores_of(scores)
    pairs = ((program, judged.get(program.key)) for program in programs_of(programs))
    return [Rollout(p, v, scored.get(p.key)) for p, v in pairs if v is not None and v.outcome is not None]


def by_problem(rollouts: Iterable[Rollout]) -> dict[str, list[Rollout]]:
    """Return the rollouts of each problem, in order."""
    groups: dict[str, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        groups[rollout.program.problem_id].append(rollout)
    return dict(groups)


def pass_rates(rollouts: Iterable[Rollout]) -> dict[str, float]:
    """Return the share of right programs among those of each problem."""
    groups = by_problem(rollouts)
    return {p: sum(r.outcome is Outcome.PASSED_TEST for r in group) / len(group) for p, group in groups.items()}


def _rows(folder: Path, row_type: Any, without: tuple[str, ...] = ()) -> list[Any]:
    """Return a table's rows; a short table that an earlier stage of this process read is not read again."""
    if tables.num_rows(folder) > MAX_HELD_ROWS:
        return list(tables.read_table(folder, row_type, without=without))
    return _held_rows(folder, row_type, without, records.hash_path(folder))


@lru_cache(maxsize=16)
def _held_rows(folder: Path, row_type: Any, without: tuple[str, ...], digest: str) -> list[Any]:
    return list(tables.read_table(folder, row_type, without=without))
