"""One program of a person: what its example tests say, where the critic thinks it went wrong, and repairs that pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from coderl import problems as data
from coderl import records
from coderl.critic.lines import Line, line_values, steepest_fall, token_texts
from coderl.critic.model import Critic
from coderl.critic_sampling.candidates import Candidate, Tools
from coderl.critic_sampling.models import PrefixScorer, RepairModel
from coderl.critic_sampling.search import critic_sample
from coderl.critic_sampling.settings import CriticSamplingConfig
from coderl.engines.actor import Actor
from coderl.evaluation.figures import outcome_words
from coderl.execution import ExecutionConfig, open_executor
from coderl.recipe import RECIPE, RunConfig
from coderl.stages.critic_sample import run_example_tests
from coderl.types import (
    InputError,
    Outcome,
    Problem,
    Program,
    SandboxError,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What is wrong with a program, and what to write in its place."""

    result: Verdict
    """On the example tests."""
    program_value: float | None
    """The critic's p(Passed | W, D)."""
    lines: tuple[Line, ...]
    repairs: tuple[Candidate, ...]
    """Distinct repairs that pass the example tests, best first."""
    num_drawn: int
    num_distinct: int

    @property
    def suspect(self) -> int | None:
        """The number of the line on which the critic's value falls most, if it falls anywhere."""
        return steepest_fall(self.lines)


def read_problem(source: str, problem_id: str | None) -> Problem:
    """Return the one problem meant: of a folder or file that holds one, or the one with that id.

    Raises:
        InputError: there is no such problem, there are several to choose from, or it shows no example test.
    """
    found = [p.problem for p in data.load(source) if problem_id in (None, p.problem.problem_id)]
    if not found:
        raise InputError(f"{source}: no problem {problem_id!r}")
    if len(found) > 1:
        raise InputError(f"{source}: {len(found)} problems; say which with --problem-id, such as {found[0].problem_id}")
    if not found[0].example_tests:
        raise InputError(f"{source}: the statement shows no example test, so nothing says whether the program is right")
    return found[0]


def repair_program(
    code: str,
    problem: Problem,
    *,
    repairer: RepairModel,
    critic: PrefixScorer | None,
    num_samples: int,
    execution: ExecutionConfig,
    seed: int,
) -> RepairReport:
    """Return what the example tests and the critic say of a program, and repairs of it; none if it passes.

    Source: CodeRL section 3.3.4, Eq. 13, for one program that no model drew.

    Raises:
        SandboxError: the sandbox failed on the program.
    """
    program = Program(problem.problem_id, 0, code, tokens=repairer.actor.encode_solution(problem, code))
    config = CriticSamplingConfig(num_samples=num_samples, num_refine_rounds=0, keep="all")
    with open_executor(execution) as executor:
        run = partial(run_example_tests, executor)
        tools = Tools(repairer.actor, critic, repairer, run)
        found = critic_sample(problem, [program], tools, config=config, seed=seed)
        given = found.candidates[0]
        if given.result is None:
            (again,) = run([(problem, program)])
            if again.fault is not None:
                raise SandboxError(again.fault)
            given = replace(given, result=again)
    assert given.result is not None
    values = critic.score([(problem, program)])[0].prefix_values if critic and program.tokens else None
    drawn = found.candidates[1:]
    by_index = {c.program.index: c for c in drawn}
    passing = [
        c
        for c in (by_index.get(p.index) for p in found.ranked())
        if c is not None and c.result is not None and c.result.outcome is Outcome.PASSED_TEST
    ]
    distinct = {c.program.code: c for c in reversed(passing)}  # the first of each text
    return RepairReport(
        result=given.result,
        program_value=given.program_value,
        lines=line_values(code, token_texts(repairer.actor.model, program.tokens), values),
        repairs=tuple(c for c in passing if distinct[c.program.code] is c),
        num_drawn=len(drawn),
        num_distinct=len({c.program.code for c in drawn}),
    )


def load_models(
    run_dir: Path, repair_model: Path | None, critic: Path | None
) -> tuple[RepairModel, PrefixScorer | None]:
    """Return the networks of a run, or others in their place, with the run's prompts and way of drawing.

    Raises:
        InputError: there is no repair model, or a folder holds no such network.
    """
    recipe, ours = run_dir / RECIPE, run_dir / "repair" / "model"
    if repair_model is None and not ours.exists():
        raise InputError(f"{ours}: no repair model; give --run-dir (a finished run) or --repair-model")
    config = RunConfig.model_validate(records.read_json(recipe)) if recipe.exists() else RunConfig()
    settings = config.evaluation
    sampling = settings.sampling.model_copy(update={"temperature": settings.temperatures[0]})
    if critic is None and repair_model is None and (run_dir / "binary-critic" / "model").exists():
        critic = run_dir / "binary-critic" / "model"
    actor = Actor.load(repair_model or ours, config.prompt, sampling)
    return RepairModel(actor), PrefixScorer(Critic.load(critic), config.prompt) if critic else None


def text_of(report: RepairReport, name: str) -> str:
    """Return the report for a terminal."""
    result = report.result
    assert result.outcome is not None
    what = outcome_words(result.outcome) + (f" ({result.error_subtype})" if result.error_subtype else "")
    where = f" on line {result.error_line}" if result.error_line else ""
    message = f": {result.message}" if result.message else ""
    lines = [f"{name}: {what}{where}{message}"]
    if report.program_value is not None:
        worst = f"; its value falls most on line {report.suspect}" if report.suspect else ""
        lines.append(f"critic: {report.program_value:.2f} to pass{worst}")
        width = max((len(line.text) for line in report.lines), default=0)
        for line in report.lines:
            value = "    " if line.value is None else f"{line.value:.2f}"
            marks = [" <- critic"] * (line.number == report.suspect) + [" <- error"] * (
                line.number == result.error_line
            )
            lines.append(f"{line.number:4d}  {value}  {line.text:{width}}{''.join(marks)}".rstrip())
    if result.outcome is Outcome.PASSED_TEST:
        return "\n".join([*lines, "it passes the example tests: nothing to repair"])
    drawn = f"{report.num_drawn} repairs drawn, {report.num_distinct} distinct"
    lines.append(f"{drawn}, {len(report.repairs)} pass the example tests")
    for number, candidate in enumerate(report.repairs, start=1):
        value = "" if candidate.program_value is None else f" (critic {candidate.program_value:.2f})"
        lines += [f"--- repair {number}{value}", candidate.program.code]
    return "\n".join(lines)
