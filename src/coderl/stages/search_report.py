"""Critic sampling against plain sampling in a run: the stages that compare them for as many tokens, and the figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coderl import records
from coderl.critic.lines import line_values, steepest_fall, token_texts
from coderl.critic.model import Critic
from coderl.critic_sampling.candidates import CandidateRow
from coderl.critic_sampling.models import PrefixScorer
from coderl.engines.settings import SampleConfig
from coderl.evaluation import anytime
from coderl.evaluation.anytime import (
    METRICS,
    Attempt,
    Attempts,
    mean,
)
from coderl.evaluation.figures import Curve
from coderl.evaluation.pass_at_k import ALL, average, paired_bootstrap
from coderl.evaluation.report import SampleProgram, SearchSection, Table
from coderl.recipe import RunConfig
from coderl.stages import stages
from coderl.stages.console import Reporter
from coderl.stages.rank import rank_programs
from coderl.stages.tables import (
    VerdictRow,
    key,
    programs_of,
    verdicts_of,
)
from coderl.types import (
    LabelledProblem,
    Outcome,
    Program,
    ProgramKind,
)

FOLDER = Path("evaluate") / "search"
"""Where a run keeps the comparison: `searched` and `plain`, each with `sample`, `execute` and `rank`."""
MORE_SAMPLES = 1.5
"""Plain samples drawn beside those of the first round, in first rounds: a search costs two to three."""
NUM_INPUTS = 8
NUM_POINTS = 12
MAX_LOCATED = 100
"""Crashing programs at most on which the critic's steepest fall is compared with the failing line."""
NAMES = {"searched": "critic sampling", "plain": "plain sampling"}


# ------------------------------------------------------------------------------------------------------------- stages


def compare(
    config: RunConfig, run_dir: Path, problems: Sequence[LabelledProblem], actor: Path | str, reporter: Reporter
) -> None:
    """Judge and rank all candidates of the run's search, and plain samples of about as many tokens."""
    settings = config.evaluation
    first = f"t{settings.temperatures[0]:g}"
    drawn = settings.sampling.model_copy(update={"temperature": settings.temperatures[0]})
    more = SampleConfig(num_samples=math.ceil(MORE_SAMPLES * settings.num_samples), sampling=drawn)
    out, bare = run_dir / FOLDER, [p.problem for p in problems]
    stages.sample(out / "more", actor=actor, problems=bare, config=more, prompt=config.prompt, seed=config.seed + 3000,
                  greedy=False, reporter=reporter)  # fmt: skip
    search = run_dir / "evaluate" / "actor_critic_cs" / "sample"
    before = run_dir / "evaluate" / "actor_critic" / first / "sample"
    _gather(out / "plain" / "sample", (before, out / "more"), reporter)
    _gather(out / "searched" / "sample", (search,), reporter)
    for name in NAMES:
        stages.execute(out / name / "execute", programs=out / name / "sample", problems=problems,
                       config=config.execution, reporter=reporter)  # fmt: skip
        rank_programs(
            out / name / "rank", programs=out / name / "sample", problems=bare,
            critic=run_dir / "binary-critic" / "model", num_inputs=NUM_INPUTS, execution=config.execution,
            prompt=config.prompt, seed=config.seed, reporter=reporter,
        )  # fmt: skip


def _gather(out: Path, sources: Sequence[Path], reporter: Reporter) -> None:
    """Write the samples of some stages as one, or all candidates of a search."""
    tables = [s / ("candidates" if (s / "candidates").exists() else "programs") for s in sources]

    def work(folder: Path) -> dict[str, Any]:
        rows: list[Program] = []
        if tables[0].name == "candidates":
            found = records.read_table(tables[0], CandidateRow)
            rows = [Program(r.problem_id, r.index, r.code, r.kind, r.tokens) for r in found]
        else:
            counts: dict[str, int] = {}
            for program in (p for source in sources for p in programs_of(source) if p.kind is ProgramKind.SAMPLE):
                index = counts.get(program.problem_id, 0)
                rows.append(Program(program.problem_id, index, program.code, program.kind, program.tokens))
                counts[program.problem_id] = index + 1
        return {"num_programs": records.PartedTable(folder / "programs", Program).write(0, rows)}

    inputs = {f"programs_{i}": records.hash_path(table) for i, table in enumerate(tables)}
    stages.run_stage(out, reporter, config={}, inputs=inputs, work=work)


# ------------------------------------------------------------------------------------------------------------ figures


@dataclass(frozen=True, slots=True)
class SearchFigures:
    """What a run says of its search: the page's section, heat maps to read, and figures for `summary.json`."""

    section: SearchSection
    heat_maps: tuple[SampleProgram, ...]
    summary: dict[str, Any]


