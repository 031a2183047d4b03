"""Whether critic sampling finds more than plain sampling does for as many tokens, and which of its parts does it.

    python benchmarks/algorithm_1.py [--quick] [--run-dir runs/demo ...] [--seeds 3] [--out DIR] --json FILE

Each run directory is a seed: its actor, binary critic and repair model, on its test problems. Without `--run-dir` one
is trained for each seed by the demo's recipe, on a MiniAPPS of that seed. Plain sampling and every arm begin with the
same programs; a comparison cuts both sides, problem by problem, to the tokens that both have spent. 1@all submits one
of the programs that pass the example tests, any one or the best ranked. Intervals are of paired differences over
(seed, problem). Every part is a stage folder under `--out`: a killed benchmark continues where it was. Flags of the
recipe (`--rounds.num-rounds 2`) may follow.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from coderl import problems as data
from coderl import records, tables
from coderl.critic_sampling import anytime
from coderl.critic_sampling.anytime import METRICS, Arm, as_candidates
from coderl.critic_sampling.candidates import Candidate
from coderl.critic_sampling.settings import CriticSamplingConfig
from coderl.engines.settings import SampleConfig
from coderl.evaluation.pass_at_k import average, paired_difference
from coderl.recipe import RECIPE, RunConfig, load_recipe
from coderl.stages.console import Reporter
from coderl.stages.critic_sample import critic_sample
from coderl.stages.execute import execute
from coderl.stages.gather import gather
from coderl.stages.rank import rank
from coderl.stages.rollouts import programs_of
from coderl.stages.run import bare, run
from coderl.stages.sample import sample
from coderl.stages.search_report import arm_of, candidates_of
from coderl.stages.stage import Facts, Programs, Work, derive_seed, stage
from coderl.types import (
    InputError,
    LabelledProblem,
    Program,
    ProgramKind,
)

FIRST_SEED = 20
"""Of the runs that are trained here: settings were chosen on smaller seeds."""
POOL_ROUNDS = 3.3
"""Programs drawn plainly, in first rounds: a search draws three at most (itself, repairs, refinements)."""
NUM_POINTS = 12
"""Of an anytime curve."""
DEMO = Path(__file__).resolve().parents[1] / "src" / "coderl" / "demo.toml"

BOTH = {"num_repair_rounds": 1, "num_refine_rounds": 1}
REPAIR = {"num_repair_rounds": 1, "num_refine_rounds": 0}
ARMS: dict[str, dict[str, Any]] = {
    "repair M=1": REPAIR,
    "repair M=2": {**REPAIR, "num_repair_candidates": 2},
    "repair M=4": {**REPAIR, "num_repair_candidates": 4},
    "repair, random critic": {**REPAIR, "repair_order": "random"},
    "refine": {"num_repair_rounds": 0, "num_refine_rounds": 1},
    "refine, repair M=1": BOTH,
    "refine, repair M=2": {**BOTH, "num_repair_candidates": 2},
    "refine, repair M=4": {**BOTH, "num_repair_candidates": 4},
    "random prefix": {**BOTH, "prefix": "random"},
    "empty prefix": {**BOTH, "prefix": "empty"},
    "random critic": {**BOTH, "prefix": "random", "repair_order": "random"},
}
"""What each arm changes; a random critic also ranks at random. All keep every program and add N where no round is
possible. The first is the default; those with `refine, repair` are rows of the paper's Table 4."""
FULL, RANDOM, PAPER, PLAIN = "repair M=1", "repair, random critic", "refine, repair M=1", "plain"
QUICK_ARMS = (FULL, RANDOM)

