"""The stages that train the error predictor, and measure one on problems that it has not seen."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from coderl import records
from coderl.critic.calibration import report as critic_report
from coderl.critic.model import Critic
from coderl.critic.values import values
from coderl.engines.actor import Actor, prompt_tokens
from coderl.models.depth import keep_first_layers
from coderl.models.lm import LanguageModel
from coderl.prompts import PromptConfig
from coderl.stages import networks
from coderl.stages.rollouts import rollouts_of
from coderl.stages.stage import Facts, Labelled, ModelFolder, ModelSource, Programs, Verdicts, Work, stage
from coderl.training import critic as training
from coderl.training.losses import CriticExample, num_copies
from coderl.training.settings import CriticConfig
from coderl.types import InputError, LabelledProblem, Outcome, Rollout


@stage(shared="updates")
def train_critic(
    work: Work,
    *,
    init: ModelSource,
    programs: Sequence[Programs],
    verdicts: Sequence[Verdicts],
    problems: Labelled,
    config: CriticConfig = CriticConfig(),
    prompt: PromptConfig = PromptConfig(),
    binary: bool = False,
) -> Facts:
    r"""Train the critic to predict what becomes of programs.

        coderl train-critic --init runs/mbpp/warm-start/model --programs runs/mbpp/sample \
            --verdicts runs/mbpp/execute --problems data/mbpp/mbpp.jsonl --out runs/mbpp/critic

    The critic goes to OUT/model. It is never trained on a share `--held-out` of the problems: half of them stop it,
    choose its weights and fit its temperature; on the other half it is measured (OUT/calibration.json).

    Args:
        init: A critic to go on from, or a language model to begin one from.
        programs: Folders of `sample` stages.
        verdicts: Folders of their `execute` stages, in the same order.
        binary: Predict two outcomes (passed or not) for critic sampling, in place of four.

    Raises:
        InputError: no program has a verdict.
    """
    critic = load_critic(init, 2 if binary else len(Outcome), config)
    rollouts = pooled(programs, verdicts)
    examples, validation, held_out = critic_examples(critic.model, rollouts, problems, config, prompt)
    if not examples:
        raise InputError("no sampled program has a verdict, so there is nothing for a critic to learn from")
    steps = training.train_critic(
        critic, examples, config.training, validation=validation, checkpoint_dir=work.checkpoints
    )
    limit = config.training.optim and config.training.optim.num_steps
    facts = work.log_steps(steps, f"critic on {len(examples)} programs", total=limit)
    work.save(critic)
    facts |= {"num_programs": num_copies(examples), "num_distinct": len(examples)}
    return {**facts, "temperature": critic.temperature.item(), **_measure(critic, held_out, work)}


@stage
def measure_critic(
    work: Work,
    *,
    critic: ModelFolder,
    programs: Sequence[Programs],
    verdicts: Sequence[Verdicts],
    problems: Labelled,
    prompt: PromptConfig = PromptConfig(),
) -> Facts:
    r"""Measure a critic on programs of problems that it was not trained on.

        coderl measure-critic --critic runs/mbpp/critic/model --programs runs/mbpp/fresh \
            --verdicts runs/mbpp/fresh-execute --problems data/mbpp/mbpp.jsonl --split test --out runs/mbpp/drift

    On the current policy's fresh samples, before the critic is trained again, this is its drift.

    Args:
        programs: Folders of `sample` stages.
        verdicts: Folders of their `execute` stages, in the same order.
    """
    model = networks.critic(critic)
    everything = CriticConfig(held_out=0.0)
    examples, _, _ = critic_examples(model.model, pooled(programs, verdicts), problems, everything, prompt)
    return _measure(model, examples, work)


def pooled(programs: Sequence[Path], verdicts: Sequence[Path]) -> list[Rollout]:
    """Return the rollouts of several pairs of a `sample` and an `execute` stage, one after the other.

    Raises:
        InputError: there are not as many of the one as of the other.
    """
    if len(programs) != len(verdicts):
        raise InputError(f"{len(programs)} --programs and {len(verdicts)} --verdicts: give one of each for each pool")
    return [rollout for pair in zip(programs, verdicts, strict=True) for rollout in rollouts_of(*pair)]


def load_critic(init: Path | str, num_outcomes: int, config: CriticConfig) -> Critic:
    """Return the critic in a folder, or a new one on the language model there, to be trained.

    Raises:
        InputError: the folder holds a critic of another number of outcomes, or no model.
    """
    if not (Path(init) / "critic.json").exists():
        model = networks.own_language_model(init)
        if config.num_layers is not None:
            keep_first_layers(model, config.num_layers)
        return Critic(model, num_outcomes=num_outcomes, pooling=config.pooling, uses_likelihood=config.uses_likelihood)
    critic = networks.own_critic(init)
    if critic.num_outcomes != num_outcomes:
        raise InputError(f"{init}: a critic of {critic.num_outcomes} outcomes, expected {num_outcomes}")
    return critic


def critic_examples(
    model: LanguageModel,
    rollouts: Sequence[Rollout],
    problems: Sequence[LabelledProblem],
    config: CriticConfig,
    prompt: PromptConfig,
) -> tuple[list[CriticExample], list[CriticExample], list[CriticExample]]:
    """Return the programs to train on, to validate on and to report on, copies merged; each problem is in one part."""
    by_id = {p.problem.problem_id: p for p in problems}
    found: Counter[tuple[str, tuple[int, ...], Outcome]] = Counter()
    for program, outcome in ((r.program, r.outcome) for r in rollouts):
        if program.tokens and program.problem_id in by_id:
            found[program.problem_id, program.tokens, outcome] += 1
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


def _measure(critic: Critic, held_out: Sequence[CriticExample], work: Work) -> Facts:
    if not held_out:
        return {"num_held_out": 0}
    examples = [e for e in held_out for _ in range(e.num_copies)]
    scores = values(critic, [e.prompt for e in examples], [e.program for e in examples], batch_size=64)
    measured = critic_report(scores, [e.outcome for e in examples])
    work.group.on_main(lambda: records.write_json(work.folder / "calibration.json", records.plain(measured)))
    names = ("accuracy", "majority_accuracy", "auroc", "calibration_error", "prefix_auroc")
    return {"num_held_out": len(examples), **{name: getattr(measured, name) for name in names}}
