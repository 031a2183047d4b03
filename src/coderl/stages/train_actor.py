"""The stage that trains the actor on its own programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from coderl import tables
from coderl.engines.actor import Actor
from coderl.models.lm import LanguageModel
from coderl.prompts import PromptConfig
from coderl.rl import staged
from coderl.rl.canaries import gradient_norms, kl_to_reference, sample_canaries
from coderl.rl.rollout import actor_examples
from coderl.rl.settings import ActorTrainingConfig, ReturnsConfig
from coderl.stages import networks
from coderl.stages.rollouts import by_problem, rollouts_of
from coderl.stages.stage import Facts, Labelled, ModelSource, Programs, Scores, Verdicts, Work, stage
from coderl.stages.warm_start import solution_examples
from coderl.training.losses import ActorExample
from coderl.types import InputError, Rollout


@dataclass(frozen=True, slots=True)
class TrainedSample:
    """A sample that an actor was trained on; copies of a program are one."""

    problem_id: str
    num_tokens: int
    staleness: int
    """Rounds since it was drawn; 0 for one of the policy that was trained."""
    mean_return: float
    """Of its tokens; 0 for a sample that could not move the actor and cost no step."""


@stage(shared="updates")
def train_actor(
    work: Work,
    *,
    actor: ModelSource,
    programs: Sequence[Programs],
    verdicts: Sequence[Verdicts],
    scores: Sequence[Scores] = (),
    problems: Labelled,
    policies: Sequence[ModelSource] = (),
    reference: ModelSource | None = None,
    config: ActorTrainingConfig = ActorTrainingConfig(),
    returns: ReturnsConfig = ReturnsConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> Facts:
    r"""Train the actor on its own programs, weighted by what the unit tests and the critic say of them.

        coderl train-actor --actor runs/mbpp/warm-start/model --programs runs/mbpp/sample \
            --verdicts runs/mbpp/execute --scores runs/mbpp/score --problems data/mbpp/mbpp.jsonl --split train \
            --out runs/mbpp/actor --optim.learning-rate 1e-5

    The model goes to OUT/model, what it was trained on to OUT/samples. The facts hold the canaries of a collapse.

    Source: CodeRL Eq. 14.

    Args:
        programs: Folders of `sample` stages, oldest first.
        verdicts: Folders of their `execute` stages, in the same order.
        scores: Folders of their `score` stages, in the same order; not needed with `--returns.spread uniform`.
        problems: The programs' problems; those with solutions also give the cross-entropy term.
        policies: The model that drew each folder's programs, for `--clip-range`; the actor by default.
        reference: The model that `--kl-weight` and the canary refer to; the actor by default.

    Raises:
        InputError: the folders do not belong together, or the critic's spread is asked for without scores.
    """
    loaded = Actor(networks.own_language_model(actor), prompt)
    encoded = {p.problem.problem_id: tuple(loaded.encode_prompt(p.problem)) for p in problems}
    pools = [rollouts_of(*folders) for folders in _pools(programs, verdicts, scores, returns)]
    drawn_by = list(policies) or [actor] * len(pools)
    samples: list[ActorExample] = []
    for age, (pool, policy) in enumerate(zip(reversed(pools), reversed(drawn_by), strict=True)):
        found = _samples_of(pool, age, loaded.model, encoded, returns)
        if config.clip_range is not None:
            found = staged.with_log_probs(networks.language_model(policy), found)
        samples = found + samples
    work.group.on_main(lambda: _write_samples(work.folder, samples))
    solutions = solution_examples(loaded, problems)
    anchor = networks.language_model(actor if reference is None else reference)
    facts: Facts = sample_canaries(pools[-1])
    facts |= gradient_norms(loaded.model.adapt(config.lora), samples)
    given = {"reference": anchor, "checkpoint_dir": work.checkpoints}
    steps = staged.train_actor(loaded.model, samples, solutions, config, **given)
    facts |= work.log_steps(steps, f"actor on {len(samples)} samples", total=config.optim.num_steps)
    facts["kl_to_reference"] = kl_to_reference(loaded.model, anchor, samples)
    work.save(loaded.model)
    num_idle = sum(not any(s.token_returns) for s in samples)
    facts |= {"num_samples": len(samples), "zero_return_share": num_idle / max(len(samples), 1)}
    for line in canary_lines(facts):
        work.reporter.say("  " + line)
    return facts


def _pools(
    programs: Sequence[Path], verdicts: Sequence[Path], scores: Sequence[Path], returns: ReturnsConfig
) -> list[tuple[Path, Path, Path | None]]:
    """Return the folders of each pool."""
    if returns.spread == "critic" and not scores:
        raise InputError("the critic spread needs scores: run `coderl score`, or choose spread = 'uniform'")
    if not (len(programs) == len(verdicts) and len(scores) in (0, len(programs))):
        given = f"{len(programs)} --programs, {len(verdicts)} --verdicts and {len(scores)} --scores"
        raise InputError(f"{given}: give one of each for each pool")
    return list(zip(programs, verdicts, scores or [None] * len(programs), strict=True))


def _samples_of(
    pool: Sequence[Rollout], age: int, model: LanguageModel, prompts: dict[str, tuple[int, ...]], returns: ReturnsConfig
) -> list[ActorExample]:
    """Return the samples of a pool, each with what its tokens earned and the rounds since it was drawn."""
    groups = by_problem(pool).values()
    found = [example for group in groups for example in actor_examples(group, model, prompts, returns)]
    return [replace(sample, staleness=age) for sample in found]


def canary_lines(facts: Facts) -> list[str]:
    """Return what a person should see of each round: how its samples fared, and what training on them did."""
    nothing = ["none of the samples passed: there was nothing right among them to learn from"]
    return [
        *(nothing if facts["pass_rate"] == 0 else []),
        f"samples: {facts['pass_rate']:.1%} pass, {facts['compile_error_rate']:.1%} do not compile, "
        f"{facts['unique_share']:.0%} unique, {facts['mean_tokens']:.0f} tokens",
        f"training: {facts['zero_return_share']:.0%} earn nothing; gradient of gains "
        f"{facts['grad_norm_positive']:.2g}, of losses {facts['grad_norm_negative']:.2g}; "
        f"KL {facts['kl_to_reference']:.3f} a token",
    ]


def _write_samples(folder: Path, samples: Sequence[ActorExample]) -> None:
    rows = (TrainedSample(s.problem_id, len(s.program), s.staleness, fmean(s.token_returns or (0.0,))) for s in samples)
    tables.PartedTable(folder / "samples", TrainedSample).write(0, rows)
