"""Critic sampling against plain sampling of as many tokens, as a run's tables tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coderl import records
from coderl.critic_sampling import anytime
from coderl.critic_sampling.anytime import METRICS, Attempt, Attempts, mean
from coderl.critic_sampling.candidates import CandidateRow
from coderl.evaluation.figures import Curve
from coderl.evaluation.illustrations import Illustration, located
from coderl.evaluation.pass_at_k import average, columns_of, paired_difference, percent
from coderl.evaluation.report import SearchSection, Table
from coderl.stages.tables import Key, Ranked, VerdictRow, key, programs_of, verdicts_of
from coderl.types import LabelledProblem, Outcome, Program, ProgramKind

FOLDER = Path("evaluate") / "search"
"""Where a run keeps the comparison: `searched` and `plain`, each with `sample`, `execute` and `rank`."""
NUM_POINTS = 12
NAMES = {"searched": "critic sampling", "plain": "plain sampling"}


def of_search(stage: Path, verdicts: Mapping[Key, VerdictRow], ranking: Path | None = None) -> Attempts:
    """Return all candidates of a `critic-sample` stage that kept them all (`keep = "all"`).

    Args:
        stage: the folder of the stage.
        verdicts: on the hidden tests; a candidate without one counts as wrong.
        ranking: the folder of its `rank` stage, for behaviours and for values the search did not ask for.
    """
    ranked = _ranked(ranking)
    found: Attempts = {}
    for row in records.read_table(stage / "candidates", CandidateRow):
        program = Program(row.problem_id, row.index, row.code, row.kind, row.tokens)
        place = ranked.get(key(program))
        attempt = Attempt(
            program, row.round, row.parent, row.num_prefix_tokens, row.num_tokens_so_far, row.example_outcome,
            _is_correct(verdicts, program), row.program_value if place is None else place.program_value,
            _behaviour(place),
        )  # fmt: skip
        found.setdefault(row.problem_id, []).append(attempt)
    return found


def of_samples(stage: Path, verdicts: Mapping[Key, VerdictRow], ranking: Path) -> Attempts:
    """Return the programs of a `sample` stage, with what its `rank` stage says of them."""
    ranked, found = _ranked(ranking), Attempts()
    for program in sorted(programs_of(stage), key=lambda p: p.index):
        if program.kind is ProgramKind.SAMPLE:
            before, place = found.setdefault(program.problem_id, []), ranked.get(key(program))
            spent = (before[-1].num_tokens if before else 0) + len(program.tokens)
            outcome, value = (place.example_outcome, place.program_value) if place else (None, None)
            right = _is_correct(verdicts, program)
            before.append(Attempt(program, 0, None, 0, spent, outcome, right, value, _behaviour(place)))
    return found


def _ranked(stage: Path | None) -> dict[Key, Ranked]:
    rows = records.read_table(stage / "rankings", Ranked) if stage is not None else ()
    return {key(row): row for row in rows}


def _behaviour(row: Ranked | None) -> tuple[str, ...]:
    return () if row is None or row.behaviour is None else (str(row.behaviour),)


def _is_correct(verdicts: Mapping[Key, VerdictRow], program: Program) -> bool:
    verdict = verdicts.get(key(program))
    return verdict is not None and verdict.outcome is Outcome.PASSED_TEST


# ------------------------------------------------------------------------------------------------------------ figures


@dataclass(frozen=True, slots=True)
class SearchFigures:
    """What a run says of its search: the page's section, and figures for `summary.json`."""

    section: SearchSection
    summary: dict[str, Any]


