"""Commands that draw, run, search and repair programs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators
from rich.console import Console
from rich.table import Table

from coderl import problems as data
from coderl import records
from coderl.cli.apps import Flat, app
from coderl.critic_sampling.settings import CriticSamplingConfig
from coderl.engines.settings import SampleConfig
from coderl.evaluation.figures import outcome_words
from coderl.execution import ExecutionConfig
from coderl.prompts import PromptConfig
from coderl.stages import repair_program as repairing
from coderl.stages import stages
from coderl.stages.console import Reporter
from coderl.stages.rank import rank_programs
from coderl.stages.tables import VerdictRow, key
from coderl.types import InputError, Outcome


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
    judge = partial(stages.execute, programs=programs, problems=loaded, tests=tests, reporter=reporter)
    judge(out, config=config)
    _print_outcomes(out)
    if samples is not None:
        print(stages.write_results(out, programs))
    if compare is not None:
        other = out / f"by-{compare}"
        judge(other, config=config.model_copy(update={"comparator": compare}))
        _print_flips(out, other, config.comparator, compare)


def _print_flips(first: Path, second: Path, name: str, other_name: str) -> None:
    """List the programs on which two comparators disagree."""
    tables = [folder / "verdicts" for folder in (first, second)]
    pairs = zip(*(records.read_table(table, VerdictRow) for table in tables), strict=True)  # of one program each
    flips = [(key(ours), ours.outcome, theirs.outcome) for ours, theirs in pairs if ours.outcome != theirs.outcome]
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
    total = records.num_rows(tables[0])
    print(f"{len(flips)} of {total} verdicts differ between {name} and {other_name}: {first / 'flips.jsonl'}")


def _outcome_name(outcome: Outcome | None) -> str:
    return "sandbox fault" if outcome is None else outcome_words(outcome)


def _print_outcomes(out: Path) -> None:
    facts = stages.facts_of(out)
    table = Table("outcome", "programs")
    for name, number in facts["outcomes"].items():
        table.add_row(name.replace("_", " "), str(number))
    table.add_row("untested (problem has no tests)", str(facts["num_untested"]))
    Console().print(table)


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
