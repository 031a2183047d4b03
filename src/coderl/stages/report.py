"""A finished run as `summary.json` and `report.html`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coderl import records
from coderl.critic.lines import token_texts
from coderl.critic_sampling.candidates import CandidateRow
from coderl.evaluation import report
from coderl.evaluation.figures import Curve
from coderl.evaluation.pass_at_k import (
    ProblemCounts,
    Summary,
    paired_bootstrap,
    summarise,
)
from coderl.evaluation.report import (
    Contrast,
    CurveGroup,
    HeadlineRow,
    OutcomeDistribution,
    ReportData,
    SampleProgram,
)
from coderl.models.lm import LanguageModel
from coderl.recipe import RunConfig
from coderl.stages.console import Reporter
from coderl.stages.search_report import search_figures
from coderl.stages.select import SELECTION, WARM_START
from coderl.stages.stages import facts_of
from coderl.stages.tables import (
    Numbered,
    VerdictRow,
    key,
    numbered,
    outcome_counts,
    programs_of,
    scores_of,
    verdicts_of,
)
from coderl.types import (
    LabelledProblem,
    Outcome,
    Program,
    ProgramKind,
)

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
    outcomes = numbered(verdicts / "verdicts", VerdictRow, ids, outcome="outcome").looked_up(drawn.numbers)
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
        return numbered(stage / "candidates", CandidateRow, ids, outcome="example_outcome")
    return numbered(stage / "verdicts", VerdictRow, ids, outcome="outcome")


def evaluation(
    folder: Path, problems: Sequence[LabelledProblem], ks: Sequence[int], *, greedy: bool = False
) -> Summary:
    """Return the scores of the programs under `folder` (its `sample` and `execute` stages)."""
    examples = folder / "examples" if (folder / "examples").exists() and not greedy else None
    kinds = {ProgramKind.BASELINE} if greedy else DRAWN
    counts = problem_counts(folder / "sample", folder / "execute", problems, kinds=kinds, examples=examples)
    return _summarised(counts, ks, with_examples=examples is not None)


def _summarised(counts: Sequence[ProblemCounts], ks: Sequence[int], *, with_examples: bool) -> Summary:
    """Return the scores for those k of which there are programs enough."""
    most = max((c.num_samples for c in counts), default=1)
    ks = [k for k in ks if k <= most] or [1]
    return summarise(counts, ks, [(1, max(ks))] if with_examples else [])


# ----------------------------------------------------------------------------------------------------------- a run

MODEL_NAMES = {
    "warm_start": "warm start",
    "ce_control": "more cross-entropy",
    "actor_critic": "actor-critic RL",
}


def write_report(
    run_dir: Path, config: RunConfig, problems: Sequence[LabelledProblem], num_rounds: int, reporter: Reporter
) -> Path:
    """Write `summary.json` and `report.html` of a run from its stages; return the report's path."""
    rows, scores = _headline(run_dir, config, problems)
    costs = _costs(run_dir, is_beside=config.evaluation.control_beside)
    summary = {**_summary(run_dir, config, problems, scores), **costs}
    search = search_figures(run_dir, config, problems)
    if search is not None:
        summary["search"] = search.summary
    records.write_json(run_dir / "summary.json", records.plain(summary))
    data = ReportData(
        title=f"coderl: {config.name}",
        abstract=_abstract(config, problems),
        rows=tuple(rows),
        contrasts=tuple(_contrasts(scores)),
        outcomes=tuple(_outcomes(run_dir, config)),
        curves=tuple(_curves(run_dir)),
        tables=tuple(_tables(run_dir)),
        reliability=tuple(_reliability(run_dir)),
        samples=tuple(_samples(run_dir, config, problems, num_rounds)),
        tallies=_tallies(run_dir, problems),
        timings=tuple(report.Timing(name, facts["wall_s"]) for name, facts in stage_facts(run_dir)),
        settings=_flat_settings(config),
    )
    if search is not None:
        data = replace(data, samples=(*data.samples, *search.heat_maps), search=search.section)
    path = run_dir / "report.html"
    report.write(path, data)
    reporter.console.print(report.closing_table(data))
    return path


