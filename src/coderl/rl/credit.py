"""The rollouts of one draw -> examples: what each token of each program earned, by the settings of `ReturnsConfig`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev

import torch

from coderl.critic.calibration import auroc, expected_calibration_error
from coderl.critic.prefix import expected_returns, outcome_row
from coderl.rl import returns
from coderl.rl.advantages import Record, explained_variance, gae, lambda_targets
from coderl.rl.losses import ActorCritic, OnlineExample, read
from coderl.rl.rollout import return_of, spread
from coderl.rl.settings import OnlineConfig
from coderl.types import Outcome, ProgramKind, Rollout, Score

FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of a program's tokens after which the critic is measured."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the policy that drew a program says of it before it learns from it."""

    log_probs: tuple[float, ...]
    probs: tuple[tuple[float, ...], ...]
    """Outcome probabilities at the prefixes 0..T; empty without a critic."""


def examples_of(
    groups: Sequence[Sequence[Rollout]],
    model: ActorCritic,
    prompts: Mapping[str, tuple[int, ...]],
    records: Mapping[str, Record],
    config: OnlineConfig,
) -> tuple[list[OnlineExample], dict[str, float]]:
    """Return what a draw teaches, and figures of the critic on it; programs that teach nothing are left out.

    Args:
        groups: all rollouts of each problem, the greedy one among them where it is the baseline.
        model: which drew them.
        prompts: problem -> the tokens of its prompt.
        records: problem -> how its earlier programs fared.
        config: how much is learned from.
    """
    drawn = [[r for r in g if r.program.kind is ProgramKind.SAMPLE and r.program.tokens] for g in groups]
    flat = [r for group in drawn for r in group]
    is_corrected = config.max_importance is not None and any(r.sampling_log_probs for r in flat)
    needs_reading = config.training.clip_range is not None or model.critic is not None or is_corrected
    measured = measure(model, flat, prompts, config) if needs_reading else [Measured((), ())] * len(flat)
    by_program = dict(zip(map(id, flat), measured, strict=True))
    examples = []
    for group, samples in zip(groups, drawn, strict=True):
        for rollout, advantage in zip(samples, _relative(group, samples, records, config), strict=True):
            found = by_program[id(rollout)]
            rho = _spread(rollout, advantage, found, model, config)
            if rollout.sampling_log_probs and config.max_importance is not None:
                rho = corrected(rho, found.log_probs, rollout.sampling_log_probs, most=config.max_importance)
            if config.mask_cut and rollout.is_cut:
                rho = (0.0,) * len(rho)
            targets = _targets(rollout, found, config) if found.probs else ()
            program = rollout.program
            examples.append(
                OnlineExample(prompts[program.problem_id], program.tokens, rho, found.log_probs, tuple(targets))
            )
    kept = [e for e in examples if e.critic_targets or any(e.token_returns)]
    kept = _whitened(kept) if config.whiten else kept
    return kept, critic_figures(flat, measured, config) if model.critic is not None else {}


def corrected(
    token_returns: Sequence[float], log_probs: Sequence[float], drawn_with: Sequence[float], *, most: float
) -> tuple[float, ...]:
    """Return rho_t min(p(w_t) / p_drawn(w_t), most): what a token earned, as if the trained model had drawn it.

    Source: truncated importance sampling between engine and trainer (Yao et al. 2025).
    """
    ratios = (math.exp(min(ours - theirs, math.log(most))) for ours, theirs in zip(log_probs, drawn_with, strict=True))
    return tuple(rho * ratio for rho, ratio in zip(token_returns, ratios, strict=True))


def _relative(
    group: Sequence[Rollout], samples: Sequence[Rollout], records: Mapping[str, Record], config: OnlineConfig
) -> list[float]:
    """Return A of each sample of one problem; for GAE the return itself, from which the critic's values are taken."""
    earned = [return_of(r, config.returns) for r in samples]
    if not earned or config.returns.spread == "gae":
        return earned
    greedy = next((r for r in group if r.program.kind is ProgramKind.BASELINE), None)
    if config.returns.baseline == "greedy" and greedy is None:
        return [0.0] * len(earned)
    record = records.get(samples[0].program.problem_id, Record())
    return returns.relative_returns(
        earned,
        baseline=config.returns.baseline,
        greedy_return=None if greedy is None else return_of(greedy, config.returns),
        tracked_return=record.mean_return,
    )