PASS, ONE, ONE_RANKED, FIVE, FIVE_RANKED = METRICS
CONTRASTS: dict[str, tuple[str, str, str, str]] = {
    "one_at_k_gain": (FULL, ONE_RANKED, PLAIN, ONE),
    "pass_at_k_gain": (FULL, PASS, PLAIN, PASS),
    "random_critic_gain": (FULL, ONE_RANKED, RANDOM, ONE),
    "five_at_k_gain": (FULL, FIVE_RANKED, PLAIN, FIVE),
    "one_at_k_gain_same_choice": (FULL, ONE, PLAIN, ONE),
    "ranking_gain": (FULL, ONE_RANKED, FULL, ONE),
    "ranking_gain_plain": (PLAIN, ONE_RANKED, PLAIN, ONE),
    "random_critic_pass_gain": (FULL, PASS, RANDOM, PASS),
    "repair_m2_pass_gain": ("repair M=2", PASS, FULL, PASS),
    "repair_m4_pass_gain": ("repair M=4", PASS, FULL, PASS),
    "repair_m2_one_gain": ("repair M=2", ONE, FULL, ONE),
    "repair_m4_one_gain": ("repair M=4", ONE, FULL, ONE),
    "refine_alone_pass_gain": ("refine", PASS, PLAIN, PASS),
    "refine_alone_one_gain": ("refine", ONE, PLAIN, ONE),
    "refine_too_pass_gain": (PAPER, PASS, FULL, PASS),
    "refine_too_one_gain": (PAPER, ONE, FULL, ONE),
    "random_prefix_pass_gain": (PAPER, PASS, "random prefix", PASS),
    "random_prefix_one_gain": (PAPER, ONE, "random prefix", ONE),
    "empty_prefix_pass_gain": (PAPER, PASS, "empty prefix", PASS),
    "paper_one_at_k_gain": (PAPER, ONE_RANKED, PLAIN, ONE),
    "paper_pass_at_k_gain": (PAPER, PASS, PLAIN, PASS),
    "paper_random_critic_gain": (PAPER, ONE_RANKED, "random critic", ONE),
}
"""Name -> (arm, metric, other arm, other metric): the first minus the second, at equal tokens."""


@dataclass(frozen=True)
class Seed:
    """One run's models and test problems, and where its searches are kept."""

    name: str
    run_dir: Path
    folder: Path
    config: RunConfig
    problems: list[LabelledProblem]
    num_samples: int
    temperature: float
    reporter: Reporter

    @property
    def sampling(self) -> SampleConfig:
        """How all arms draw, N programs a problem."""
        drawn = self.config.evaluation.sampling.model_copy(update={"temperature": self.temperature})
        return SampleConfig(num_samples=self.num_samples, sampling=drawn)

    @property
    def execution(self) -> Any:
        """The run's, with a store of verdicts that the arms share."""
        return self.config.execution.model_copy(update={"store_path": self.folder / "verdicts.sqlite"})


# ------------------------------------------------------------------------------------------------------------- models


def train(seed: int, out: Path, flags: Sequence[str]) -> Path:
    """Return the run directory of a seed, trained by the demo's recipe as far as it was not."""
    config = load_recipe(DEMO, flags)
    source = f"{config.problems.source}{',' if ':' in config.problems.source else ':'}seed={seed}"
    problems = config.problems.model_copy(update={"source": source})
    less = {"ce_control": False, "search_control": False, "num_samples": 2, "ks": (1,)}
    evaluation = config.evaluation.model_copy(update={**less, "temperatures": config.evaluation.temperatures[:1]})
    config = config.model_copy(update={"seed": seed, "problems": problems, "evaluation": evaluation})
    run(config, out, Reporter(quiet=True))
    return out


def actor_of(run_dir: Path) -> Path:
    """Return the run's last actor: the one that drew the programs it was evaluated on.

    Raises:
        InputError: the run is not finished, or its models are gone.
    """
    manifests = sorted(run_dir.glob(f"evaluate/actor_critic/*/sample/{records.MANIFEST}"))
    if not manifests:
        raise InputError(f"{run_dir}: no evaluated actor; finish the run first (coderl run)")
    wanted = records.read_json(manifests[0])["inputs"]["actor"]
    for folder in [*sorted(run_dir.glob("round-*/actor/model"), reverse=True), run_dir / "warm-start" / "model"]:
        if folder.exists() and records.hash_path(folder) == wanted:
            return folder
    raise InputError(f"{run_dir}: the evaluated actor's model is not there any more")


def open_seed(run_dir: Path, out: Path, num_samples: int, temperature: float, num_problems: int | None) -> Seed:
    """Return a finished run as a seed.

    Raises:
        InputError: the folder holds no finished run with a binary critic and a repair model.
    """
    for needed in (RECIPE, "problems/test.jsonl", "binary-critic/model", "repair/model"):
        if not (run_dir / needed).exists():
            raise InputError(f"{run_dir / needed}: not there; give the directories of finished runs")
    config = RunConfig.model_validate(records.read_json(run_dir / RECIPE))
    name = f"{run_dir.name}-{records.hash_value(str(run_dir.resolve()))[:8]}"
    tests = data.load(run_dir / "problems" / "test.jsonl", limit=num_problems)
    return Seed(name, run_dir, out / name, config, tests, num_samples, temperature, Reporter(quiet=True))