def _headline(
    run_dir: Path, config: RunConfig, problems: Sequence[LabelledProblem]
) -> tuple[list[HeadlineRow], dict[str, Summary]]:
    """Return the table's rows and each model's summaries, named `model.decoding`."""
    rows, scores = [], {}
    settings = config.evaluation
    first = settings.temperatures[0]
    for name, title in MODEL_NAMES.items():
        for temperature in settings.temperatures:
            folder = run_dir / "evaluate" / name / f"t{temperature:g}"
            if not folder.exists():
                continue
            found = evaluation(folder, problems, settings.ks)
            scores[f"{name}.t{temperature:g}"] = found
            is_control = name == "ce_control" or (name == "warm_start" and temperature != first)
            rows.append(HeadlineRow(title, f"T={temperature:g}, {settings.num_samples} samples", found, is_control))
            if temperature == first:
                greedy = evaluation(folder, problems, [1], greedy=True)
                scores[f"{name}.greedy"] = greedy
                rows.append(HeadlineRow(title, "greedy", greedy, name != "actor_critic"))
    folder = run_dir / "evaluate" / "actor_critic_cs"
    if folder.exists():
        counts = problem_counts(folder / "sample", folder / "execute", problems, examples=folder / "sample")
        found = _summarised(counts, settings.ks, with_examples=True)
        scores["actor_critic_cs"] = found
        rows.append(HeadlineRow("actor-critic RL + critic sampling", f"T={first:g}, twice the programs", found))
    return rows, scores


def _summary(
    run_dir: Path, config: RunConfig, problems: Sequence[LabelledProblem], scores: dict[str, Summary]
) -> dict[str, Any]:
    first = f"t{config.evaluation.temperatures[0]:g}"
    summary: dict[str, Any] = {"name": config.name, "seed": config.seed, "num_test_problems": len(problems)}
    for name in MODEL_NAMES:
        if f"{name}.{first}" not in scores:
            continue
        entry = {_key(metric): values["all"].mean for metric, values in scores[f"{name}.{first}"].scores.items()}
        entry["pass_at_1_standard_error"] = scores[f"{name}.{first}"].scores["pass@1"]["all"].standard_error or 0.0
        entry["greedy"] = scores[f"{name}.greedy"].scores["pass@1"]["all"].mean
        for temperature in config.evaluation.temperatures[1:]:
            entry[f"pass_at_1_t{temperature:g}"] = scores[f"{name}.t{temperature:g}"].scores["pass@1"]["all"].mean
        summary[name] = entry
    if "actor_critic_cs" in scores:
        found = scores["actor_critic_cs"].scores
        summary["actor_critic_cs"] = {_key(metric): values["all"].mean for metric, values in found.items()}
    summary["critic"] = {
        k: v for k, v in _last_facts(run_dir, "/critic").items() if k.startswith(("auroc", "accuracy", "majority"))
    }
    return summary


def _key(metric: str) -> str:
    """`pass@1` -> `pass_at_1`; what an n@k says of its fallback stays in the report."""
    return metric.split(" ")[0].replace("@", "_at_")


def stage_facts(run_dir: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the finished stages of a run, in the order they finished, with what each recorded."""
    manifests = sorted(run_dir.rglob(records.MANIFEST), key=lambda p: p.stat().st_mtime)
    return [(str(p.parent.relative_to(run_dir)), facts_of(p.parent)) for p in manifests]


def _last_facts(run_dir: Path, name: str) -> dict[str, Any]:
    found = [facts for stage, facts in stage_facts(run_dir) if stage.endswith(name)]
    return found[-1] if found else {}


def _costs(run_dir: Path, *, is_beside: bool) -> dict[str, Any]:
    """Return the run's wall and CPU time; what ran beside the control is not counted twice."""
    facts = stage_facts(run_dir)
    control = sum(f["wall_s"] for name, f in facts if name.startswith(("ce-control", "evaluate/ce_control")))
    last = ("evaluate/", "binary-critic", "repair")
    others = sum(f["wall_s"] for name, f in facts if name.startswith(last) and "ce_control" not in name)
    wall = sum(f["wall_s"] for _, f in facts) - (min(control, others) if is_beside else 0.0)
    cpu = sum(f["cpu_s"] + f.get("sandbox_cpu_s", 0.0) for _, f in facts)
    return {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1)}


