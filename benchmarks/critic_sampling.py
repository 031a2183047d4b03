"""Whether a search near the greedy program finds more than sampling, repair and beams do for as many tokens.

    python benchmarks/critic_sampling.py [--quick] [--run-dir runs/demo ...] [--seeds 5] [--out DIR] --json FILE

Each run directory is a seed: its actor, repair model and binary critic, on its test problems. Without `--run-dir` one
is trained for each seed by the demo's recipe, on a MiniAPPS of that seed. A problem's budget is the tokens of N plain
samples in the mean; each arm is cut to it, problem by problem, and `stopped` ends an arm with the first program that
passes the example tests. What is submitted is decided by example tests alone, and scored by hidden ones: the first that
passes, or the first of the largest class of equal behaviour. Intervals are of paired differences over (seed, problem).
Every part is a stage folder under `--out`: a killed benchmark continues where it was. Flags of the recipe may follow.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from algorithm_1 import FIRST_SEED, Seed, actor_of, first_round, open_seed, train
from rich.console import Console
from rich.table import Table

from coderl import records, tables
from coderl.critic_sampling.anytime import Arm, as_candidates, within
from coderl.critic_sampling.candidates import Candidate
from coderl.critic_sampling.judge import FEATURES, choose, features, fit
from coderl.critic_sampling.settings import BranchConfig, CriticSamplingConfig
from coderl.engines.beam import beams
from coderl.evaluation.pass_at_k import average, paired_difference
from coderl.prompts import PromptConfig
from coderl.stages import networks
from coderl.stages.critic_sample import critic_sample
from coderl.stages.execute import execute
from coderl.stages.gather import gather
from coderl.stages.rank import rank
from coderl.stages.rollouts import programs_of, verdicts_of
from coderl.stages.run import bare
from coderl.stages.sample import sample
from coderl.stages.search_report import arm_of, candidates_of
from coderl.stages.stage import Facts, ModelSource, Shown, Work, chunks, derive_seed, stage
from coderl.types import InputError, Program, Verdict

PLAIN, REPAIR, BRANCH, BOTH, BEAM = "plain", "repair", "branch", "branch + repair", "beam"
ARMS = (PLAIN, REPAIR, BRANCH, BOTH, BEAM)
NUM_BEAMS = 16
SPARE = 1.6
"""Plain samples drawn for those in a budget: of a problem with short programs it holds more."""
FRACTIONS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Of the budget, as far as the arms have drawn: the points of a curve."""
CONTRASTS = {"branch_minus_plain": (BRANCH, PLAIN), "branch_minus_repair": (BRANCH, REPAIR),
             "branch_minus_beam": (BRANCH, BEAM), "branch_repair_minus_branch": (BOTH, BRANCH),
             "branch_repair_minus_plain": (BOTH, PLAIN), "beam_minus_plain": (BEAM, PLAIN)}  # fmt: skip


@stage
def beam(
    work: Work, *, actor: ModelSource, problems: Shown, num_beams: int, max_new_tokens: int, prompt: PromptConfig
) -> Facts:
    """Write the programs of a beam search, best first; each costs as many tokens as the longest."""
    table, num_tokens = tables.PartedTable(work.folder / "programs", Program), 0
    for index, chunk in work.parts(table, chunks(problems, 64), "beams"):
        model = networks.actor(actor, prompt)
        encoded = [model.encode_prompt(problem) for problem in chunk]
        sizes = {"num_beams": num_beams, "num_returned": num_beams, "max_new_tokens": max_new_tokens}
        found = beams(model.model, encoded, batch_rows=256, **sizes)
        table.write(
            index, [p for problem, drawn in zip(chunk, found, strict=True) for p in model.programs(problem, drawn)]
        )
    for drawn in _by_problem(list(table.rows())).values():
        num_tokens += len(drawn) * max(len(p.tokens) for p in drawn)
    return {"num_tokens": num_tokens}


def _by_problem(programs: Sequence[Program]) -> dict[str, list[Program]]:
    found: dict[str, list[Program]] = {}
    for program in programs:
        found.setdefault(program.problem_id, []).append(program)
    return found


# --------------------------------------------------------------------------------------------------------------- arms


