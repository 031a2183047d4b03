"""A finished run as `summary.json` and `report.html`, from its tables alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from coderl import records, tables
from coderl.evaluation import report
from coderl.evaluation.counts import CLOCKS, JUDGED, numbered, outcomes_by_difficulty
from coderl.evaluation.figures import Curve
from coderl.evaluation.illustrations import Illustration, written
from coderl.evaluation.pass_at_k import ALL, Summary, paired_difference
from coderl.evaluation.report import Contrast, CurveGroup, HeadlineRow, ReportData, Selection
from coderl.recipe import RunConfig
from coderl.stages.console import Reporter
from coderl.stages.evaluate import DRAWN, evaluation
from coderl.stages.search_report import search_figures
from coderl.stages.select import SELECTION, WARM_START
from coderl.stages.warnings import Facts, warnings_of
from coderl.types import LabelledProblem, Outcome, Program, ProgramKey, ProgramKind

MODEL_NAMES = {
    "warm_start": "warm start",
    "ce_control": "more cross-entropy",
    "actor_critic": "actor-critic RL",
}
GREEDY = ProgramKind.BASELINE
MAX_CHANGED = 3
"""Test problems of which the page shows the program before and after reinforcement learning."""
MAX_SHOWN = 8
"""Illustrations of one table that the page shows, of different problems or outcomes."""


def write_report(run_dir: Path, config: RunConfig, problems: Sequence[LabelledProblem], reporter: Reporter) -> Path:
    """Write `summary.json` and `report.html` of a run from its stages; return the report's path.

    Args:
        run_dir: where the run is kept.
        config: the run's.
        problems: the test problems.
        reporter: prints the closing table.

    Raises:
        InputError: a table is missing, cut off or of other rows.
    """
    facts = stage_facts(run_dir)
    selection = selection_of(run_dir)
    scores = _scores(run_dir, config, problems)
    rows = _rows(scores, config, selection)
    warnings = warnings_of(run_dir, facts, rows)
    search = search_figures(run_dir, problems)
    summary: dict[str, Any] = {"name": config.name, "seed": config.seed, "num_test_problems": len(problems)}
    summary |= _summary(scores, config)
    summary["critic"] = {k: v for k, v in _last_critic(facts).items() if k.startswith(("auroc", "accuracy", "major"))}
    if selection is not None:
        summary["selection"] = {**records.plain(selection), "rejected": selection.rejected}
    if search is not None:
        summary["search"] = search.summary
    summary |= {"warnings": warnings, **_costs(facts, is_beside=config.evaluation.control_beside)}
    records.write_json(run_dir / "summary.json", records.plain(summary))
    data = ReportData(
        title=f"coderl: {config.name}",
        abstract=_abstract(config, problems, selection),
        rows=tuple(rows),
        contrasts=tuple(_contrasts(scores, selection)),
        selection=selection,
        warnings=tuple(warnings),
        outcomes=tuple(_outcomes(run_dir, config, problems, selection)),
        curves=(*_validation_curve(selection), *_curves(run_dir)),
        tables=tuple(_tables(facts, selection)),
        reliability=tuple(_reliability(run_dir)),
        illustrations=(*_changed(run_dir, config, problems, selection), *_illustrations(run_dir)),
        tallies=_tallies(facts, problems),
        timings=tuple((name, f["wall_s"], f["cpu_s"] + f.get("sandbox_cpu_s", 0.0)) for name, f in facts),
        settings=_flat(config.model_dump(mode="json")),
        search=None if search is None else search.section,
    )
    path = run_dir / "report.html"
    report.write(path, data)
    reporter.console.print(report.closing_table(data))
    return path


def stage_facts(run_dir: Path) -> Facts:
    """Return the finished stages of a run, in the order they finished, with what each recorded."""
    manifests = sorted(run_dir.rglob(records.MANIFEST), key=lambda p: p.stat().st_mtime)
    return [(p.parent.relative_to(run_dir).as_posix(), records.read_json(p)["facts"]) for p in manifests]


def selection_of(run_dir: Path) -> Selection | None:
    """Return which actor the run kept; None where none was judged."""
    path = run_dir / SELECTION
    return Selection(**records.read_json(path)) if path.exists() else None


def _shown(selection: Selection | None) -> dict[str, str]:
    """Return the models to show: a warm start that was kept is itself, and no result of reinforcement learning."""
    has_none = selection is not None and selection.has_rejected_all
    return {name: title for name, title in MODEL_NAMES.items() if not (has_none and name == "actor_critic")}


# ------------------------------------------------------------------------------------------------------------- scores


def _scores(run_dir: Path, config: RunConfig, problems: Sequence[LabelledProblem]) -> dict[str, Summary]:
    """Return the scores of each model, named `model.t0.6` or `model.greedy`, and of the search."""
    settings, found = config.evaluation, {}
    ks = list(dict.fromkeys([1, *settings.ks]))  # pass@1 is the first figure's, and what models are compared by
    for name in MODEL_NAMES:
        for temperature in settings.temperatures:
            folder = run_dir / "evaluate" / name / f"t{temperature:g}"
            if folder.exists():
                found[f"{name}.{folder.name}"] = evaluation(folder, problems, ks)
                if temperature == settings.temperatures[0]:
                    found[f"{name}.greedy"] = evaluation(folder, problems, [1], greedy=True)
    folder = run_dir / "evaluate" / "actor_critic_cs"
    if folder.exists():
        found["actor_critic_cs"] = evaluation(folder, problems, ks)
    return found


def _rows(scores: Mapping[str, Summary], config: RunConfig, selection: Selection | None) -> list[HeadlineRow]:
    first = f"t{config.evaluation.temperatures[0]:g}"
    shown, rows = _shown(selection), []
    for key, summary in scores.items():
        name, _, decoding = key.partition(".")
        if name in shown:
            is_control = name == "ce_control" or (name == "warm_start" and decoding != first)
            text = "greedy" if decoding == "greedy" else f"T={decoding[1:]}, {summary.size}"
            rows.append(HeadlineRow(shown[name], text, summary, is_control))
    if (search := scores.get("actor_critic_cs")) is not None:
        title = f"{shown.get('actor_critic', shown['warm_start'])} + critic sampling"
        rows.append(HeadlineRow(title, f"T={first[1:]}, {search.size} returned", search))
    return rows


def _summary(scores: Mapping[str, Summary], config: RunConfig) -> dict[str, Any]:
    """Return each model's figures over all problems, the first temperature's without its name."""
    first = f"t{config.evaluation.temperatures[0]:g}"
    found: dict[str, dict[str, float]] = {}
    for key, summary in scores.items():
        name, _, decoding = key.partition(".")
        entry = found.setdefault(name, {})
        if decoding == "greedy":
            entry["greedy"] = summary.scores["pass@1"][ALL].mean
        elif decoding in ("", first):
            entry |= {_key(metric): values[ALL].mean for metric, values in summary.scores.items()}
            entry |= {f"pass_at_1_{end}": getattr(summary.scores["pass@1"][ALL], end) for end in ("low", "high")}
        else:
            entry[f"pass_at_1_{decoding}"] = summary.scores["pass@1"][ALL].mean
    return found


def _key(metric: str) -> str:
    """`pass@1` -> `pass_at_1`; what an n@k says of its fallback stays in the report."""
    return metric.split(" ")[0].replace("@", "_at_")


def _costs(facts: Facts, *, is_beside: bool) -> dict[str, Any]:
    """Return the run's wall and CPU time; what ran beside the control is not counted twice."""
    control = sum(f["wall_s"] for name, f in facts if name.startswith(("ce-control", "evaluate/ce_control")))
    last = ("evaluate/", "binary-critic", "repair")
    others = sum(f["wall_s"] for name, f in facts if name.startswith(last) and "ce_control" not in name)
    wall = sum(f["wall_s"] for _, f in facts) - (min(control, others) if is_beside else 0.0)
    cpu = sum(f["cpu_s"] + f.get("sandbox_cpu_s", 0.0) for _, f in facts)
    return {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1)}


