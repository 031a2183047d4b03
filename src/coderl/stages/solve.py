"""Problems of a person: the search near the greedy program, shown as it goes, and what it would submit and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from coderl import records
from coderl.critic_sampling.candidates import Candidate, SearchResult
from coderl.critic_sampling.search import critic_sample_many
from coderl.critic_sampling.settings import BranchConfig, CriticSamplingConfig
from coderl.engines.actor import Actor
from coderl.engines.settings import SamplingConfig
from coderl.evaluation.figures import outcome_words
from coderl.execution import ExecutionConfig, open_executor
from coderl.prompts import PromptConfig
from coderl.recipe import RECIPE, RunConfig
from coderl.stages.critic_sample import run_example_tests, tools_of
from coderl.stages.stage import chunks
from coderl.types import InputError, Problem, ProgramKind

NUM_SHOWN = 12
"""Of the programs tried, the latest so many stand in the view."""
CHUNK_SIZE = 64
Watch = Callable[[Sequence[SearchResult]], None]


@dataclass(frozen=True, slots=True)
class Solved:
    """What a search came to on one problem."""

    problem_id: str
    code: str
    """What it would submit."""
    passes: bool
    """Whether that passes the example tests."""
    why: str
    num_tried: int
    num_tokens: int


def settings_of(model: str | Path) -> tuple[PromptConfig, SamplingConfig]:
    """Return how the run that a model folder belongs to asks and draws; the defaults where it is of no run."""
    for folder in Path(model).resolve().parents if Path(model).exists() else ():
        if (folder / RECIPE).exists():
            config = RunConfig.model_validate(records.read_json(folder / RECIPE))
            return config.prompt, config.evaluation.sampling
    return PromptConfig(), SamplingConfig()


def solve(
    problems: Sequence[Problem],
    actor: Actor,
    repairer: Actor | None,
    *,
    branch: BranchConfig,
    execution: ExecutionConfig,
    watch: Watch | None = None,
) -> list[Solved]:
    """Search for a program of each problem that passes its example tests.

    Args:
        problems: Those without example tests get the greedy program.
        actor: What writes.
        repairer: What repairs when there are no branches left.
        branch: The settings of the search.
        execution: How programs are run.
        watch: Told what was tried so far, after each round of each chunk of problems.

    Raises:
        InputError: a prompt and a program are more tokens than the model has positions.
    """
    config = CriticSamplingConfig(start="near_greedy", branch=branch)
    found = []
    with open_executor(execution) as executor:
        for chunk in chunks(problems, CHUNK_SIZE):
            tools = tools_of(actor, repairer, None, partial(run_example_tests, executor), config)
            if watch is not None:
                tools = replace(tools, watch=watch)
            results = critic_sample_many(chunk, [[]] * len(chunk), tools, config=config, seed=0)
            found += [solved(problem, result) for problem, result in zip(chunk, results, strict=True)]
    return found


def solved(problem: Problem, result: SearchResult) -> Solved:
    """Return what a search would submit, and why.

    Raises:
        InputError: it has nothing, which means that a budget held no program.
    """
    if not result.returned:
        raise InputError(f"{problem.problem_id}: not even one program fits the budget")
    chosen, tried = result.returned[0], len(result.candidates)
    number = len(problem.example_tests)
    tests = f"{number} example test{'s' * (number != 1)}"
    if chosen.passes:
        why = f"program {chosen.program.index + 1} of {tried} tried is the first to pass the {tests}: {how(chosen)}"
    elif number:
        why = f"none of {tried} programs tried passes the {tests}: this is the greedy program"
    else:
        why = "the statement shows no example test, so there is nothing to search by: this is the greedy program"
    return Solved(problem.problem_id, chosen.program.code, chosen.passes, why, tried, result.spend.num_sampled_tokens)


def how(candidate: Candidate) -> str:
    """Return in words how a program came about."""
    fork = candidate.fork
    if fork is not None:
        parent = (candidate.parent or 0) + 1
        return f"program {parent} with {fork.forced!r} for {fork.replaced!r} on line {fork.line} ({fork.score:.1f})"
    if candidate.program.kind is ProgramKind.REPAIRED:
        return f"a repair of program {(candidate.parent or 0) + 1}"
    return "the greedy program"


# --------------------------------------------------------------------------------------------------------- the view


def view(problem: Problem, result: SearchResult) -> Group:
    """Return what a terminal shows of a search under way."""
    table = Table("program", "how it came about", "example tests", box=None, header_style="dim")
    for candidate in result.candidates[-NUM_SHOWN:]:
        table.add_row(str(candidate.program.index + 1), Text(how(candidate)), Text(verdict_of(candidate)))
    spent = f"{len(result.candidates)} programs, {result.spend.num_sampled_tokens:,} tokens"
    return Group(Text(f"{problem.problem_id}: {spent}", style="bold"), table)


def verdict_of(candidate: Candidate) -> str:
    """Return what the example tests say of a program."""
    result = candidate.result
    if result is None or result.outcome is None:
        return "not judged"
    words = outcome_words(result.outcome)
    return f"{words} ({result.error_subtype})" if result.error_subtype else words


def text_of(found: Solved) -> str:
    """Return the program that would be submitted, and why, for a terminal."""
    return f"{found.code.rstrip()}\n\n# {found.why}; {found.num_tokens:,} tokens"


def table_of(found: Sequence[Solved]) -> Table:
    """Return a line for each problem."""
    table = Table("problem", "passes", "programs", "tokens", "why")
    for each in found:
        numbers = (str(each.num_tried), f"{each.num_tokens:,}")
        table.add_row(each.problem_id, "yes" if each.passes else "no", *numbers, Text(each.why.partition(": ")[2]))
    return table
