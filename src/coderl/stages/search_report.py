"""Critic sampling against plain sampling of as many tokens, as a run's tables tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coderl import records, tables
from coderl.critic_sampling import anytime
from coderl.critic_sampling.anytime import METRICS, Arm, as_candidates, mean
from coderl.critic_sampling.candidates import NOT_IN_TABLES, Candidate
from coderl.critic_sampling.ranking import RANKED, Ranking
from coderl.evaluation.figures import Curve
from coderl.evaluation.illustrations import Illustration, located
from coderl.evaluation.pass_at_k import average, columns_of, paired_difference, percent
from coderl.evaluation.report import SearchSection, Table
from coderl.stages.rollouts import programs_of, verdicts_of
from coderl.types import LabelledProblem, Outcome, ProgramKey, Verdict

FOLDER = Path("evaluate") / "search"
"""Where a run keeps the comparison: `searched` and `plain`, each with `sample`, `execute` and `rank`."""
NUM_POINTS = 12
MAX_FORKS = 20
"""Lines of the table of forced tokens."""
NAMES = {"searched": "critic sampling", "plain": "plain sampling"}


def arm_of(candidates: dict[str, list[Candidate]], verdicts: Path, ranking: Path) -> Arm:
    """Return candidates with what the hidden tests say of them, and values and behaviours of their `rank` stage.

    Args:
        candidates: problem -> its programs, in the order drawn.
        verdicts: the folder of their `execute` stage; a program without a verdict counts as wrong.
        ranking: the folder of their `rank` stage.
    """
    ranked: dict[ProgramKey, Ranking] = dict(tables.read_table(ranking / "rankings", RANKED))
    judged = verdicts_of(verdicts)
    correct = {key for key, verdict in judged.items() if verdict.outcome is Outcome.PASSED_TEST}
    behaviours = {key: (str(r.behaviour),) for key, r in ranked.items() if r.behaviour is not None}

    def completed(candidate: Candidate) -> Candidate:
        place = ranked.get(candidate.program.key)
        if place is None:
            return candidate
        shown = candidate.result or (Verdict(place.example_outcome) if place.example_outcome is not None else None)
        return replace(candidate, result=shown, program_value=place.program_value)

    return Arm({name: list(map(completed, drawn)) for name, drawn in candidates.items()}, correct, behaviours)


def candidates_of(stage: Path) -> dict[str, list[Candidate]]:
    """Return all candidates of a `critic-sample` stage, by problem."""
    found: dict[str, list[Candidate]] = {}
    for candidate in tables.read_table(stage / "candidates", Candidate, without=NOT_IN_TABLES):
        found.setdefault(candidate.program.problem_id, []).append(candidate)
    return found


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
    drawn = {"searched": candidates_of(search), "plain": as_candidates(programs_of(out / "plain" / "sample"), {})}
    arms = {name: arm_of(found, out / name / "execute", out / name / "rank") for name, found in drawn.items()}
    budgets = budgets_of(arms["searched"], arms["plain"])
    scores = {name: {m: anytime.score(arm, budgets, f) for m, f in METRICS.items()} for name, arm in arms.items()}
    parts = anytime.contributions(arms["searched"])
    read = out / "searched" / "illustrate" / "illustrations"
    found = located(tables.read_table(read, Illustration) if read.exists() else ())
    section = SearchSection(
        lead=f"Both begin with the same programs and are cut, problem by problem, to the tokens that both have drawn: "
        f"{mean(list(budgets.values())):.0f} a problem in the mean. n@all submits n of the programs that pass the "
        f"example tests, any n or the best ranked; none where none passes. A search that has ended stays where it is.",
        curves=tuple(_curves(arms)),
        tables=(_by_difficulty(scores, problems), _parts(parts), *_forks(arms["searched"]), _located(found)),
    )
    gains = {
        "one_at_all_gain": paired_difference(scores["searched"]["1@all ranked"], scores["plain"]["1@all"]),
        "pass_at_all_gain": paired_difference(scores["searched"]["pass@all"], scores["plain"]["pass@all"]),
    }
    return SearchFigures(section, {**records.plain(gains), **parts, **found})


def budgets_of(searched: Arm, plain: Arm) -> dict[str, int]:
    """Return, for each problem, the tokens to which both sides are cut: what both have drawn.

    A search from the greedy program that has found what it looks for draws no more, and is not cut: plain samples then
    have all of theirs.
    """
    budgets = anytime.common_budgets(searched, plain)
    if any(c.fork for drawn in searched.candidates.values() for c in drawn):
        for name in budgets:
            if any(c.passes for c in searched.candidates[name]):
                budgets[name] = plain.candidates[name][-1].num_tokens_so_far
    return budgets


def _curves(arms: dict[str, Arm]) -> list[tuple[str, tuple[Curve, ...]]]:
    """Return, for each metric, the curve of critic sampling and that of plain sampling, as far as both have drawn."""
    most = min(max(drawn[-1].num_tokens_so_far for drawn in arm.candidates.values()) for arm in arms.values())
    budgets = [round(most * (i + 1) / NUM_POINTS) for i in range(NUM_POINTS)]
    return [
        (
            f"{metric}, % of problems",
            tuple(
                Curve(NAMES[name], tuple((x, 100 * y) for x, y in anytime.curve(arm, budgets, METRICS[metric])))
                for name, arm in arms.items()
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
    kinds = (("sample", "sampled"), ("branched", "branched"), ("repaired", "repaired"), ("refined", "refined"))
    rows = tuple(
        (
            title,
            f"{parts[f'num_{kind}']:,}",
            f"{100 * parts[f'correct_share_{kind}']:.1f}%",
            f"{parts[f'solved_by_{kind}']}",
        )
        for kind, title in kinds
    )
    kept, share = (f"{100 * parts[name]:.1f}%" for name in ("prefix_kept_share", "mean_prefix_share"))
    note = (
        f"A problem is solved by the kind of its first right program. {kept} of the refined programs keep some of "
        f"their parent: {share} of its tokens in the mean."
    )
    return Table("What each part adds", note, ("programs", "number", "right", "problems solved first"), rows)


def _forks(arm: Arm) -> list[Table]:
    """Return the table of branches with which searches ended: which token was forced, where."""
    rows = []
    for name, drawn in arm.candidates.items():
        first = next((c for c in drawn if c.passes), None)
        if first is not None and (fork := first.fork) is not None:
            is_right = "yes" if arm.num_correct([first]) else "no"
            place = (str(first.program.index), str(fork.line), repr(fork.forced), repr(fork.replaced))
            rows.append((name, *place, f"{fork.score:.2f}", is_right))
    if not rows:
        return []
    note = (
        f"{len(rows)} problems on which the greedy program fails the examples and a branch passes them, the first "
        f"{min(len(rows), MAX_FORKS)} here. The log ratio adds up over all tokens forced on the way."
    )
    headings = ("problem", "try", "line", "forced", "for", "log ratio", "right")
    return [Table("Which token made a program pass", note, headings, tuple(rows[:MAX_FORKS]))]


def _located(found: dict[str, Any]) -> Table:
    rows = (
        ("the line on which the value falls most", f"{100 * found['located_share']:.1f}%"),
        ("a line at random", f"{100 * found['located_by_chance']:.1f}%"),
    )
    note = f"Of {found['num_located']} distinct programs that crash on a known line of more than one."
    return Table("How often the critic finds the failing line", note, ("guess", "right"), rows)
