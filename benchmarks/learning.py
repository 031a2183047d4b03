"""Whether reinforcement learning from unit tests teaches more than its controls do, on MiniAPPS.

    python benchmarks/learning.py [--quick] [--seeds 5] [--arms uniform rloo ...] [--out DIR] --json FILE
    python benchmarks/learning.py --ablations --json FILE      # Tables 2 and 3 of the paper

Each seed is a MiniAPPS of its own with a model of its own: one warm start, and from it every arm, with as many
problems, samples and updates; the control with more cross-entropy trains on as many tokens as the actor-critic arm drew
and trained on. Each model is tested at the temperature that suits it best on validation
problems. Intervals are of paired differences over (seed, problem). Every part is a stage folder under `--out`: a killed
benchmark continues where it was. Flags of the recipe (`--rounds.num-rounds 2`) may follow.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from coderl import records
from coderl.engines.settings import SampleConfig
from coderl.evaluation.figures import DotRow, dot_chart
from coderl.evaluation.pass_at_k import Estimate, Summary, paired_difference
from coderl.recipe import RunConfig, load_recipe
from coderl.stages.console import Reporter
from coderl.stages.evaluate import evaluation
from coderl.stages.execute import execute
from coderl.stages.run import Run, bare, more_cross_entropy, reinforced, supervised
from coderl.stages.sample import sample
from coderl.stages.split_problems import kept_splits, split_problems
from coderl.stages.train_actor import train_actor
from coderl.types import LabelledProblem

FIRST_SEED = 10
"""Of the MiniAPPS that are measured on: settings were chosen on the validation problems of smaller seeds."""
TEMPERATURES = (0.2, 0.4, 0.6, 0.8)
KS = (1, 5)
PANELS = {"pass@1": "pass_at_1", "pass@5": "pass_at_5", "greedy": "greedy"}
RECIPE = Path(__file__).resolve().parents[1] / "src" / "coderl" / "demo.toml"

CONTROL = "ce_control"
REJECTION = "rejection_sampling"
UNIFORM: dict[str, Any] = {"returns.spread": "uniform", "actor_training.rl_weight": 1.0}
RATE = "actor_training.optim.learning_rate"
PAPER: dict[str, Any] = {"returns.baseline": "greedy", "returns.filter": "all", RATE: 3e-6}
ARMS: dict[str, dict[str, Any]] = {
    "actor_critic": {},
    "uniform": UNIFORM,
    "linear_decay": {"returns.spread": "linear_decay"},
    REJECTION: {"returns.baseline": "none", "returns.filter": "positive_only", **UNIFORM},
    "rloo": {
        "returns.baseline": "leave_one_out",
        "returns.filter": "all",
        "returns.count_copies": True,
        **UNIFORM,
        RATE: 1e-5,
    },
    "grpo": {
        "returns.baseline": "group_normalised",
        "returns.filter": "all",
        "returns.count_copies": True,
        **UNIFORM,
        "actor_training.clip_range": 0.2,
        "actor_training.kl_weight": 0.04,
        RATE: 3e-4,
    },
    "paper": PAPER,
    "paper_uniform": {**PAPER, **UNIFORM},
    "paper_no_baseline": {**PAPER, "returns.baseline": "none"},
    "paper_linear_decay": {**PAPER, "returns.spread": "linear_decay"},
    "paper_rl_only": {**PAPER, "actor_training.ce_weight": 0.0},
    CONTROL: {},
}
"""What each arm changes in the recipe. Arms that learn from negative returns have the rate that did best on validation
problems of seed 5: at the recipe's they end with no program right. Rejection sampling is cross-entropy, from the warm
start, on those samples of the actor-critic arm that passed, with as many updates as all its rounds; the uniform spread
draws its own."""
GROUPED = {"rloo": 4, "grpo": 4, **{name: 4 for name in ARMS if name.startswith("paper")}}
"""Samples a problem at least, of arms that compare them: they draw as many programs, for fewer problems."""
DEFAULT_ARMS = ["uniform", "linear_decay", REJECTION, "rloo", "grpo", "paper", CONTROL]
QUICK_ARMS = [REJECTION, CONTROL]
QUICK_FLAGS = ["--actor-training.optim.num-steps", "900"]
"""Half of the updates: 11 CPU-minutes a seed."""
ABLATION_FLAGS = ["--rounds.num-rounds", "1"]
"""The paper's training has one round."""
ABLATIONS = ["paper_uniform", "paper_no_baseline", "paper_linear_decay", "paper", CONTROL, REJECTION, "paper_rl_only"]
"""The rows of the paper's Table 2 (A to D), then of Table 3 (CE, CE with samples, RL; both together is D)."""