def _contrasts(scores: Mapping[str, Summary], selection: Selection | None) -> list[Contrast]:
    """Return the run's actor against what it has to beat, on the same problems, paired."""
    first = next((name.partition(".")[2] for name in scores if name.startswith("warm_start.")), "")
    ours = "actor_critic" if "actor_critic" in _shown(selection) else "ce_control"
    pairs = [
        (f"{ours}.{first}", f"warm_start.{first}", "warm start"),
        (f"{ours}.{first}", f"ce_control.{first}", "more cross-entropy"),
        (f"{ours}.greedy", "warm_start.greedy", "warm start, both greedy"),
    ]
    contrasts = []
    for better, baseline, title in pairs:
        if baseline in scores and better in scores and better != baseline:
            a, b = (scores[name].by_problem["pass@1"] for name in (better, baseline))
            mean = scores[baseline].scores["pass@1"][ALL].mean
            contrasts.append(Contrast(MODEL_NAMES[ours], title, "pass@1", mean, paired_difference(a, b)))
    return contrasts


def _abstract(config: RunConfig, problems: Sequence[LabelledProblem], selection: Selection | None) -> str:
    question = (
        f"Model {config.actor.init}, problems {config.problems.source}; {len(problems)} test problems that no stage "
        f"trained on. Does learning from unit tests make more programs right than the warm start, greedy decoding or "
        f"more cross-entropy do?"
    )
    if selection is None or not selection.rejected:
        return question
    answer = " The run's actor is the warm start, and its figures are shown once." * selection.has_rejected_all
    return f"{question} {selection.sentence()}{answer}"