def _contrasts(scores: dict[str, Summary]) -> list[Contrast]:
    """Return actor-critic against what it has to beat, on the same problems, paired."""
    ours = next((n for n in scores if n.startswith("actor_critic.t")), None)
    if ours is None:
        return []
    decoding = ours.partition(".")[2]
    pairs = [
        (ours, f"warm_start.{decoding}", "warm start"),
        (ours, f"ce_control.{decoding}", "more cross-entropy"),
        ("actor_critic.greedy", "warm_start.greedy", "warm start, both greedy"),
    ]
    contrasts = []
    for better, baseline, title in pairs:
        if baseline in scores and better in scores:
            a, b = scores[better].by_problem["pass@1"], scores[baseline].by_problem["pass@1"]
            mean = scores[baseline].scores["pass@1"]["all"].mean
            contrasts.append(Contrast("actor-critic RL", title, "pass@1", mean, paired_bootstrap(a, b, seed=0)))
    return contrasts


def _abstract(config: RunConfig, problems: Sequence[LabelledProblem]) -> str:
    return (
        f"Model {config.actor.init}, problems {config.problems.source}; {len(problems)} test problems that no stage "
        f"trained on. Does learning from unit tests make more programs right than the warm start, greedy decoding or "
        f"more cross-entropy do?"
    )


def _outcomes(run_dir: Path, config: RunConfig) -> list[OutcomeDistribution]:
    found = []
    for name, title in MODEL_NAMES.items():
        folder = run_dir / "evaluate" / name / f"t{config.evaluation.temperatures[0]:g}" / "execute"
        if folder.exists():
            counts = outcome_counts(folder / "verdicts", DRAWN)
            found.append(OutcomeDistribution(title, {u: counts[u.name.lower()] for u in Outcome}))
    return found


CRITIC_FACTS = {
    "programs": ("num_held_out", "{:,}"),
    "accuracy": ("accuracy", "{:.3f}"),
    "majority": ("majority_accuracy", "{:.3f}"),
    "AUROC": ("auroc", "{:.3f}"),
    "ECE": ("calibration_error", "{:.3f}"),
}
CANARIES = {
    "pass": ("pass_rate", "{:.1%}"),
    "compile errors": ("compile_error_rate", "{:.1%}"),
    "unique": ("unique_share", "{:.1%}"),
    "mean tokens": ("mean_tokens", "{:.1f}"),
    "no return": ("zero_return_share", "{:.1%}"),
    "gradient +": ("grad_norm_positive", "{:.2g}"),
    "gradient -": ("grad_norm_negative", "{:.2g}"),
    "KL after": ("kl_to_reference", "{:.4f}"),
}


def _tables(run_dir: Path) -> list[report.Table]:
    """Return what is known of the critics and of the stability of the rounds."""
    facts = sorted(stage_facts(run_dir))
    critics = [(n, f) for n, f in facts if n.endswith(("critic", "drift")) and f.get("num_held_out")]
    rows = [
        (name, *_cells(f, CRITIC_FACTS), " ".join("-" if v is None else f"{v:.2f}" for v in f["prefix_auroc"]))
        for name, f in critics
    ]
    tables = []
    if rows:
        note = "`drift` is the critic of the round before on this round's samples of problems it has not seen."
        columns = ("stage", *CRITIC_FACTS, "AUROC at 25, 50, 75, 100%")
        tables.append(report.Table("Critics on held-out problems", note, columns, tuple(rows)))
    path = run_dir / SELECTION
    chosen = records.read_json(path) if path.exists() else {"pass_rates": {}, "kept": None}
    canaries = [(n.split("/")[0], f) for n, f in facts if n.startswith("round-") and n.endswith("/actor")]
    rows = [(name, *_cells(f, CANARIES), _percent(chosen["pass_rates"].get(name))) for name, f in canaries]
    if rows:
        start = _percent(chosen["pass_rates"].get(WARM_START))
        note = "Of the samples drawn in the round, before it trains; KL to the warm start, a token, after it."
        note += f" On validation problems the warm start's programs pass in {start}; the run's actor is that of "
        note += f"{chosen['kept'] or 'the last round'}."
        columns = ("round", *CANARIES, "validation after")
        tables.append(report.Table("Canaries", note, columns, tuple(rows)))
    return tables