def search_figures(run_dir: Path, problems: Sequence[LabelledProblem]) -> SearchFigures | None:
    """Return the figures of a run's search, from its stages; None where the run has not compared it."""
    out = run_dir / FOLDER
    if not (out / "searched" / "rank").exists():
        return None
    search = run_dir / "evaluate" / "actor_critic_cs" / "sample"
    arms = {}
    for name, read in (("searched", of_search), ("plain", of_samples)):
        source = search if name == "searched" else out / name / "sample"
        arms[name] = read(source, verdicts_of(out / name / "execute"), out / name / "rank")
    budgets = anytime.common_budgets(*arms.values())
    scores = {
        name: {m: anytime.score(attempts, budgets, f) for m, f in METRICS.items()} for name, attempts in arms.items()
    }
    parts = anytime.contributions(arms["searched"])
    read = out / "searched" / "illustrate" / "illustrations"
    found = located(records.read_table(read, Illustration) if read.exists() else ())
    section = SearchSection(
        lead=f"Both begin with the same programs and are cut, problem by problem, to the tokens that both have drawn: "
        f"{mean(list(budgets.values())):.0f} a problem in the mean. n@all submits n of the programs that pass the "
        f"example tests, any n or the best ranked; none where none passes. A search that has ended stays where it is.",
        curves=tuple(_curves(arms)),
        tables=(_by_difficulty(scores, problems), _parts(parts), _located(found)),
    )
    gains = {
        "one_at_all_gain": paired_difference(scores["searched"]["1@all ranked"], scores["plain"]["1@all"]),
        "pass_at_all_gain": paired_difference(scores["searched"]["pass@all"], scores["plain"]["pass@all"]),
    }
    return SearchFigures(section, {**records.plain(gains), **parts, **found})


def _curves(arms: dict[str, Attempts]) -> list[tuple[str, tuple[Curve, ...]]]:
    """Return, for each metric, the curve of critic sampling and that of plain sampling, as far as both have drawn."""
    most = min(max(a[-1].num_tokens for a in attempts.values()) for attempts in arms.values())
    budgets = [round(most * (i + 1) / NUM_POINTS) for i in range(NUM_POINTS)]
    return [
        (
            f"{metric}, % of problems",
            tuple(
                Curve(NAMES[name], tuple((x, 100 * y) for x, y in anytime.curve(attempts, budgets, METRICS[metric])))
                for name, attempts in arms.items()
            ),
        )
        for metric in ("pass@all", "1@all", "1@all ranked")
    ]


def _by_difficulty(scores: dict[str, dict[str, dict[str, float]]], problems: Sequence[LabelledProblem]) -> Table:
    difficulties = {p.problem.problem_id: p.problem.difficulty for p in problems}
    names = columns_of(difficulties.values())
    rows = []
    for metric in METRICS:
        for name, title in NAMES.items():
            found = average(scores[name][metric], difficulties)
            rows.append((f"{metric}, {title}", *(percent(found.get(d)) for d in names)))
    note = "Percent of problems, with 95% intervals."
    return Table("At equal tokens, by difficulty", note, ("metric", *names), tuple(rows))


def _parts(parts: dict[str, Any]) -> Table:
    rows = tuple(
        (
            title,
            f"{parts[f'num_{kind}']:,}",
            f"{100 * parts[f'correct_share_{kind}']:.1f}%",
            f"{parts[f'solved_by_{kind}']}",
        )
        for kind, title in (("sample", "sampled"), ("repaired", "repaired"), ("refined", "refined"))
    )
    kept, share = (f"{100 * parts[name]:.1f}%" for name in ("prefix_kept_share", "mean_prefix_share"))
    note = (
        f"A problem is solved by the kind of its first right program. {kept} of the refined programs keep some of "
        f"their parent: {share} of its tokens in the mean."
    )
    return Table("What each part adds", note, ("programs", "number", "right", "problems solved first"), rows)


def _located(found: dict[str, Any]) -> Table:
    rows = (
        ("the line on which the value falls most", f"{100 * found['located_share']:.1f}%"),
        ("a line at random", f"{100 * found['located_by_chance']:.1f}%"),
    )
    note = f"Of {found['num_located']} distinct programs that crash on a known line of more than one."
    return Table("How often the critic finds the failing line", note, ("guess", "right"), rows)