def _outcomes(
    run_dir: Path, config: RunConfig, problems: Sequence[LabelledProblem], selection: Selection | None
) -> list[tuple[str, dict[Outcome, int]]]:
    """Return what became of each model's samples: all of them, then by difficulty where there are several."""
    difficulties = {p.problem.problem_id: p.problem.difficulty for p in problems}
    found = []
    for name, title in _shown(selection).items():
        folder = run_dir / "evaluate" / name / f"t{config.evaluation.temperatures[0]:g}" / "execute"
        if folder.exists():
            parts = outcomes_by_difficulty(folder / "verdicts", difficulties, DRAWN)
            found.append((title, {u: sum(counts[u] for counts in parts.values()) for u in Outcome}))
            found += [(f"{title}, {part}", counts) for part, counts in parts.items() if len(parts) > 1]
    return found


def _changed(
    run_dir: Path, config: RunConfig, problems: Sequence[LabelledProblem], selection: Selection | None
) -> list[Illustration]:
    """Return the greedy programs of some problems that only one of warm start and run's actor solves: before, after."""
    by_id = {p.problem.problem_id: p.problem for p in problems}
    models = [name for name in ("warm_start", "actor_critic") if name in _shown(selection)]
    folders = [run_dir / "evaluate" / name / f"t{config.evaluation.temperatures[0]:g}" for name in models]
    if len(folders) < 2 or not all(folder.exists() for folder in folders):
        return []
    ids, solved = list(by_id), list[set[int]]()
    for folder in folders:
        greedy = numbered(folder / "execute" / "verdicts", JUDGED, ids, outcome="outcome").of_kinds({GREEDY})
        solved.append(set(greedy.problems[greedy.outcomes == Outcome.PASSED_TEST].tolist()))
    changed = [ids[at] for at in sorted(solved[0] ^ solved[1])][:MAX_CHANGED]
    keys = {ProgramKey(name, GREEDY, 0) for name in changed}

    def chosen(rows: Iterable[Any], key: Callable[[Any], ProgramKey]) -> list[Any]:
        return list(islice((row for row in rows if key(row) in keys), len(keys)))

    shown = []
    for folder, name in zip(folders, models, strict=True):
        verdicts = tables.read_table(folder / "execute" / "verdicts", JUDGED, without=CLOCKS)
        known = dict(chosen(verdicts, lambda row: row[0]))
        programs = tables.read_table(folder / "sample" / "programs", Program, without=["tokens"])
        for program in chosen(programs, lambda p: p.key):
            verdict = known.get(program.key)
            if verdict is not None and verdict.outcome is not None:
                shown.append(written(by_id[program.problem_id], program, verdict, f"{MODEL_NAMES[name]}, greedy"))
    return sorted(shown, key=lambda one: changed.index(one.problem_id))


