"""Whether a search near the greedy program helps a real model: SmolLM2 on MBPP's sanitized test tasks.

    python benchmarks/branching_mbpp.py --model models/smollm2-135m-instruct --problems mbpp.jsonl --out DIR --json FILE

The first assert of a task is shown, the others are hidden. Each arm has a budget of 8 programs of 96 tokens a task:
plain samples, the search, and the search that spends nothing on names, comments and what stands around the program.
`first` submits the first program that passes the shown assert. Intervals are over tasks. Every part is a stage folder:
a killed benchmark continues where it was. The model stands on a GPU where there is one.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from coderl import problems as data
from coderl import records
from coderl.critic_sampling.anytime import Arm, as_candidates, within
from coderl.critic_sampling.settings import BranchConfig, CriticSamplingConfig
from coderl.engines.settings import SampleConfig, SamplingConfig
from coderl.evaluation.pass_at_k import average
from coderl.execution import ExecutionConfig
from coderl.prompts import PromptConfig
from coderl.stages.console import Reporter
from coderl.stages.critic_sample import critic_sample
from coderl.stages.execute import execute
from coderl.stages.gather import gather
from coderl.stages.rollouts import programs_of, verdicts_of
from coderl.stages.run import bare
from coderl.stages.sample import sample
from coderl.stages.search_report import candidates_of
from coderl.types import InputError, LabelledProblem, Outcome
from critic_sampling import METRICS, Seeds, by_try, difference, scores, stopped

PLAIN, BRANCH, NAMES = "plain", "branch", "branch, merged names"
PAIRS = {
    "branch_minus_plain": (BRANCH, PLAIN),
    "names_minus_plain": (NAMES, PLAIN),
    "names_minus_branch": (NAMES, BRANCH),
}
NUM_PROGRAMS, NUM_TOKENS = 8, 96
SPARE = 2
"""Plain samples drawn for those of the budget: short programs leave room for more."""


def draw(arm: str, out: Path, args: argparse.Namespace, problems: list[LabelledProblem]) -> None:
    """Draw an arm's programs."""
    prompt = PromptConfig(style=args.style, max_prompt_tokens=400, max_program_tokens=NUM_TOKENS)
    sampling = SamplingConfig(temperature=args.temperature, max_new_tokens=NUM_TOKENS)
    config = SampleConfig(num_samples=SPARE * NUM_PROGRAMS, sampling=sampling, chunk_size=args.chunk_size)
    given: dict[str, Any] = {
        "actor": args.model,
        "problems": bare(problems),
        "prompt": prompt,
        "seed": 0,
        "reporter": Reporter(),
    }
    if arm == PLAIN:
        sample(out / "sample", config=config, greedy=False, **given)
        return
    branch = BranchConfig(max_branches=None, stops_at_pass=False, merge="names" if arm == NAMES else "none")
    search = CriticSamplingConfig(
        start="near_greedy", keep="all", max_sampled_tokens=NUM_PROGRAMS * NUM_TOKENS, branch=branch
    )
    critic_sample(out / "search", config=search, sample=config, execution=execution(args.out), **given)
    gather(out / "sample", candidates=out / "search")


def execution(out: Path) -> ExecutionConfig:
    """Return how programs are run."""
    return ExecutionConfig(store_path=out / "verdicts.sqlite")


def judged(arm: str, out: Path, args: argparse.Namespace, problems: list[LabelledProblem]) -> Arm:
    """Run an arm's programs on shown and hidden asserts; return them in the order drawn."""
    tests: dict[str, Any] = {"programs": out / "sample", "problems": problems, "config": execution(args.out)}
    execute(out / "execute", **tests)
    right = {key for key, v in verdicts_of(out / "execute").items() if v.outcome is Outcome.PASSED_TEST}
    if arm != PLAIN:
        return Arm(candidates_of(out / "search"), right)
    execute(out / "examples", tests="example", **tests)
    return Arm(as_candidates(programs_of(out / "sample"), verdicts_of(out / "examples")), right)


def figures_of(arms: dict[str, Arm], problems: list[LabelledProblem], out: Path) -> dict[str, Any]:
    """Return all figures as JSON values."""
    budget = NUM_PROGRAMS * NUM_TOKENS
    metrics = [name for name in METRICS if name != "one_by_behaviour"]
    seeds: Seeds = {"mbpp": (budget, arms)}
    names = {f"mbpp/{p.problem.problem_id}": "all" for p in problems}
    rows: dict[str, Any] = {}
    for arm in arms:
        rows[arm] = {m: records.plain(average(scores(seeds, arm, m), names)["all"]) for m in metrics}
        held = [within(c, budget) for c in arms[arm].candidates.values()]
        rows[arm]["num_programs"] = statistics.fmean(map(len, held))
        ends = [stopped(c) for c in held]
        rows[arm]["num_tokens_stopped"] = statistics.fmean(c[-1].num_tokens_so_far if c else 0 for c in ends)
        facts = records.facts_of(out / arm / ("sample" if arm == PLAIN else "search"))
        rows[arm] |= {name: facts[name] for name in ("num_tokens", "cpu_s", "wall_s")}
    gains = {name: {m: difference(seeds, (a, m), (b, m)) for m in metrics} for name, (a, b) in PAIRS.items()}
    return {"num_tasks": len(problems), "budget": budget, "arms": rows, **gains, "by_try": by_try(seeds)}


def show(figures: dict[str, Any]) -> None:
    """Print the shares of tasks and their differences."""
    table = Table("of the tasks, or points", "found", "first", "programs", "tokens, stopped")
    for name, row in figures["arms"].items():
        cells = [
            f"{100 * row[m]['mean']:.1f} ({100 * row[m]['low']:.1f} to {100 * row[m]['high']:.1f})"
            for m in row
            if m in METRICS
        ]
        table.add_row(name, *cells, f"{row['num_programs']:.1f}", f"{row['num_tokens_stopped']:.0f}")
    for name in PAIRS:
        row = figures[name]
        table.add_row(
            name, *(f"{100 * r['mean']:+.1f} ({100 * r['low']:+.1f} to {100 * r['high']:+.1f})" for r in row.values())
        )
    Console(width=130).print(table)


def shown(found: dict[str, float], sign: str) -> str:
    """Return a mean and its interval in percent."""
    mean, low, high = (format(100 * found[name], f"{sign}.1f") for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", required=True, help="a model folder")
    parser.add_argument("--problems", type=Path, required=True, help="MBPP, sanitized or not: its test split is used")
    parser.add_argument("--style", default="chatml", help="how the model is asked")
    parser.add_argument("--temperature", type=float, default=0.8, help="of plain samples")
    parser.add_argument("--num-problems", type=int, help="only the first so many tasks")
    parser.add_argument("--chunk-size", type=int, default=64, help="tasks a model call")
    parser.add_argument("--out", type=Path, default=Path("runs/branching_mbpp"), help="where the stages are kept")
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    args = parser.parse_args()
    try:
        problems = data.load(str(args.problems), split="test", limit=args.num_problems, num_shown_tests=1)
        arms = {}
        for arm in (PLAIN, BRANCH, NAMES):
            draw(arm, args.out / arm, args, problems)
            arms[arm] = judged(arm, args.out / arm, args, problems)
    except InputError as error:
        parser.exit(2, f"branching_mbpp: {error}\n")
    figures = figures_of(arms, problems, args.out)
    show(figures)
    records.write_json(args.json, figures)


if __name__ == "__main__":
    main()
