"""Programs for people to read: what each token was worth to a critic, and the line that failed. No weights are needed.

A stage that has a critic at hand chooses programs (`one_of_each`, `crashes`), has them scored, and writes a table of
`Illustration`s; the report reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from coderl.critic.lines import Decoder, first_line, line_values, steepest_fall, token_texts
from coderl.types import Outcome, Problem, Program, ProgramKind, Verdict

Judged = tuple[Problem, Program, Verdict]
"""A program with its problem and what the hidden tests said."""


@dataclass(frozen=True, slots=True)
class Illustration:
    """One program, with the critic's value of each token."""

    problem_id: str
    difficulty: str
    description: str
    where: str
    """Who drew it, such as `round-01`."""
    kind: ProgramKind
    index: int
    outcome: Outcome
    error_subtype: str | None
    message: str
    error_line: int | None
    """1-based line of what the `texts` make together, prose around the code included."""
    texts: tuple[str, ...]
    """What each token adds; joined, they are what the model wrote."""
    values: tuple[float, ...]
    """The critic's probability of passing after each token; none where no critic read it."""
    program_value: float | None


def one_of_each(judged: Iterable[Judged], limit: int = 8) -> list[Judged]:
    """Return the first program of each outcome and difficulty, best outcomes first."""
    found: dict[tuple[Outcome, str], Judged] = {}
    for problem, program, verdict in judged:
        if verdict.outcome is not None and program.tokens:
            found.setdefault((verdict.outcome, problem.difficulty), (problem, program, verdict))
    return [found[name] for name in sorted(found, key=lambda name: (-name[0], name[1]))][:limit]


def crashes(judged: Iterable[Judged], limit: int = 100) -> list[Judged]:
    """Return the first distinct programs of several lines that crash on a known line: what `located` counts."""
    found: dict[tuple[str, str], Judged] = {}
    for problem, program, verdict in judged:
        has_line = verdict.outcome is Outcome.RUNTIME_ERROR and verdict.error_line is not None
        if has_line and program.tokens and "\n" in program.code.strip():
            found.setdefault((program.problem_id, program.code), (problem, program, verdict))
    return list(islice(found.values(), limit))


def illustrate(
    judged: Judged, values: Sequence[float], program_value: float | None, model: Decoder, where: str
) -> Illustration:
    """Return a judged program as people read it; `values` has one a token, `model` knows the tokens' texts."""
    problem, program, verdict = judged
    texts = token_texts(model, program.tokens)
    line = verdict.error_line
    return replace(
        written(problem, program, verdict, where),
        error_line=None if line is None else line - first_line("".join(texts), program.code) + 1,
        texts=tuple(texts),
        values=tuple(values),
        program_value=program_value,
    )


def written(problem: Problem, program: Program, verdict: Verdict, where: str) -> Illustration:
    """Return a judged program as its code alone, without a critic's values."""
    assert verdict.outcome is not None, "a fault is not an outcome to show"
    return Illustration(
        problem_id=problem.problem_id,
        difficulty=problem.difficulty,
        description=problem.description,
        where=where,
        kind=program.kind,
        index=program.index,
        outcome=verdict.outcome,
        error_subtype=verdict.error_subtype,
        message=verdict.message,
        error_line=verdict.error_line,
        texts=(program.code,),
        values=(),
        program_value=None,
    )


def located(rows: Iterable[Illustration]) -> dict[str, Any]:
    """Return how often the line on which the critic's value falls most is the line that fails.

    Keys: `num_located` (programs with a known line among several), `located_share`, `located_by_chance` (a line at
    random).
    """
    hits, chances = list[bool](), list[float]()
    for row in rows:
        lines = line_values("".join(row.texts), row.texts, row.values)
        if row.error_line is not None and len(lines) > 1:
            hits.append(steepest_fall(lines) == row.error_line)
            chances.append(1 / len(lines))
    count = max(len(hits), 1)
    return {
        "num_located": len(hits),
        "located_share": sum(hits) / count,
        "located_by_chance": sum(chances) / count,
    }