# ------------------------------------------------------------------------------------------------------------- rounds

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


def _last_critic(facts: Facts) -> dict[str, Any]:
    return next((f for name, f in reversed(facts) if name.endswith("/critic")), {})


def _tables(facts: Facts, selection: Selection | None) -> list[report.Table]:
    """Return what is known of the critics and of the stability of the rounds."""
    critics = [(n, f) for n, f in sorted(facts) if n.endswith(("critic", "drift")) and f.get("num_held_out")]
    rows = [
        (name, *_cells(f, CRITIC_FACTS), " ".join("-" if v is None else f"{v:.2f}" for v in f["prefix_auroc"]))
        for name, f in critics
    ]
    tables = []
    if rows:
        note = "A row named drift is the critic of the round before on this round's samples of problems new to it."
        columns = ("stage", *CRITIC_FACTS, "AUROC at 25, 50, 75, 100%")
        tables.append(report.Table("Critics on held-out problems", note, columns, tuple(rows)))
    rates = {} if selection is None else selection.pass_rates
    canaries = [(n.split("/")[0], f) for n, f in sorted(facts) if n.startswith("round-") and n.endswith("/actor")]
    rows = [(name, *_cells(f, CANARIES), _percent(rates.get(name))) for name, f in canaries]
    if rows:
        note = "Of the samples drawn in the round, before it trains; KL to the warm start, a token, after it."
        note += f" On validation problems the warm start's programs pass in {_percent(rates.get(WARM_START))}; the"
        note += f" run's actor is that of {'the last round' if selection is None else selection.kept}."
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


def _validation_curve(selection: Selection | None) -> list[CurveGroup]:
    """Return the share of right programs on validation problems, round by round; the warm start is round 0."""
    if selection is None or len(selection.pass_rates) < 2:
        return []
    points = tuple((float(i), 100 * rate) for i, rate in enumerate(selection.pass_rates.values()))
    curve = Curve("validation programs that pass", points, "%")
    return [CurveGroup("score by round", (curve,), "rounds trained; 0 is the warm start")]


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


def _illustrations(run_dir: Path) -> list[Illustration]:
    """Return the first programs of each table of illustrations, of different problems or outcomes."""
    shown = []
    for table in sorted(run_dir.rglob("illustrations")):
        found: dict[tuple[str, Outcome], Illustration] = {}
        for row in tables.read_table(table, Illustration):
            found.setdefault((row.problem_id, row.outcome), row)
        shown += list(found.values())[:MAX_SHOWN]
    return shown


def _tallies(facts: Facts, problems: Sequence[LabelledProblem]) -> dict[str, int]:
    return {
        "test problems without tests": sum(not p.hidden_tests for p in problems),
        "programs of problems without tests": sum(f.get("num_untested", 0) for _, f in facts),
        "sandbox faults (left out)": sum(f.get("outcomes", {}).get("sandbox_fault", 0) for _, f in facts),
    }


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """Return nested settings by their dotted names."""
    if not isinstance(value, dict):
        return {name: str(value)}
    flat = (_flat(inner, f"{name}.{key}" if name else key) for key, inner in value.items())
    return {name: text for part in flat for name, text in part.items()}