Scores = dict[str, float]
"""Of each (seed, problem)."""


@dataclass(frozen=True)
class Measured:
    """One model of one seed, on the test problems."""

    temperature: float
    sampled: Summary
    greedy: Summary
    train_cpu_s: float


# ------------------------------------------------------------------------------------------------------------- a seed


def run_seed(seed: int, out: Path, recipe: Path, flags: Sequence[str], arms: Sequence[str]) -> None:
    """Train and evaluate the warm start and every arm of one seed under `out`."""
    config = recipe_of(seed, recipe, flags)
    torch.set_num_threads(1)
    run = Run(out / f"seed-{seed}", config, Reporter(quiet=True))
    run.splits = kept_splits(run.do(split_problems, "problems", config=config.problems))
    warm = supervised(run)
    evaluate(run, "warm_start", warm)
    for arm in arms:
        evaluate(run, arm, train_arm(run, arm, warm))


def recipe_of(seed: int, recipe: Path, flags: Sequence[str]) -> RunConfig:
    """Return the settings of one seed: the recipe's, on a MiniAPPS of that seed."""
    config = load_recipe(recipe, flags)
    source = f"{config.problems.source}{',' if ':' in config.problems.source else ':'}seed={seed}"
    problems = config.problems.model_copy(update={"source": source})
    evaluation = config.evaluation.model_copy(update={"ce_control_steps": None})
    return config.model_copy(update={"seed": seed, "problems": problems, "evaluation": evaluation})


def train_arm(run: Run, arm: str, warm: Path | str) -> Path | str:
    """Return the model of an arm; the control's budget is what the actor-critic arm took."""
    if arm == CONTROL:
        return more_cross_entropy(replace(run, folder=run.folder / "actor_critic"), warm)
    settings = arm_config(arm, run.config)
    if arm == REJECTION:
        return _rejection_sampling(replace(run, config=settings), warm)
    _share_first_round(arm, run.config, run.folder)
    return reinforced(replace(run, folder=run.folder / arm, config=settings), warm)