def _spread(
    rollout: Rollout, advantage: float, found: Measured, model: ActorCritic, config: OnlineConfig
) -> tuple[float, ...]:
    """Return rho_t of a program."""
    how = config.returns
    if how.spread == "gae":
        values = expected_returns(found.probs, column_returns(how.reward))
        return tuple(_filtered(a, config) for a in gae(values, advantage, decay=how.gae_decay))
    scored = replace(rollout, score=Score(found.probs[-1], found.probs[1:])) if found.probs else rollout
    return spread(scored, _filtered(advantage, config), model.actor, how)


def _filtered(advantage: float, config: OnlineConfig) -> float:
    how = config.returns
    return returns.filter_advantage(advantage, mode=how.filter, negative_scale=how.negative_scale)


def column_returns(reward: returns.Reward) -> list[float]:
    """Return what each outcome earns, in the order of the critic's columns."""
    return [returns.program_return(u, (), reward="passing" if reward == "tests" else reward) for u in Outcome]


def _targets(rollout: Rollout, found: Measured, config: OnlineConfig) -> list[tuple[float, ...]]:
    return lambda_targets(found.probs, outcome_row(rollout.outcome), decay=config.critic_decay)


def _whitened(examples: list[OnlineExample]) -> list[OnlineExample]:
    """Return the examples with token returns of mean 0 and deviation 1 over the whole draw.

    Source: Schulman et al. 2017's implementation; Xu and Ding 2025 for single-stream optimisation.
    """
    earned = [rho for e in examples for rho in e.token_returns]
    deviation = pstdev(earned) if earned else 0.0
    if not deviation:
        return examples
    mean = fmean(earned)
    return [replace(e, token_returns=tuple((rho - mean) / deviation for rho in e.token_returns)) for e in examples]


# --------------------------------------------------------------------------------------------------------- the critic


@torch.no_grad()
def measure(
    model: ActorCritic, drawn: Sequence[Rollout], prompts: Mapping[str, tuple[int, ...]], config: OnlineConfig
) -> list[Measured]:
    """Return the log-probabilities and the critic's probabilities of each program, in one forward pass."""
    was_training = model.training
    model.eval()
    order = sorted(range(len(drawn)), key=lambda i: len(prompts[drawn[i].program.problem_id]))
    found: dict[int, Measured] = {}
    for start in range(0, len(order), config.measure_rows):
        rows = order[start : start + config.measure_rows]
        programs = [drawn[i].program for i in rows]
        batch = model.actor.collate([prompts[p.problem_id] for p in programs], [p.tokens for p in programs])
        said = read(model, batch, temperature=config.sampling.temperature)
        logs = said.log_probs.tolist()
        probs = None if said.outcome_logits is None else said.outcome_logits.softmax(-1).tolist()
        for position, i in enumerate(rows):
            length = len(drawn[i].program.tokens)
            rows_of = () if probs is None else tuple(tuple(p) for p in probs[position][: length + 1])
            found[i] = Measured(tuple(logs[position][:length]), rows_of)
    model.train(was_training)
    return [found[i] for i in range(len(drawn))]


def critic_figures(drawn: Sequence[Rollout], measured: Sequence[Measured], config: OnlineConfig) -> dict[str, float]:
    """Return how well the critic tells programs that it has not learned from, by share of the prefix."""
    passed = [r.outcome is Outcome.PASSED_TEST for r in drawn]
    earned = [return_of(r, config.returns) for r in drawn]
    worth = column_returns(config.returns.reward)
    figures = {}
    for fraction in FRACTIONS:
        rows = [m.probs[math.ceil(fraction * (len(m.probs) - 1))] for m in measured]
        values = expected_returns(rows, worth)
        figures[f"critic_auroc_{fraction:g}"] = auroc([row[-1] for row in rows], passed)
        figures[f"critic_explained_{fraction:g}"] = explained_variance(values, earned)
        figures[f"critic_calibration_error_{fraction:g}"] = expected_calibration_error([r[-1] for r in rows], passed)
    losses = []
    for rollout, found in zip(drawn, measured, strict=True):
        column = outcome_row(rollout.outcome).index(1.0)
        losses += [-math.log(max(row[column], 1e-12)) for row in found.probs]
    return {**figures, "critic_loss_before": fmean(losses or [math.nan])}
