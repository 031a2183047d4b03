"""From problems, programs and verdicts to what the networks learn from."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from coderl.critic.lines import first_line, token_texts
from coderl.engines.actor import Actor, prompt_tokens
from coderl.models.lm import LanguageModel
from coderl.prompts import PromptConfig
from coderl.rl import returns
from coderl.rl.settings import ReturnsConfig
from coderl.stages.tables import (
    Key,
    Score,
    VerdictRow,
    by_problem,
    judged,
    key,
    programs_of,
    scores_of,
    verdicts_of,
)
from coderl.training.losses import ActorExample, CriticExample, CrossEntropyExample
from coderl.training.repair import repair_pairs
from coderl.training.settings import CriticConfig
from coderl.types import (
    InputError,
    LabelledProblem,
    Outcome,
    Problem,
    Program,
    ProgramKind,
)


def solution_examples(actor: Actor, problems: Sequence[LabelledProblem]) -> list[CrossEntropyExample]:
    """Return every reference solution of the problems as something to imitate."""
    return [
        CrossEntropyExample(tuple(prompt), actor.encode_solution(labelled.problem, solution))
        for labelled in problems
        if labelled.solutions
        for prompt in [actor.encode_prompt(labelled.problem)]
        for solution in labelled.solutions
    ]


def failed_pairs(
    pools: Sequence[tuple[Path, Path]], problems: Sequence[LabelledProblem], *, use_samples: bool
) -> list[tuple[Problem, Program, VerdictRow, str]]:
    """Return each distinct failed program of the (sample, execute) pools, its verdict, and what it should have been.

    That is the nearest of the problem's reference solutions and, with `use_samples`, of the programs of all pools that
    passed its hidden tests; a failed program without any is left out.
    """
    drawn: dict[str, dict[str, tuple[Program, VerdictRow]]] = {}
    for sampled, executed in pools:
        for program, verdict in judged(programs_of(sampled), verdicts_of(executed)):
            drawn.setdefault(program.problem_id, {}).setdefault(program.code, (program, verdict))
    found: list[tuple[Problem, Program, VerdictRow, str]] = []
    for labelled in problems:
        group = list(drawn.get(labelled.problem.problem_id, {}).values())
        right = [p.code for p, v in group if v.outcome is Outcome.PASSED_TEST] if use_samples else []
        failed = [(p, v) for p, v in group if v.outcome is not Outcome.PASSED_TEST]
        for pair in repair_pairs([p.code for p, _ in failed], [*labelled.solutions, *right]):
            found.append((labelled.problem, *failed[pair.failed_index], pair.solution))
    return found


def critic_examples(
    model: LanguageModel,
    pools: Sequence[tuple[Path, Path]],
    problems: Sequence[LabelledProblem],
    config: CriticConfig,
    prompt: PromptConfig,
) -> tuple[list[CriticExample], list[CriticExample], list[CriticExample]]:
    """Return the programs to train on, to validate on and to report on, copies merged; each problem is in one part."""
    by_id = {p.problem.problem_id: p for p in problems}
    found: Counter[tuple[str, tuple[int, ...], Outcome]] = Counter()
    for sampled, executed in pools:
        for program, verdict in judged(programs_of(sampled), verdicts_of(executed)):
            if program.tokens and verdict.outcome is not None and program.problem_id in by_id:
                found[program.problem_id, program.tokens, verdict.outcome] += 1
    if config.use_solutions:
        actor = Actor(model, prompt)
        for labelled in problems:
            for solution in labelled.solutions:
                tokens = actor.encode_solution(labelled.problem, solution)
                found[labelled.problem.problem_id, tokens, Outcome.PASSED_TEST] += 1
    encoded = {i: tuple(prompt_tokens(model, by_id[i].problem, prompt)) for i in {key[0] for key in found}}
    parts: tuple[list[CriticExample], list[CriticExample], list[CriticExample]] = ([], [], [])
    for (problem_id, tokens, outcome), count in found.items():
        part = parts[held_out_part(problem_id, config.held_out)]
        part.append(CriticExample(encoded[problem_id], tokens, outcome, count))
    return parts


def held_out_part(problem_id: str, share: float) -> int:
    """Return, the same in any round, 0 for a problem to train a critic on, 1 to validate it on, 2 to report on."""
    place = random.Random(f"held out {problem_id}").random()
    return 2 if place < share / 2 else 1 if place < share else 0


def actor_examples(
    sampled: Path,
    executed: Path,
    scored: Path | None,
    model: LanguageModel,
    encoded: dict[str, tuple[int, ...]],
    config: ReturnsConfig,
) -> list[ActorExample]:
    """Return the samples of a (sample, execute, score) pool with the return of each token.

    Raises:
        InputError: the critic spread without scores.
    """
    if config.spread == "critic" and scored is None:
        raise InputError("the critic spread needs scores: run `coderl score`, or choose spread = 'uniform'")
    scores = scores_of(scored) if scored is not None else {}
    groups = by_problem(judged(programs_of(sampled), verdicts_of(executed)))
    return [
        example
        for problem_id, group in groups.items()
        for example in group_examples(group, scores, model, encoded[problem_id], config)
    ]


def group_examples(
    group: Sequence[tuple[Program, VerdictRow]],
    scores: dict[Key, Score],
    model: LanguageModel,
    prompt: tuple[int, ...],
    config: ReturnsConfig,
) -> list[ActorExample]:
    """Return the samples of one problem with their token returns; without its baseline, if one is asked for, none."""
    baseline = next((v.outcome for p, v in group if p.kind is ProgramKind.BASELINE), None)
    drawn = [(p, v, v.outcome) for p, v in group if p.kind is ProgramKind.SAMPLE and p.tokens and v.outcome is not None]
    if config.baseline == "greedy" and baseline is None:
        return []
    relative = returns.relative_returns(
        [returns.outcome_return(u) for _, _, u in drawn],
        baseline=config.baseline,
        greedy_return=None if baseline is None else returns.outcome_return(baseline),
    )
    examples = []
    for (program, verdict, outcome), advantage in zip(drawn, relative, strict=True):
        kept = returns.filter_advantage(advantage, mode=config.filter, negative_scale=config.negative_scale)
        if config.spread == "critic":
            values = scores[key(program)].token_values
            rho = returns.token_returns(kept, returns.mean_one(values) if config.mean_one else values)
        else:
            lines = token_lines(model, program) if config.spread == "error_line" and verdict.error_line else None
            spread = "uniform" if config.spread == "error_line" and lines is None else config.spread
            rho = returns.spread_return(
                kept, len(program.tokens), outcome, spread=spread, token_lines=lines, error_line=verdict.error_line
            )
        examples.append(ActorExample(prompt, program.tokens, rho, problem_id=program.problem_id))
    return merge_copies(examples) if config.count_copies else list({e.program: e for e in examples}.values())


def token_lines(model: LanguageModel, program: Program) -> list[int]:
    """Return the 1-based line of the program's code on which each of its tokens begins to spell something.

    A token that opens a line with the line end before it counts to the line it opens. What stands before the code is
    on line 0 or below.
    """
    first = first_line(model.decode(program.tokens), program.code)
    lines = []
    for new in token_texts(model, program.tokens):
        opened = len(new) - len(new.lstrip())
        lines.append(first + new[:opened].count("\n"))
        first += new.count("\n")
    return lines


def merge_copies(samples: Sequence[ActorExample]) -> list[ActorExample]:
    """Return the samples of one problem with the same tokens as one that carries their returns' sum.

    The gradient of -sum_t rho_t log p(w_t) is the same, at the cost of one.
    """
    merged: dict[tuple[int, ...], ActorExample] = {}
    for sample in samples:
        other = merged.get(sample.program)
        if other is not None:
            summed = tuple(a + b for a, b in zip(sample.token_returns, other.token_returns, strict=True))
            sample = replace(sample, token_returns=summed)
        merged[sample.program] = sample
    return list(merged.values())