@dataclass(frozen=True)
class Settings:
    """What every seed is measured with."""

    num_samples: int
    """N plain samples, whose tokens are the budget."""
    times: float
    """How many budgets the arms draw."""
    repair_score: float
    num_inputs: int

    @property
    def num_drawn(self) -> int:
        """Plain samples a problem."""
        return round(SPARE * self.times * self.num_samples)


def drawing(seed: Seed, settings: Settings) -> Any:
    """Return how an arm draws: all problems in one call, for the rounds of a search are small."""
    return seed.sampling.model_copy(update={"num_samples": settings.num_drawn, "chunk_size": 256})


def draw_plain(seed: Seed, settings: Settings) -> int:
    """Draw the plain samples; return the tokens of N of them, in the mean: a problem's budget."""
    out = seed.folder / PLAIN / "sample"
    given: dict[str, Any] = {
        "actor": actor_of(seed.run_dir),
        "problems": bare(seed.problems),
        "prompt": seed.config.prompt,
    }
    drawn = drawing(seed, settings)
    how: dict[str, Any] = {
        "config": drawn,
        "seed": derive_seed(seed.config.seed, PLAIN),
        "greedy": False,
        "reporter": seed.reporter,
    }
    sample(out, **given, **how)
    lengths = [len(p.tokens) for p in programs_of(out) if p.index < settings.num_samples]
    return round(settings.num_samples * statistics.fmean(lengths))


def search(seed: Seed, arm: str, settings: Settings, budget: int) -> None:
    """Run the search of an arm, which does not stop at a pass: what a stopped one tries is its beginning."""
    most = round(settings.times * budget)
    branch: dict[str, Any] = {"stops_at_pass": False, "max_branches": None}
    if arm == BOTH:
        branch["repair_score"] = settings.repair_score
    near = CriticSamplingConfig(start="near_greedy", keep="all", max_sampled_tokens=most, branch=BranchConfig(**branch))
    half = settings.num_samples // 2
    algorithm_1 = CriticSamplingConfig(
        keep="all", fallback="sample_more", num_samples=half, num_refine_rounds=0, max_sampled_tokens=most
    )
    if arm == REPAIR:
        first_round(
            seed.folder / "first", programs=seed.folder / PLAIN / "sample", num_samples=half, reporter=seed.reporter
        )
    critic_sample(
        seed.folder / arm / "search",
        actor=actor_of(seed.run_dir),
        critic=seed.run_dir / "binary-critic" / "model" if arm == REPAIR else None,
        repair_model=seed.run_dir / "repair" / "model" if arm != BRANCH else None,
        programs=seed.folder / "first" if arm == REPAIR else None,
        problems=bare(seed.problems),
        config=algorithm_1 if arm == REPAIR else near,
        sample=drawing(seed, settings),
        execution=seed.execution,
        prompt=seed.config.prompt,
        seed=derive_seed(seed.config.seed, "search"),
        reporter=seed.reporter,
    )
    gather(seed.folder / arm / "sample", candidates=seed.folder / arm / "search", reporter=seed.reporter)


def draw_beams(seed: Seed) -> None:
    """Search with beams."""
    sizes: dict[str, Any] = {"num_beams": NUM_BEAMS, "max_new_tokens": seed.sampling.sampling.max_new_tokens}
    given: dict[str, Any] = {
        "actor": actor_of(seed.run_dir),
        "problems": bare(seed.problems),
        "prompt": seed.config.prompt,
    }
    beam(seed.folder / BEAM / "sample", **given, **sizes, reporter=seed.reporter)


def judged(seed: Seed, arm: str, settings: Settings) -> Arm:
    """Run an arm's programs on example and hidden tests and on made inputs; return them in the order drawn."""
    folder, programs = seed.folder / arm, seed.folder / arm / "sample"
    shared: dict[str, Any] = {"reporter": seed.reporter}
    tests: dict[str, Any] = {"problems": seed.problems, "config": seed.execution}
    execute(folder / "execute", programs=programs, **tests, **shared)
    inputs: dict[str, Any] = {"num_inputs": settings.num_inputs, "seed": derive_seed(seed.config.seed, "rank")}
    given: dict[str, Any] = {"problems": bare(seed.problems), "execution": seed.execution, "prompt": seed.config.prompt}
    rank(folder / "rank", programs=programs, **given, **inputs, **shared)
    if arm in (REPAIR, BRANCH, BOTH):
        return arm_of(candidates_of(folder / "search"), folder / "execute", folder / "rank")
    execute(folder / "examples", programs=programs, tests="example", **tests, **shared)
    examples: dict[Any, Verdict] = verdicts_of(folder / "examples")
    return arm_of(as_candidates(programs_of(programs), examples), folder / "execute", folder / "rank")