# --------------------------------------------------------------------------------------------------------------- arms


@stage
def first_round(work: Work, *, programs: Programs, num_samples: int) -> Facts:
    """Write the first programs of each problem."""
    rows = [p for p in programs_of(programs) if p.index < num_samples]
    return {"num_programs": tables.PartedTable(work.folder / "programs", Program).write(0, rows)}


def draw(seed: Seed) -> None:
    """Draw the pool of plain samples, whose first N a problem are the first round of every search."""
    more = seed.sampling.model_copy(update={"num_samples": math.ceil(POOL_ROUNDS * seed.num_samples)})
    pool = seed.folder / PLAIN / "sample"
    sample(
        pool,
        actor=actor_of(seed.run_dir),
        problems=bare(seed.problems),
        config=more,
        prompt=seed.config.prompt,
        seed=derive_seed(seed.config.seed, PLAIN),
        greedy=False,
        reporter=seed.reporter,
    )
    first_round(seed.folder / "first", programs=pool, num_samples=seed.num_samples, reporter=seed.reporter)


def search(seed: Seed, arm: str) -> None:
    """Run the search of an arm."""
    changes = {"keep": "all", "fallback": "sample_more", "num_samples": seed.num_samples, **ARMS[arm]}
    critic_sample(
        seed.folder / arm / "search",
        actor=actor_of(seed.run_dir),
        critic=seed.run_dir / "binary-critic" / "model",
        repair_model=seed.run_dir / "repair" / "model",
        programs=seed.folder / "first",
        problems=bare(seed.problems),
        config=CriticSamplingConfig(**changes),
        sample=seed.sampling,
        execution=seed.execution,
        prompt=seed.config.prompt,
        seed=derive_seed(seed.config.seed, "search"),
        reporter=seed.reporter,
    )
    gather(seed.folder / arm / "sample", candidates=seed.folder / arm / "search", reporter=seed.reporter)


def judge(seed: Seed, arm: str, num_inputs: int) -> Arm:
    """Run an arm's programs on the hidden tests and rank them; return them in the order drawn."""
    folder = seed.folder / arm
    drawn, reporter = folder / "sample", seed.reporter
    execute(folder / "execute", programs=drawn, problems=seed.problems, config=seed.execution, reporter=reporter)
    rank(
        folder / "rank",
        programs=drawn,
        problems=bare(seed.problems),
        critic=seed.run_dir / "binary-critic" / "model",
        num_inputs=num_inputs,
        execution=seed.execution,
        prompt=seed.config.prompt,
        seed=derive_seed(seed.config.seed, "rank"),
        reporter=reporter,
    )
    candidates = as_candidates(programs_of(drawn), {}) if arm == PLAIN else candidates_of(folder / "search")
    return arm_of(candidates, folder / "execute", folder / "rank")


def run_seed(seed: Seed, arms: Sequence[str], num_inputs: int, say: Callable[[str], None]) -> dict[str, Arm]:
    """Return what plain sampling and each arm tried."""
    draw(seed)
    found = {}
    for arm in (PLAIN, *arms):
        say(f"{seed.name}: {arm}")
        if arm != PLAIN:
            search(seed, arm)
        found[arm] = judge(seed, arm, num_inputs)
    return found


# ------------------------------------------------------------------------------------------------------------ figures


def contrasts(seeds: dict[str, dict[str, Arm]]) -> dict[str, Any]:
    """Return each contrast between arms that were run, with its interval over (seed, problem)."""
    found = {}
    for name, (arm, metric, other, other_metric) in CONTRASTS.items():
        ours: dict[str, float] = {}
        theirs: dict[str, float] = {}
        for seed, arms in seeds.items():
            if arm not in arms or other not in arms:
                continue
            budgets = anytime.common_budgets(arms[arm], arms[other])
            for scores, side, of in ((ours, arm, metric), (theirs, other, other_metric)):
                scored = anytime.score(arms[side], budgets, METRICS[of])
                scores.update({f"{seed}/{problem}": value for problem, value in scored.items()})
        if ours:
            interval = paired_difference(ours, theirs)
            means = {"ours": statistics.fmean(ours.values()), "theirs": statistics.fmean(theirs.values())}
            what = f"{arm}, {metric} - {other}, {other_metric}"
            found[name] = {**records.plain(interval), **means, "what": what}
    return found