def arm_config(arm: str, config: RunConfig) -> RunConfig:
    """Return the recipe with what the arm changes in it."""
    settings = config.model_dump(mode="json")
    for name, value in ARMS[arm].items():
        *groups, key = name.split(".")
        reduce(lambda group, part: group[part], groups, settings)[key] = value
    rounds, wanted = settings["rounds"], GROUPED.get(arm, 1)
    num_samples = rounds["sample"]["num_samples"]
    if num_samples < wanted and rounds["problems_per_round"]:
        rounds["sample"]["num_samples"] = wanted
        rounds["problems_per_round"] = max(rounds["problems_per_round"] * num_samples // wanted, 1)
    return RunConfig.model_validate(settings)


def _rejection_sampling(run: Run, warm: Path | str) -> Path:
    config = run.config
    rounds = sorted((run.folder / "actor_critic").glob("round-*"))
    optim = config.actor_training.optim
    limits = {name: value * len(rounds) for name in ("num_steps", "num_epochs") if (value := getattr(optim, name))}
    more = config.actor_training.model_copy(update={"optim": optim.model_copy(update=limits)})
    pools = {"programs": [r / "sample" for r in rounds], "verdicts": [r / "execute" for r in rounds]}
    how = {"problems": run.splits.train, "config": more, "returns": config.returns, "prompt": config.prompt}
    return run.do(train_actor, f"{REJECTION}/actor", actor=warm, **pools, **how) / "model"


def _share_first_round(arm: str, config: RunConfig, folder: Path) -> None:
    """Copy what an earlier arm drew from the warm start, and its critic's values, where this arm would do the same."""
    settings = arm_config(arm, config)
    parts = ("sample", "execute", "critic", "score") if settings.returns.spread == "critic" else ("sample", "execute")
    for other in ARMS:
        found = arm_config(other, config)
        if (found.rounds, found.returns.baseline) != (settings.rounds, settings.returns.baseline):
            continue
        for name in parts:
            source, target = (folder / of / "round-00" / name for of in (other, arm))
            if (source / records.MANIFEST).exists() and not target.exists():
                shutil.copytree(source, target)


# ---------------------------------------------------------------------------------------------------------- evaluation


def evaluate(run: Run, name: str, model: Path | str) -> None:
    """Draw and run validation programs at every temperature, and test programs at the best of them and greedily."""
    place = f"evaluate/{name}"
    for temperature in TEMPERATURES:
        _draw(run, f"{place}/validation-t{temperature:g}", model, run.splits.validation, temperature, greedy=False)
    best = best_temperature(run.folder / place, run.splits.validation)
    _draw(run, f"{place}/test-t{best:g}", model, run.splits.test, best, greedy=True)


def best_temperature(folder: Path, validation: Sequence[LabelledProblem]) -> float:
    """Return the temperature with the highest pass@1 on validation problems."""
    scores = {t: _pass_at_1(evaluation(folder / f"validation-t{t:g}", validation, KS)) for t in TEMPERATURES}
    return max(scores, key=lambda t: scores[t])


def _draw(
    run: Run, place: str, model: Path | str, problems: Sequence[LabelledProblem], temperature: float, *, greedy: bool
) -> None:
    settings = run.config.evaluation
    drawn = settings.sampling.model_copy(update={"temperature": temperature})
    num_samples = settings.num_samples if greedy else max(settings.num_samples // 2, 1)
    config = SampleConfig(num_samples=num_samples, sampling=drawn)
    how = {"config": config, "prompt": run.config.prompt, "seed": run.seed("evaluate"), "greedy": greedy}
    programs = run.do(sample, f"{place}/sample", actor=model, problems=bare(problems), **how)
    run.do(execute, f"{place}/execute", programs=programs, problems=problems, config=run.config.execution)


def _pass_at_1(summary: Summary) -> float:
    return summary.scores["pass@1"]["all"].mean


# ------------------------------------------------------------------------------------------------------------- figures


def measured(folder: Path, model: str) -> Measured:
    """Return how a model of one seed did on its test problems, and the CPU-seconds its training took."""
    splits = kept_splits(folder / "problems")
    best = best_temperature(folder / "evaluate" / model, splits.validation)
    found = folder / "evaluate" / model / f"test-t{best:g}"
    greedy = evaluation(found, splits.test, KS, greedy=True)
    return Measured(best, evaluation(found, splits.test, KS), greedy, _train_cpu_s(folder, model))


def _train_cpu_s(folder: Path, model: str) -> float:
    parts = {
        "warm_start": ("init", "pretrain", "warm-start"),
        CONTROL: ("actor_critic/ce-control",),
        REJECTION: ("actor_critic/round-*/sample", "actor_critic/round-*/execute", f"{REJECTION}/actor"),
    }
    patterns = parts.get(model, (f"{model}/round-*/**", f"{model}/validate/**"))
    found = {path.parent for pattern in patterns for path in folder.glob(f"{pattern}/{records.MANIFEST}")}
    facts = [records.facts_of(path) for path in found]
    return sum(f["cpu_s"] + f.get("sandbox_cpu_s", 0.0) for f in facts)


def report_of(out: Path, seeds: Sequence[int], arms: Sequence[str]) -> dict[str, Any]:
    """Return every figure of the benchmark from its stage folders."""
    models = ["warm_start", *arms]
    found = {model: {seed: measured(out / f"seed-{seed}", model) for seed in seeds} for model in models}
    sampled = {model: _pooled(found[model], "sampled") for model in models}
    greedy = {model: _pooled(found[model], "greedy") for model in models}
    against = {"warm_start": "warm_start", "ce_control": CONTROL}
    against |= {arm: arm for arm in arms if arm not in (CONTROL, "actor_critic")}
    contrasts = {
        f"actor_critic_minus_{name}": _contrast(sampled["actor_critic"], sampled[model])
        for name, model in against.items()
        if model in sampled
    }
    contrasts["actor_critic_minus_warm_start_greedy"] = _contrast(sampled["actor_critic"], greedy["warm_start"])
    contrasts["actor_critic_greedy_minus_warm_start_greedy"] = _contrast(greedy["actor_critic"], greedy["warm_start"])
    at_5 = {model: _pooled(found[model], "sampled", "pass@5") for model in ("actor_critic", "warm_start")}
    contrasts["actor_critic_pass_at_5_minus_warm_start"] = _contrast(at_5["actor_critic"], at_5["warm_start"])
    return {**contrasts, **_critic(out, seeds), "num_seeds": len(seeds), "models": _table(found)}


def _pooled(of_seeds: dict[int, Measured], what: str, metric: str = "pass@1") -> Scores:
    return {
        f"{seed}/{problem_id}": score
        for seed, one in of_seeds.items()
        for problem_id, score in getattr(one, what).by_problem[metric].items()
    }


def _contrast(ours: Scores, theirs: Scores) -> dict[str, float]:
    """Return ours minus theirs in points, with its 95% interval."""
    interval = paired_difference(ours, theirs)
    return {name: round(100 * getattr(interval, name), 2) for name in ("mean", "low", "high")}


def _critic(out: Path, seeds: Sequence[int]) -> dict[str, float]:
    """Return how well the critic of the last round knows held-out problems, as means over seeds."""
    last = [max((out / f"seed-{seed}" / "actor_critic").glob("round-*/critic")) for seed in seeds]
    facts = [records.facts_of(folder) for folder in last]
    figures = {"critic_auroc": "auroc", "critic_ece": "calibration_error"}
    return {
        key: round(statistics.fmean(f[name] for f in facts if f.get(name) is not None), 4)
        for key, name in figures.items()
        if any(f.get(name) is not None for f in facts)
    }


def _table(found: dict[str, dict[int, Measured]]) -> dict[str, dict[str, Any]]:
    table = {}
    for model, of_seeds in found.items():
        each = list(of_seeds.values())
        scores = {
            "pass_at_1": _pooled(of_seeds, "sampled"),
            "pass_at_5": _pooled(of_seeds, "sampled", "pass@5"),
            "greedy": _pooled(of_seeds, "greedy"),
        }
        table[model] = {
            **{name: round(100 * statistics.fmean(pooled.values()), 2) for name, pooled in scores.items()},
            **{f"{name}_error": round(100 * _standard_error(pooled), 2) for name, pooled in scores.items()},
            "pass_at_1_of_seeds": [round(100 * _pass_at_1(one.sampled), 2) for one in each],
            "greedy_of_seeds": [round(100 * _pass_at_1(one.greedy), 2) for one in each],
            "temperatures": [one.temperature for one in each],
            "train_cpu_s": round(statistics.fmean(one.train_cpu_s for one in each), 1),
        }
    return table


def _standard_error(scores: Scores) -> float:
    return statistics.stdev(scores.values()) / len(scores) ** 0.5


def show(report: dict[str, Any]) -> None:
    """Print the table of models and the contrasts."""
    console = Console()
    table = Table(
        "model", "pass@1", "pass@5", "greedy", "temperatures", "training, CPU-s", title="held-out problems, %"
    )
    for model, row in report["models"].items():
        cells = [f"{row[name]:.1f}" for name in ("pass_at_1", "pass_at_5", "greedy")]
        table.add_row(model, *cells, " ".join(f"{t:g}" for t in row["temperatures"]), f"{row['train_cpu_s']:.0f}")
    console.print(table)
    for name, value in report.items():
        if isinstance(value, dict) and "low" in value:
            console.print(f"{name:45} {value['mean']:+6.2f}  ({value['low']:+.2f} to {value['high']:+.2f})")
        elif isinstance(value, int | float):
            console.print(f"{name:45} {value:6.3g}")


STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328; } .label { font-weight: 600; } .panel { font-weight: 600; }
.note, .tick, .panel { fill: #59636e; } .whisker { stroke-width: 2; }
.grid { stroke: #d1d9e0; } .axis { stroke: #818b98; }
.method circle { fill: #0b5cad; } .method line { stroke: #0b5cad; }
.control circle { fill: #fff; stroke: #8b949e; stroke-width: 2; } .control line { stroke: #8b949e; }
</style><rect width="100%" height="100%" fill="#fff"/>"""


def figure_of(report: dict[str, Any]) -> str:
    """Return an SVG of every model's scores on held-out problems, with 95% intervals over (seed, problem)."""
    rows = []
    for model, row in report["models"].items():
        bars = {name: (row[key], 1.96 * row[f"{key}_error"]) for name, key in PANELS.items()}
        estimates = {name: Estimate(x / 100, (x - bar) / 100, (x + bar) / 100, 0) for name, (x, bar) in bars.items()}
        note = f"{row['train_cpu_s']:.0f} CPU-s of training"
        rows.append(DotRow(model.replace("_", " "), note, model != "actor_critic", estimates))
    drawn = str(dot_chart(rows, list(PANELS), "% of held-out problems"))
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(">", f">{STYLE}", 1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 seeds, half of the updates, the controls only")
    parser.add_argument("--seeds", type=int, default=None, help="how many; 5 unless quick")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="choose settings on seeds below 10")
    parser.add_argument("--ablations", action="store_true", help="the arms of the paper's Tables 2 and 3, one round")
    parser.add_argument("--arms", nargs="+", choices=sorted(ARMS), help="beside actor_critic")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="settings of all arms")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="seeds trained side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"), help="where the stage folders are kept")
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    parser.add_argument("--figure", type=Path, help="where to draw them, as SVG")
    args, flags = parser.parse_known_args()
    flags = [*(QUICK_FLAGS if args.quick else ABLATION_FLAGS if args.ablations else ()), *flags]
    chosen = args.arms or (ABLATIONS if args.ablations else QUICK_ARMS if args.quick else DEFAULT_ARMS)
    arms = ["actor_critic", *(arm for arm in ARMS if arm in chosen and arm != "actor_critic")]
    num_seeds = args.seeds or (2 if args.quick else 5)
    seeds = list(range(args.first_seed, args.first_seed + num_seeds))
    work = partial(run_seed, out=args.out, recipe=args.recipe, flags=flags, arms=arms)
    with ProcessPoolExecutor(args.processes, mp_context=multiprocessing.get_context("spawn")) as processes:
        list(processes.map(work, seeds))
    report = {
        **report_of(args.out, seeds, arms),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, Linux {platform.release()}",
        "torch": torch.__version__,
        "settings": recipe_of(seeds[0], args.recipe, flags).model_dump(mode="json"),
    }
    show(report)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1) + "\n")
    if args.figure:
        args.figure.write_text(figure_of(report))


if __name__ == "__main__":
    main()