def run_seed(
    seed: Seed, settings: Settings, arms: Sequence[str], say: Callable[[str], None]
) -> tuple[int, dict[str, Arm]]:
    """Return a problem's budget, and what each arm tried."""
    budget, found = draw_plain(seed, settings), {}
    for arm in arms:
        say(f"{seed.name}: {arm}")
        if arm == BEAM:
            draw_beams(seed)
        elif arm != PLAIN:
            search(seed, arm, settings, budget)
        found[arm] = judged(seed, arm, settings)
    return budget, found


# ------------------------------------------------------------------------------------------------------------ figures


def stopped(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return what a search draws that stops with the round in which a program passes the example tests.

    Plain samples and beams have one round: of samples the first that passes is the last, of beams all are drawn.
    """
    at = next((i for i, c in enumerate(candidates) if c.passes), None)
    if at is None:
        return list(candidates)
    if all(c.round == 0 for c in candidates):
        return list(candidates[: at + 1])
    return [c for c in candidates if c.round <= candidates[at].round]


def first(arm: Arm, candidates: Sequence[Candidate]) -> float:
    """Return 1.0 if the first program that passes the example tests is right."""
    return float(arm.num_correct([c for c in candidates if c.passes][:1]) > 0)


def by_behaviour(arm: Arm, candidates: Sequence[Candidate]) -> float:
    """Return 1.0 if the first program of the largest class of equal behaviour, of those that pass, is right."""
    passing = [c for c in candidates if c.passes]
    names = [arm.behaviours.get(c.program.key, (str(i),)) for i, c in enumerate(passing)]
    best = max(range(len(passing)), key=lambda i: (names.count(names[i]), -i), default=None)
    return 0.0 if best is None else float(arm.num_correct([passing[best]]) > 0)


def found(arm: Arm, candidates: Sequence[Candidate]) -> float:
    """Return 1.0 if some program is right."""
    return float(arm.num_correct(candidates) > 0)


METRICS = {"pass": found, "one": first, "one_by_behaviour": by_behaviour}
Seeds = dict[str, tuple[int, dict[str, Arm]]]


def scores(seeds: Seeds, arm: str, metric: str, *, fraction: float = 1.0, stops: bool = False) -> dict[str, float]:
    """Return the metric of each (seed, problem) at a fraction of the budget; beams cost what they cost."""
    values = {}
    for name, (budget, arms) in seeds.items():
        for problem, candidates in arms[arm].candidates.items():
            held = list(candidates) if arm == BEAM else within(candidates, round(fraction * budget))
            values[f"{name}/{problem}"] = METRICS[metric](arms[arm], stopped(held) if stops else held)
    return values


def contrasts(seeds: Seeds, arms: Sequence[str]) -> dict[str, Any]:
    """Return each arm minus each other, by what is found and what is submitted, with intervals."""
    rows: dict[str, Any] = {}
    for name, (ours, theirs) in CONTRASTS.items():
        if ours in arms and theirs in arms:
            rows[name] = {m: difference(seeds, (ours, m), (theirs, m)) for m in METRICS}
            rows[name]["stopped"] = {m: difference(seeds, (ours, m), (theirs, m), stops=True) for m in METRICS}
    for arm in arms:
        rows[f"behaviour_minus_first_{arm}"] = difference(seeds, (arm, "one_by_behaviour"), (arm, "one"))
    return {**rows, "judge_minus_first": judged_by_others(seeds)}


def difference(seeds: Seeds, ours: tuple[str, str], theirs: tuple[str, str], *, stops: bool = False) -> dict[str, Any]:
    """Return the mean difference of two (arm, metric), and its interval."""
    return records.plain(paired_difference(scores(seeds, *ours, stops=stops), scores(seeds, *theirs, stops=stops)))


def judged_by_others(seeds: Seeds) -> dict[str, Any]:
    """Return what a judge submits that learned from the branches of the other seeds, minus the first that passes.

    The judge learns from hidden verdicts of the other seeds' test problems, and from nothing of the seed it is used on.
    """
    rows: dict[str, dict[str, tuple[Any, Any]]] = {}
    for name, (budget, arms) in seeds.items():
        held = {problem: within(c, budget) for problem, c in arms[BRANCH].candidates.items()}
        passing = {problem: [c for c in drawn if c.passes] for problem, drawn in held.items()}
        rows[name] = {
            f"{name}/{problem}": (features(drawn, arms[BRANCH].behaviours), _is_right(arms[BRANCH], drawn))
            for problem, drawn in passing.items()
        }
    ours, theirs, weights = {}, {}, {}
    for name, own in rows.items():
        found = weights[name] = fit([row for other in rows if other != name for row in rows[other].values()])
        for problem, (seen, right) in own.items():
            ours[problem] = float(right[choose(found, seen)]) if len(right) else 0.0
            theirs[problem] = float(right[0]) if len(right) else 0.0
    learnt = {name: dict(zip(FEATURES, map(float, found), strict=True)) for name, found in weights.items()}
    return {**records.plain(paired_difference(ours, theirs)), "weights": learnt}


def _is_right(arm: Arm, candidates: Sequence[Candidate]) -> Any:
    return np.array([c.program.key in arm.correct for c in candidates], dtype=bool)


def table(seeds: Seeds, arms: Sequence[str], difficulties: dict[str, str]) -> dict[str, Any]:
    """Return the share of problems of each arm and metric, by difficulty, and what was drawn for it."""
    rows: dict[str, Any] = {}
    for arm in arms:
        row: dict[str, Any] = {m: records.plain(average(scores(seeds, arm, m), difficulties)) for m in METRICS}
        held = [
            (list(c) if arm == BEAM else within(c, budget))
            for budget, found_by in seeds.values()
            for c in found_by[arm].candidates.values()
        ]
        row["num_programs"] = statistics.fmean(map(len, held))
        row["num_tokens"] = statistics.fmean(c[-1].num_tokens_so_far if c else 0 for c in held)
        ends = [stopped(c) for c in held]
        row["num_tokens_stopped"] = statistics.fmean(c[-1].num_tokens_so_far if c else 0 for c in ends)
        rows[arm] = row
    return rows


def curves(seeds: Seeds, arms: Sequence[str], times: float) -> dict[str, Any]:
    """Return each metric over fractions of the budget, as far as was drawn."""
    points = [f for f in FRACTIONS if f <= times]
    return {
        "fractions": points,
        **{
            arm: {m: [statistics.fmean(scores(seeds, arm, m, fraction=f).values()) for f in points] for m in METRICS}
            for arm in arms
            if arm != BEAM
        },
    }


def by_try(seeds: Seeds) -> list[dict[str, float]]:
    """Return how often each try of the search passes the examples first, where the greedy program fails them."""
    drawn = [c for _, arms in seeds.values() for c in arms[BRANCH].candidates.values() if c and not c[0].passes]
    rows = []
    for at in range(1, 41):
        reached = [c for c in drawn if len(c) > at and not any(x.passes for x in c[:at])]
        if reached:
            rows.append({"try": at, "num": len(reached), "share": statistics.fmean(c[at].passes for c in reached)})
    return rows


def costs(loaded: Sequence[Seed], arms: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return tokens and CPU-seconds of each arm's drawing, over all seeds."""
    rows: dict[str, dict[str, float]] = {}
    for arm in arms:
        folders = [s.folder / arm / ("search" if (s.folder / arm / "search").exists() else "sample") for s in loaded]
        facts = [records.facts_of(folder) for folder in folders]
        num, cpu = sum(f["num_tokens"] for f in facts), sum(f["cpu_s"] for f in facts)
        rows[arm] = {"num_tokens": num, "cpu_s": round(cpu, 1), "cpu_us_per_token": round(1e6 * cpu / num, 1)}
    return rows


def report(seeds: Seeds, loaded: Sequence[Seed], arms: Sequence[str], settings: Settings) -> dict[str, Any]:
    """Return all figures as JSON values."""
    difficulties = {f"{s.name}/{p.problem.problem_id}": p.problem.difficulty for s in loaded for p in s.problems}
    return {
        **contrasts(seeds, arms),
        "num_seeds": len(seeds),
        **records.plain(settings),
        "budget_tokens": {name: budget for name, (budget, _) in seeds.items()},
        "arms": table(seeds, arms, difficulties),
        "curves": curves(seeds, arms, settings.times),
        "by_try": by_try(seeds),
        "costs": costs(loaded, arms),
        "machine": platform.processor() or platform.machine(),
        "num_cpus": os.cpu_count(),
    }


def show(figures: dict[str, Any], arms: Sequence[str]) -> None:
    """Print the shares of each arm and the contrasts."""
    console, shares = (
        Console(width=150),
        Table("arm", *METRICS, "programs", "tokens", "tokens, stopped", "CPU us a token"),
    )
    for arm in arms:
        row, cost = figures["arms"][arm], figures["costs"][arm]
        cells = [f"{100 * row[m]['all']['mean']:.1f}" for m in METRICS]
        numbers = (row["num_programs"], row["num_tokens"], row["num_tokens_stopped"], cost["cpu_us_per_token"])
        shares.add_row(arm, *cells, *(f"{n:.0f}" for n in numbers))
    console.print(shares)
    gains = Table("points", *METRICS, *(f"{m}, stopped" for m in METRICS))
    for name in CONTRASTS:
        if name in figures:
            row = figures[name]
            gains.add_row(name, *(_points(of[m]) for of in (row, row["stopped"]) for m in METRICS))
    console.print(gains)
    print("judge minus first:", _points(figures["judge_minus_first"]))
    print(json.dumps(figures["curves"], indent=1))


def _points(found: dict[str, float]) -> str:
    return f"{100 * found['mean']:+.1f} ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="one seed, 60 problems")
    parser.add_argument("--run-dir", type=Path, nargs="+", default=[], help="finished runs, a seed each")
    parser.add_argument("--seeds", type=int, default=5, help="runs to train where none is given")
    parser.add_argument("--num-samples", type=int, default=20, help="N plain samples, whose tokens are the budget")
    parser.add_argument("--times", type=float, default=1.0, help="how many budgets to draw, for the curves")
    parser.add_argument("--temperature", type=float, default=1.0, help="of plain samples and repairs")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="only these")
    parser.add_argument("--num-problems", type=int, help="only the first so many test problems")
    parser.add_argument("--num-inputs", type=int, default=8, help="inputs made to tell behaviours apart")
    parser.add_argument("--repair-score", type=float, default=-4.0, help="what a repair is worth beside branches")
    parser.add_argument("--out", type=Path, default=Path("runs/critic_sampling"), help="where the stages are kept")
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    args, flags = parser.parse_known_args()
    if flags and args.run_dir:
        parser.error(f"{flags[0]}: flags of the recipe are for runs that are trained here, not for --run-dir")
    torch.set_num_threads(1)
    arms = tuple(arm for arm in ARMS if arm in {PLAIN, BRANCH, *args.arms})
    num_seeds, num_problems = (1, args.num_problems or 60) if args.quick else (args.seeds, args.num_problems)
    settings = Settings(args.num_samples, args.times, args.repair_score, args.num_inputs)
    seeds, loaded, console = Seeds(), [], Console(stderr=True, highlight=False)
    try:
        for run_dir in args.run_dir[: 1 if args.quick else None] or range(FIRST_SEED, FIRST_SEED + num_seeds):
            if isinstance(run_dir, int):
                console.print(f"training seed {run_dir}")
                run_dir = train(run_dir, args.out / f"run-{run_dir}", flags)
            seed = open_seed(run_dir, args.out, args.num_samples, args.temperature, num_problems)
            loaded.append(seed)
            seeds[seed.name] = run_seed(seed, settings, arms, console.print)
    except InputError as error:
        parser.exit(2, f"critic_sampling: {error}\n")
    figures = report(seeds, loaded, arms, settings)
    show(figures, arms)
    records.write_json(args.json, figures)


if __name__ == "__main__":
    main()