def table_4(seeds: dict[str, dict[str, Arm]], difficulties: dict[str, str], num_samples: int) -> dict[str, Any]:
    """Return pass@N and 1@N of the N programs that each arm hands in: the paper's rows, whose budgets differ."""
    rows = {}
    for arm in (PLAIN, *ARMS):
        scores: dict[str, dict[str, float]] = {}
        for seed, arms in seeds.items():
            for problem, candidates in arms[arm].candidates.items() if arm in arms else ():
                handed_in = last_round(candidates, num_samples)
                for metric in METRICS:
                    scores.setdefault(metric, {})[f"{seed}/{problem}"] = METRICS[metric](arms[arm], handed_in)
        if scores:
            rows[arm] = {name: records.plain(average(values, difficulties)) for name, values in scores.items()}
    return rows


def last_round(candidates: Sequence[Candidate], num_samples: int) -> list[Candidate]:
    """Return the programs of a search's last round, or the first N of plain sampling."""
    last = max(c.round for c in candidates)
    is_search = any(c.program.kind is not ProgramKind.SAMPLE for c in candidates) and last > 0
    return [c for c in candidates if c.round == last] if is_search else list(candidates[:num_samples])


def by_difficulty(seeds: dict[str, dict[str, Arm]], difficulties: dict[str, str]) -> dict[str, Any]:
    """Return every metric of the search and of plain sampling at equal tokens, by difficulty."""
    rows: dict[str, Any] = {}
    for arm in (PLAIN, FULL):
        for metric in METRICS:
            scores: dict[str, float] = {}
            for seed, arms in seeds.items():
                scored = anytime.score(arms[arm], anytime.common_budgets(arms[PLAIN], arms[FULL]), METRICS[metric])
                scores.update({f"{seed}/{problem}": value for problem, value in scored.items()})
            rows.setdefault(arm, {})[metric] = records.plain(average(scores, difficulties))
    return rows


def curves(seeds: dict[str, dict[str, Arm]]) -> dict[str, Any]:
    """Return anytime curves: the mean over seeds of each metric, by tokens a problem."""
    every = [arms[FULL] for arms in seeds.values()]
    most = max(drawn[-1].num_tokens_so_far for arm in every for drawn in arm.candidates.values())
    budgets = [round(most * (i + 1) / NUM_POINTS) for i in range(NUM_POINTS)]
    return {
        "num_tokens": budgets,
        **{
            arm: {
                metric: _mean_curve([anytime.curve(arms[arm], budgets, METRICS[metric]) for arms in seeds.values()])
                for metric in (PASS, ONE, ONE_RANKED)
            }
            for arm in (PLAIN, FULL)
        },
    }


def _mean_curve(found: Sequence[list[tuple[float, float]]]) -> list[float]:
    return [statistics.fmean(value for _, value in points) for points in zip(*found, strict=True)]


def mean_contributions(seeds: dict[str, dict[str, Arm]]) -> dict[str, dict[str, float]]:
    """Return what refine and repair contributed to a search's arms, summed (counts) or averaged (shares) over seeds."""
    means = {}
    for arm in (FULL, PAPER):
        found = [anytime.contributions(arms[arm]) for arms in seeds.values() if arm in arms]
        means[arm] = {
            name: sum(f[name] for f in found)
            if isinstance(found[0][name], int)
            else statistics.fmean(f[name] for f in found)
            for name in (found[0] if found else ())
        }
    return means