def search_figures(run_dir: Path, config: RunConfig, problems: Sequence[LabelledProblem]) -> SearchFigures | None:
    """Return the figures of a run's search, from its stages; None where the run has not compared it."""
    out = run_dir / FOLDER
    if not (out / "searched" / "rank").exists():
        return None
    search = run_dir / "evaluate" / "actor_critic_cs" / "sample"
    arms = {}
    for name, read in (("searched", anytime.of_search), ("plain", anytime.of_samples)):
        source = search if name == "searched" else out / name / "sample"
        arms[name] = read(source, verdicts_of(out / name / "execute"), out / name / "rank")
    budgets = anytime.common_budgets(*arms.values())
    scores = {
        name: {m: anytime.score(attempts, budgets, f) for m, f in METRICS.items()} for name, attempts in arms.items()
    }
    parts = anytime.contributions(arms["searched"])
    heat_maps, located = _heat_maps(run_dir, config, problems, arms["searched"])
    section = SearchSection(
        lead=f"Both begin with the same programs and are cut, problem by problem, to the tokens that both have drawn: "
        f"{mean(list(budgets.values())):.0f} a problem in the mean. n@all submits n of the programs that pass the "
        f"example tests, any n or the best ranked; none where none passes. A search that has ended stays where it is.",
        curves=tuple(_curves(arms)),
        tables=(_by_difficulty(scores, problems), _parts(parts), _located(located)),
    )
    gains = {
        "one_at_all_gain": paired_bootstrap(scores["searched"]["1@all ranked"], scores["plain"]["1@all"], seed=0),
        "pass_at_all_gain": paired_bootstrap(scores["searched"]["pass@all"], scores["plain"]["pass@all"], seed=0),
    }
    return SearchFigures(section, heat_maps, {**records.plain(gains), **parts, **located})


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
    names = [ALL, *dict.fromkeys(difficulties.values())]
    rows = []
    for metric in METRICS:
        for name, title in NAMES.items():
            found = average(scores[name][metric], difficulties)
            cells = (f"{100 * found[d].mean:.1f}" if d in found else "-" for d in names)
            rows.append((f"{metric}, {title}", *cells))
    return Table("At equal tokens, by difficulty", "Percent of problems.", ("metric", *names), tuple(rows))


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


def _heat_maps(
    run_dir: Path, config: RunConfig, problems: Sequence[LabelledProblem], attempts: Attempts, limit: int = 4
) -> tuple[tuple[SampleProgram, ...], dict[str, Any]]:
    """Return crashing programs with the critic's value of each token, and how often its fall is the failing line."""
    by_id = {p.problem.problem_id: p.problem for p in problems}
    verdicts = verdicts_of(run_dir / FOLDER / "searched" / "execute")
    chosen: dict[tuple[str, str], tuple[Attempt, VerdictRow]] = {}
    for tried in attempts.values():
        for attempt in tried:
            program = attempt.program
            verdict = verdicts.get(key(program))
            is_crash = verdict is not None and verdict.outcome is Outcome.RUNTIME_ERROR and verdict.error_line
            if is_crash and verdict and program.tokens and len(program.code.splitlines()) > 1:
                chosen.setdefault((program.problem_id, program.code), (attempt, verdict))
    pairs = list(chosen.values())[:MAX_LOCATED]
    critic = Critic.load(run_dir / "binary-critic" / "model") if pairs else None
    items = [(by_id[a.program.problem_id], a.program) for a, _ in pairs]
    scores = PrefixScorer(critic, config.prompt).score(items) if critic else []
    hits, chances, maps = [], [], []
    for (attempt, verdict), (problem, program), score in zip(pairs, items, scores, strict=True):
        assert critic is not None
        lines = line_values(program.code, critic.model, program.tokens, score.prefix_values)
        hits.append(steepest_fall(lines) == verdict.error_line)
        chances.append(1 / len(lines))
        if len(maps) < limit and program.problem_id not in {m.problem_id for m in maps}:
            texts = token_texts(critic.model, program.tokens)
            maps.append(
                SampleProgram(
                    program.problem_id, problem.difficulty, problem.description, "critic sampling, binary critic",
                    program.kind.value, verdict.outcome, tuple(zip(texts, score.prefix_values, strict=True)),
                    verdict.error_subtype, verdict.message, verdict.error_line, attempt.program_value,
                )
            )  # fmt: skip
    found = {"num_located": len(pairs), "located_share": mean(hits), "located_by_chance": mean(chances)}
    return tuple(maps), found
