"""The stage that orders the programs of a problem for submission, by example tests, behaviour and critic."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from coderl import tables
from coderl.critic_sampling.inputs import mutated_inputs
from coderl.critic_sampling.models import PrefixScorer
from coderl.critic_sampling.ranking import (
    RANKED,
    Behaviour,
    BehaviourRunner,
    Ranking,
    class_sizes,
    open_behaviours,
)
from coderl.critic_sampling.ranking import (
    rank as rank_order,
)
from coderl.execution import ExecutionConfig, open_executor
from coderl.execution.store import JobRunner
from coderl.prompts import PromptConfig
from coderl.stages import networks
from coderl.stages.critic_sample import run_example_tests
from coderl.stages.rollouts import ByProblem
from coderl.stages.stage import Facts, ModelFolder, Programs, Shown, Work, chunks, stage
from coderl.types import Outcome, Problem, Program, ProgramKey, ProgramKind, Verdict

CHUNK_SIZE = 32
"""Problems that a killed run may have to rank again."""


@stage(shared="parts")
def rank(
    work: Work,
    *,
    programs: Programs,
    problems: Shown,
    critic: ModelFolder | None = None,
    num_inputs: int = 8,
    execution: ExecutionConfig = ExecutionConfig(),
    prompt: PromptConfig = PromptConfig(),
    seed: int = 0,
) -> Facts:
    r"""Order programs for submission: by example tests, equal behaviour, critic.

        coderl rank --programs runs/demo/evaluate/actor_critic/t0.6/sample --problems runs/demo/problems/test.jsonl \
            --critic runs/demo/binary-critic/model --out runs/demo/rank

    The order goes to OUT/rankings, for `coderl evaluate --ranking`. Programs run on the example tests and on inputs
    made from them; no hidden test is in reach. A killed command continues.

    Args:
        critic: A binary critic's folder; without one the shorter program comes first within a class.
        num_inputs: Inputs made of the example tests' to tell behaviours apart; 0 ranks without behaviour.
        seed: Decides the inputs.
    """
    table = tables.PartedTable(work.folder / "rankings", RANKED)
    drawn = ByProblem.of_programs(programs)
    parts = chunks(problems, CHUNK_SIZE)
    with open_executor(execution) as executor, open_behaviours(execution) as runner:
        for index, chunk in work.parts(table, parts, "ranking"):
            scorer = PrefixScorer(networks.critic(critic), prompt) if critic else None
            pairs = [(p, program) for p in chunk for program in _submitted(drawn, p)]
            table.write(index, _rank_chunk(pairs, executor, runner, scorer, num_inputs, seed))
    return work.facts(lambda: _facts(table) if parts else _counts(0, 0, 0))


def _submitted(drawn: ByProblem, problem: Problem) -> list[Program]:
    """Return what was drawn for a problem, the greedy program left out."""
    found = drawn.of([problem.problem_id]).get(problem.problem_id, [])
    return sorted((p for p in found if p.kind is not ProgramKind.BASELINE), key=lambda p: p.index)


def _facts(table: tables.PartedTable) -> Facts:
    num_programs = num_passing = 0
    classes: set[tuple[str, int]] = set()
    for key, ranking in table.rows():
        num_programs += 1
        num_passing += ranking.example_outcome is Outcome.PASSED_TEST
        if ranking.behaviour is not None:
            classes.add((key.problem_id, ranking.behaviour))
    return _counts(num_programs, num_passing, len(classes))


def _counts(num_programs: int, num_passing: int, num_classes: int) -> Facts:
    return {"num_programs": num_programs, "num_passing_examples": num_passing, "num_classes": num_classes}


def _rank_chunk(
    pairs: Sequence[tuple[Problem, Program]],
    executor: JobRunner,
    runner: BehaviourRunner,
    scorer: PrefixScorer | None,
    num_inputs: int,
    seed: int,
) -> list[tuple[ProgramKey, Ranking]]:
    tested = [(problem, program) for problem, program in pairs if problem.example_tests]
    verdicts = dict(zip((p.key for _, p in tested), run_example_tests(executor, tested), strict=True))
    passing = [(problem, p) for problem, p in tested if verdicts[p.key].outcome is Outcome.PASSED_TEST]
    given = {problem.problem_id: mutated_inputs(problem, num_inputs, seed=seed) for problem, _ in passing}
    acting = [(problem, program.code, given[problem.problem_id]) for problem, program in passing]
    behaviours = dict(zip((p.key for _, p in passing), runner.behaviours(acting), strict=True))
    values = _program_values(pairs, scorer)
    rows = []
    for _, group in groupby((program for _, program in pairs), key=lambda program: program.problem_id):
        rows += _rank_problem(list(group), verdicts, behaviours, values)
    return rows


def _program_values(
    pairs: Sequence[tuple[Problem, Program]], scorer: PrefixScorer | None
) -> dict[tuple[str, tuple[int, ...]], float]:
    """Return what the critic says of each text, by problem and tokens."""
    distinct = {(p.problem_id, program.tokens): (p, program) for p, program in pairs if program.tokens}
    scores = scorer.score(list(distinct.values())) if scorer and distinct else []
    return {name: score.program_value for name, score in zip(distinct, scores, strict=scorer is not None)}


def _rank_problem(
    programs: Sequence[Program],
    verdicts: dict[ProgramKey, Verdict],
    behaviours: dict[ProgramKey, Behaviour],
    known: dict[tuple[str, tuple[int, ...]], float],
) -> list[tuple[ProgramKey, Ranking]]:
    acting = [behaviours.get(p.key, ()) for p in programs]
    found = [verdicts.get(p.key) for p in programs]
    values = [known.get((p.problem_id, p.tokens)) for p in programs]
    outcomes = [None if verdict is None else verdict.outcome for verdict in found]
    sizes = class_sizes(acting, [u is Outcome.PASSED_TEST for u in outcomes])
    numbers = {behaviour: number for number, behaviour in enumerate(dict.fromkeys(b for b in acting if b))}
    order = rank_order(programs, found, values, acting)
    return [
        (programs[at].key, Ranking(place, outcomes[at], numbers.get(acting[at]), sizes[at], values[at]))
        for place, at in enumerate(order)
    ]
