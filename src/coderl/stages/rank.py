"""The stage that orders the programs of a problem for submission, by example tests, behaviour and critic."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from coderl import records
from coderl.critic.model import Critic
from coderl.critic_sampling.inputs import mutated_inputs
from coderl.critic_sampling.models import PrefixScorer
from coderl.critic_sampling.ranking import (
    Behaviour,
    BehaviourRunner,
    class_sizes,
    open_behaviours,
    rank,
)
from coderl.execution import ExecutionConfig, open_executor
from coderl.execution.store import JobRunner
from coderl.prompts import PromptConfig
from coderl.stages.console import Reporter
from coderl.stages.stages import (
    chunks,
    hash_bare,
    hash_model,
    run_example_tests,
    run_stage,
)
from coderl.stages.tables import Key, Ranked, key, programs_of
from coderl.types import (
    Outcome,
    Problem,
    Program,
    ProgramKind,
    Verdict,
)


def rank_programs(
    out: Path,
    *,
    programs: Path,
    problems: Sequence[Problem],
    critic: Path | None,
    num_inputs: int,
    execution: ExecutionConfig,
    prompt: PromptConfig,
    seed: int,
    reporter: Reporter,
    chunk_size: int = 32,
) -> None:
    """Write `rankings`: the order in which to submit the programs that a stage wrote (see `ranking.rank`).

    Programs run on the example tests and on inputs made from them; no hidden test is in reach.
    """
    settings = {"num_inputs": num_inputs, "execution": execution.decisive(), "prompt": prompt.model_dump(mode="json"),
                "seed": seed}  # fmt: skip
    inputs = {
        "programs": records.hash_path(programs / "programs"),
        "critic": hash_model(critic) if critic else "none",
        "problems": hash_bare(problems),
    }

    def work(folder: Path) -> dict[str, Any]:
        table = records.PartedTable(folder / "rankings", Ranked)
        drawn = {
            problem_id: list(group)
            for problem_id, group in groupby(
                sorted(_submitted(programs), key=lambda p: (p.problem_id, p.index)), key=lambda p: p.problem_id
            )
        }
        parts = list(enumerate(chunks(problems, chunk_size)))
        todo = [(index, chunk) for index, chunk in parts if not table.has(index)]
        scorer = PrefixScorer(Critic.load(critic), prompt) if critic and todo else None
        with open_executor(execution) as executor, open_behaviours(execution) as runner:
            track = reporter.track(todo, "ranking", total=len(parts), unit="chunks", done=len(parts) - len(todo))
            for index, chunk in track:
                pairs = [(p, program) for p in chunk for program in drawn.get(p.problem_id, [])]
                table.write(index, _rank_chunk(pairs, executor, runner, scorer, num_inputs, seed))
        rows = list(table.rows()) if parts else []
        num_passing = sum(row.example_outcome is Outcome.PASSED_TEST for row in rows)
        num_classes = len({(row.problem_id, row.behaviour) for row in rows if row.behaviour is not None})
        return {"num_programs": len(rows), "num_passing_examples": num_passing, "num_classes": num_classes}

    run_stage(out, reporter, config=settings, inputs=inputs, work=work)


def _submitted(programs: Path) -> list[Program]:
    return [p for p in programs_of(programs) if p.kind is not ProgramKind.BASELINE]


def _rank_chunk(
    pairs: Sequence[tuple[Problem, Program]],
    executor: JobRunner,
    runner: BehaviourRunner,
    scorer: PrefixScorer | None,
    num_inputs: int,
    seed: int,
) -> list[Ranked]:
    tested = [(problem, program) for problem, program in pairs if problem.example_tests]
    results = dict(zip(map(_name, tested), run_example_tests(executor, tested), strict=True))
    passing = [p for p in tested if _outcome(results[_name(p)]) is Outcome.PASSED_TEST]
    given = {problem.problem_id: mutated_inputs(problem, num_inputs, seed=seed) for problem, _ in passing}
    acting = [(problem, program.code, given[problem.problem_id]) for problem, program in passing]
    behaviours = dict(zip(map(_name, passing), runner.behaviours(acting), strict=True))
    distinct = {(p.problem_id, program.tokens): (p, program) for p, program in pairs if program.tokens}
    scores = scorer.score(list(distinct.values())) if scorer and distinct else []
    by_tokens = {tokens: score.program_value for tokens, score in zip(distinct, scores, strict=scorer is not None)}
    found = {_name(pair): by_tokens.get((pair[0].problem_id, pair[1].tokens)) for pair in pairs}
    values = {name: value for name, value in found.items() if value is not None}
    rows = []
    for _, group in groupby(pairs, key=lambda pair: pair[0].problem_id):
        rows += _rank_problem(list(group), results, behaviours, values)
    return rows


def _rank_problem(
    pairs: Sequence[tuple[Problem, Program]],
    results: dict[Key, Verdict],
    behaviours: dict[Key, Behaviour],
    values: dict[Key, float],
) -> list[Ranked]:
    names = [_name(pair) for pair in pairs]
    known = [results.get(name) for name in names]
    acting = [behaviours.get(name, ()) for name in names]
    outcomes = [_outcome(result) for result in known]
    sizes = class_sizes(acting, [u is Outcome.PASSED_TEST for u in outcomes])
    numbers = {behaviour: number for number, behaviour in enumerate(dict.fromkeys(b for b in acting if b))}
    order = rank([p for _, p in pairs], known, [values.get(name) for name in names], acting)
    return [
        Ranked(names[at][0], pairs[at][1].kind, names[at][2], place, outcomes[at], numbers.get(acting[at]), sizes[at],
               values.get(names[at]))
        for place, at in enumerate(order)
    ]  # fmt: skip


def _outcome(result: Verdict | None) -> Outcome | None:
    return None if result is None else result.outcome


def _name(pair: tuple[Problem, Program]) -> Key:
    return key(pair[1])