def report(seeds: dict[str, dict[str, Arm]], loaded: Sequence[Seed], settings: dict[str, Any]) -> dict[str, Any]:
    """Return all figures as JSON values."""
    difficulties = {f"{s.name}/{p.problem.problem_id}": p.problem.difficulty for s in loaded for p in s.problems}
    found = contrasts(seeds)
    machine = {"machine": platform.processor() or platform.machine(), "num_cpus": os.cpu_count()}
    return {
        **{name: found[name] for name in ("one_at_k_gain", "pass_at_k_gain", "random_critic_gain")},
        "num_seeds": len(seeds),
        **settings,
        "contrasts": found,
        "equal_tokens": by_difficulty(seeds, difficulties),
        "handed_in": table_4(seeds, difficulties, settings["num_samples"]),
        "curves": curves(seeds),
        "contributions": mean_contributions(seeds),
        "costs": costs(loaded),
        "cpu_s": round(sum(_cpu_s(s.folder) for s in loaded), 1),
        **machine,
    }


def costs(loaded: Iterable[Seed]) -> dict[str, dict[str, int]]:
    """Return the tokens that each arm drew and the example tests that a search ran, over all seeds."""
    totals: dict[str, dict[str, int]] = {}
    for seed in loaded:
        for path in sorted(seed.folder.glob(f"*/s*/{records.MANIFEST}")):  # `sample` or `search`
            facts = records.facts_of(path.parent)
            found = totals.setdefault(path.parent.parent.name, {})
            for name in {"num_tokens", "num_tests"} & facts.keys():
                found[name] = found.get(name, 0) + facts[name]
    return totals


def _cpu_s(folder: Path) -> float:
    facts = [records.facts_of(path.parent) for path in folder.rglob(records.MANIFEST)]
    return sum(f["cpu_s"] + f.get("sandbox_cpu_s", 0.0) for f in facts)


def show(figures: dict[str, Any]) -> None:
    """Print the contrasts."""
    table = Table("at equal tokens", "points", "95% interval", "ours", "theirs", "what")
    for name, c in figures["contrasts"].items():
        cells = (f"{100 * c['mean']:+.2f}", f"{100 * c['low']:+.2f} to {100 * c['high']:+.2f}")
        table.add_row(name, *cells, f"{100 * c['ours']:.1f}", f"{100 * c['theirs']:.1f}", c["what"])
    Console(width=160).print(table)
    print(json.dumps(figures["contributions"], indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="one seed, 60 problems, three arms")
    parser.add_argument("--run-dir", type=Path, nargs="+", default=[], help="finished runs, a seed each")
    parser.add_argument("--seeds", type=int, default=3, help="runs to train where none is given")
    parser.add_argument("--num-samples", type=int, default=10, help="N, the programs of each round")
    parser.add_argument("--temperature", type=float, default=1.0, help="of every arm; see docs/experiments.md")
    parser.add_argument("--arms", nargs="+", choices=sorted(ARMS), help="only these; those of the first claims always")
    parser.add_argument("--num-problems", type=int, help="only the first so many test problems")
    parser.add_argument("--num-inputs", type=int, default=8, help="inputs made to tell behaviours apart")
    parser.add_argument("--out", type=Path, default=Path("runs/algorithm_1"), help="where the stages are kept")
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    args, flags = parser.parse_known_args()
    if flags and args.run_dir:
        parser.error(f"{flags[0]}: flags of the recipe are for runs that are trained here, not for --run-dir")
    torch.set_num_threads(1)
    wanted = {*QUICK_ARMS, *args.arms} if args.arms else set(QUICK_ARMS if args.quick else ARMS)
    arms = tuple(arm for arm in ARMS if arm in wanted)
    num_seeds, num_problems = (1, args.num_problems or 60) if args.quick else (args.seeds, args.num_problems)
    seeds, loaded, console = {}, [], Console(stderr=True, highlight=False)
    try:
        run_dirs = args.run_dir[:num_seeds] if args.quick else args.run_dir
        for run_dir in run_dirs or range(FIRST_SEED, FIRST_SEED + num_seeds):
            if isinstance(run_dir, int):
                console.print(f"training seed {run_dir}")
                run_dir = train(run_dir, args.out / f"run-{run_dir}", flags)
            seed = open_seed(run_dir, args.out, args.num_samples, args.temperature, num_problems)
            loaded.append(seed)
            seeds[seed.name] = run_seed(seed, arms, args.num_inputs, console.print)
    except InputError as error:
        parser.exit(2, f"algorithm_1: {error}\n")
    settings = {"num_samples": args.num_samples, "num_inputs": args.num_inputs, "temperature": args.temperature}
    figures = report(seeds, loaded, settings)
    show(figures)
    records.write_json(args.json, figures)


if __name__ == "__main__":
    main()
