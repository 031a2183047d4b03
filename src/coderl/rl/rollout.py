"""Rollouts -> what the actor learns from: each sample with what each of its tokens earned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from coderl.critic.lines import first_line, token_texts
from coderl.models.lm import LanguageModel
from coderl.rl import returns
from coderl.rl.settings import ReturnsConfig
from coderl.training.losses import ActorExample
from coderl.types import Program, ProgramKind, Rollout


def actor_examples(
    group: Sequence[Rollout],
    model: LanguageModel,
    prompts: Mapping[str, tuple[int, ...]],
    config: ReturnsConfig,
) -> list[ActorExample]:
    """Return the samples of ONE problem with their token returns; without its baseline, if one is asked for, none.

    Source: CodeRL section 3.3.

    Args:
        group: all rollouts of the problem, with scores where the critic spreads the return.
        model: whose tokens the programs are.
        prompts: problem -> the tokens of its prompt.
        config: what a sample earns.
    """
    baseline = next((r for r in group if r.program.kind is ProgramKind.BASELINE), None)
    drawn = [r for r in group if r.program.kind is ProgramKind.SAMPLE and r.program.tokens]
    if config.baseline == "greedy" and baseline is None:
        return []
    relative = returns.relative_returns(
        [return_of(r, config) for r in drawn],
        baseline=config.baseline,
        greedy_return=None if baseline is None else return_of(baseline, config),
    )
    examples = []
    for rollout, advantage in zip(drawn, relative, strict=True):
        kept = returns.filter_advantage(advantage, mode=config.filter, negative_scale=config.negative_scale)
        program, rho = rollout.program, spread(rollout, kept, model, config)
        examples.append(ActorExample(prompts[program.problem_id], program.tokens, rho, problem_id=program.problem_id))
    return merge_copies(examples) if config.count_copies else list({e.program: e for e in examples}.values())


def return_of(rollout: Rollout, config: ReturnsConfig) -> float:
    """Return what a program earned: see `returns.Reward`."""
    return returns.program_return(rollout.outcome, rollout.verdict.test_outcomes, reward=config.reward)


def spread(rollout: Rollout, advantage: float, model: LanguageModel, config: ReturnsConfig) -> tuple[float, ...]:
    """Return a program's relative return shared among its tokens."""
    program, verdict = rollout.program, rollout.verdict
    if config.spread == "critic":
        assert rollout.score is not None, f"no score of {program.key}"
        values = returns.critic_values(rollout.score.token_probs, rollout.outcome)
        return returns.token_returns(advantage, returns.mean_one(values) if config.mean_one else values)
    lines = token_lines(model, program) if config.spread == "error_line" and verdict.error_line else None
    how = "uniform" if config.spread == "error_line" and lines is None else config.spread
    return returns.spread_return(
        advantage,
        len(program.tokens),
        rollout.outcome,
        spread=how,
        token_lines=lines,
        error_line=verdict.error_line,
    )


def token_lines(model: LanguageModel, program: Program) -> list[int]:
    """Return the 1-based line of the program's code on which each of its tokens begins to spell something.

    A token that opens a line with the line end before it counts to the line it opens. Where the code is not a part of
    the text (a starter was put before it), both end together. What stands before the code is on line 0 or below.
    """
    texts = token_texts(model, program.tokens)
    first = first_line("".join(texts), program.code)
    lines = []
    for new in texts:
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