def _cells(facts: dict[str, Any], named: dict[str, tuple[str, str]]) -> tuple[str, ...]:
    values = [(facts.get(name), form) for name, form in named.values()]
    return tuple("-" if value is None else form.format(value) for value, form in values)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _reliability(run_dir: Path) -> list[tuple[str, tuple[tuple[float, float, int], ...]]]:
    return [
        (
            path.parent.relative_to(run_dir).as_posix(),
            tuple((b["mean_predicted"], b["share_true"], b["count"]) for b in records.read_json(path)["bins"]),
        )
        for path in sorted(run_dir.rglob("calibration.json"))
    ]


CURVES = {
    "loss": "",
    "ce_loss": "nats a token",
    "rl_loss": "",
    "critic_accuracy": "share",
    "grad_norm": "",
    "validation_auroc": "",
    "kl": "nats a token",
    "staleness": "rounds",
}


def _curves(run_dir: Path) -> list[CurveGroup]:
    """Return the training curves of each stage; those of the rounds follow one another."""
    groups: dict[str, dict[str, list[tuple[float, float]]]] = {}
    offsets: Counter[str] = Counter()
    for path in sorted(run_dir.rglob("metrics.jsonl")):
        name = path.parent.relative_to(run_dir).as_posix()
        stage = name.split("/", 1)[1] if name.startswith("round-") else name
        lines = records.read_jsonl(path)
        for line in lines:
            for curve in (name for name in CURVES if line.get(name) is not None):
                point = (float(offsets[stage] + line["step"]), float(line[curve]))
                groups.setdefault(stage, {}).setdefault(curve, []).append(point)
        offsets[stage] += int(lines[-1]["step"]) if lines else 0
    return [
        CurveGroup(
            stage, tuple(Curve(name, tuple(curves[name]), unit) for name, unit in CURVES.items() if name in curves)
        )
        for stage, curves in groups.items()
    ]


def _samples(
    run_dir: Path, config: RunConfig, problems: Sequence[LabelledProblem], num_rounds: int, limit: int = 8
) -> list[SampleProgram]:
    """Return some programs of the last round, one an outcome and difficulty, with the critic's value of each token."""
    found = [p.parent for p in sorted(run_dir.glob("round-*/score")) if p.parent.name < f"round-{num_rounds:02d}"]
    if not found:
        return []
    folder = found[-1]
    scores, verdicts = scores_of(folder / "score"), verdicts_of(folder / "execute")
    descriptions = {p.problem.problem_id: p.problem for p in _train_problems(run_dir)}
    tokenizer = LanguageModel.load(folder / "actor" / "model")
    chosen: dict[tuple[Outcome, str], SampleProgram] = {}
    for program in programs_of(folder / "sample"):
        verdict, scored = verdicts.get(key(program)), scores.get(key(program))
        problem = descriptions.get(program.problem_id)
        if verdict is None or verdict.outcome is None or scored is None or problem is None:
            continue
        texts = token_texts(tokenizer, program.tokens)
        sample = SampleProgram(
            program.problem_id,
            problem.difficulty,
            problem.description,
            folder.name,
            program.kind.value,
            verdict.outcome,
            tuple(zip(texts, scored.passing_values, strict=True)),
            verdict.error_subtype,
            verdict.message,
            verdict.error_line,
            scored.program_probs[-1],
        )
        chosen.setdefault((verdict.outcome, problem.difficulty), sample)
    return [chosen[k] for k in sorted(chosen, key=lambda k: (-k[0], k[1]))][:limit]


def _train_problems(run_dir: Path) -> list[LabelledProblem]:
    from coderl import problems

    return problems.load(run_dir / "problems" / "train.jsonl")


def _tallies(run_dir: Path, problems: Sequence[LabelledProblem]) -> dict[str, int]:
    facts = [f for _, f in stage_facts(run_dir)]
    faults = sum(f.get("outcomes", {}).get("sandbox_fault", 0) for f in facts)
    return {
        "test problems without tests": sum(not p.hidden_tests for p in problems),
        "programs of problems without tests": sum(f.get("num_untested", 0) for f in facts),
        "sandbox faults (masked)": faults,
    }


def _flat_settings(config: RunConfig) -> dict[str, str]:
    flat: dict[str, str] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                visit(f"{prefix}.{name}" if prefix else name, inner)
        else:
            flat[prefix] = str(value)

    visit("", config.model_dump(mode="json"))
    return flat
