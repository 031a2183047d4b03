"""The stage that searches: Algorithm 1 on the programs drawn before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from coderl import tables
from coderl.critic_sampling.candidates import NOT_IN_TABLES, Candidate, SearchResult, TestRunner, Tools
from coderl.critic_sampling.models import NearGreedyWriter, PrefixScorer, RepairModel
from coderl.critic_sampling.search import critic_sample_many
from coderl.critic_sampling.settings import CriticSamplingConfig
from coderl.engines.actor import Actor
from coderl.engines.settings import SampleConfig
from coderl.execution import ExecutionConfig, Job, open_executor
from coderl.execution.store import JobRunner
from coderl.prompts import PromptConfig
from coderl.stages import networks
from coderl.stages.rollouts import ByProblem
from coderl.stages.stage import Facts, ModelFolder, ModelSource, Programs, Shown, Work, chunks, derive_seed, stage
from coderl.types import InputError, Problem, Program, ProgramKind, Verdict


@stage(shared="parts")
def critic_sample(
    work: Work,
    *,
    actor: ModelSource,
    critic: ModelFolder | None = None,
    repair_model: ModelFolder | None = None,
    programs: Programs | None = None,
    problems: Shown,
    config: CriticSamplingConfig = CriticSamplingConfig(),
    sample: SampleConfig = SampleConfig(),
    execution: ExecutionConfig = ExecutionConfig(),
    prompt: PromptConfig = PromptConfig(),
    seed: int = 0,
) -> Facts:
    r"""Refine programs that pass the example tests and repair those that fail (Algorithm 1), or branch the greedy one.

        coderl critic-sample --actor runs/demo/round-01/actor/model --critic runs/demo/binary-critic/model \
            --repair-model runs/demo/repair/model --programs runs/demo/evaluate/actor_critic/t0.6/sample \
            --problems runs/demo/problems/test.jsonl --out runs/demo/search

    All candidates go to OUT/candidates, those to hand in to OUT/programs; OUT/searches says of each problem what its
    search cost, and why no round was possible, if none was. A killed command continues.

    Args:
        actor: The model folder or hub name that drew the programs.
        critic: A binary critic's folder; without one all values are even.
        repair_model: A repair model's folder; without one nothing is repaired.
        programs: The folder of the `sample` stage to begin from; a search near the greedy program needs none.
        seed: Decides what is drawn.

    Raises:
        InputError: Algorithm 1 is given no programs.
    """
    if programs is None and config.start == "samples":
        raise InputError("give --programs, the samples to begin from, or --start near_greedy")
    candidates = tables.PartedTable(work.folder / "candidates", Candidate, without=NOT_IN_TABLES)
    searches = tables.PartedTable(work.folder / "searches", SearchResult, without=NOT_IN_TABLES)
    returned = tables.PartedTable(work.folder / "programs", Program)
    drawn = ByProblem.of_programs(programs) if programs and config.start == "samples" else None
    with open_executor(execution) as executor:
        for index, chunk in work.parts(returned, chunks(problems, sample.chunk_size), "critic sampling"):
            repairer = networks.actor(repair_model, prompt, sample.sampling) if repair_model else None
            scorer = PrefixScorer(networks.critic(critic), prompt) if critic else None
            run = partial(run_example_tests, executor)
            tools = tools_of(networks.actor(actor, prompt, sample.sampling), repairer, scorer, run, config)
            given, own_seed = _samples_of(drawn, chunk), derive_seed(seed, index)
            results = critic_sample_many(chunk, given, tools, config=config, seed=own_seed)
            candidates.write(index, [candidate for result in results for candidate in result.candidates])
            searches.write(index, results)
            returned.write(index, [program for result in results for program in result.programs])
    return work.facts(lambda: _facts(candidates, searches))


def _samples_of(drawn: ByProblem | None, problems: Sequence[Problem]) -> list[list[Program]]:
    """Return the samples drawn for each of some problems."""
    groups = drawn.of([p.problem_id for p in problems]) if drawn is not None else {}
    return [[p for p in groups.get(problem.problem_id, []) if p.kind is ProgramKind.SAMPLE] for problem in problems]


def tools_of(
    actor: Actor, repairer: Actor | None, critic: PrefixScorer | None, run: TestRunner, config: CriticSamplingConfig
) -> Tools:
    """Return what a search needs of the networks of a run."""
    repair_model = RepairModel(repairer) if repairer else None
    if config.start == "samples":
        return Tools(actor, critic, repair_model, run)
    writers = [
        NearGreedyWriter(of, num_alternatives=config.branch.num_alternatives) if of else None
        for of in (actor, repairer)
    ]
    return Tools(actor, critic, repair_model, run, writers[0], writers[1])


def _facts(candidates: tables.PartedTable, searches: tables.PartedTable) -> Facts:
    facts: Counter[str] = Counter()
    for batch in tables.read_columns(candidates.folder, Candidate, ["kind"]):
        facts.update(f"num_{kind}" for kind in batch["kind"].to_pylist())
    for search in searches.rows():
        facts["num_tokens"] += search.spend.num_sampled_tokens
        facts["num_tests"] += search.spend.num_executed_tests
        if search.no_round is not None:
            facts[search.no_round.value] += 1
    return dict(facts)


def run_example_tests(executor: JobRunner, items: list[tuple[Problem, Program]]) -> list[Verdict]:
    """Return what the example tests of their problems say of some programs."""
    jobs = (
        Job(program.code, problem.example_tests, problem.fn_name, prelude=problem.prelude) for problem, program in items
    )
    return list(executor.run(jobs))
