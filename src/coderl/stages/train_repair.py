"""The stage that trains the repair model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress

from coderl.engines.actor import Actor
from coderl.prompts import PromptConfig
from coderl.stages.networks import own_language_model
from coderl.stages.stage import Facts, Labelled, ModelSource, Programs, Verdicts, Work, stage
from coderl.stages.train_critic import pooled
from coderl.training.losses import CrossEntropyExample
from coderl.training.repair import repair_pairs
from coderl.training.settings import RepairConfig
from coderl.training.warm_start import warm_start
from coderl.types import InputError, LabelledProblem, Outcome, Problem, Rollout


@stage(shared="updates")
def train_repair(
    work: Work,
    *,
    actor: ModelSource,
    programs: Sequence[Programs],
    verdicts: Sequence[Verdicts],
    problems: Labelled,
    config: RepairConfig = RepairConfig(),
    prompt: PromptConfig = PromptConfig(),
    seed: int = 0,
) -> Facts:
    r"""Train the repair model on failed programs and the nearest program that is right.

        coderl train-repair --actor runs/mbpp/warm-start/model --programs runs/mbpp/sample \
            --verdicts runs/mbpp/execute --problems data/mbpp/mbpp.jsonl --out runs/mbpp/repair

    The model goes to OUT/model. Where no failed sample has such a program it is the actor, unchanged, and the facts
    say so.

    Source: CodeRL Eq. 13.

    Args:
        actor: The model folder or hub name to begin from.
        programs: Folders of `sample` stages.
        verdicts: Folders of their `execute` stages, in the same order.
        seed: Decides which pairs are used where there are too many.
    """
    loaded = Actor(own_language_model(actor), prompt)
    pairs = failed_pairs(pooled(programs, verdicts), problems, use_samples=config.use_samples)
    random.Random(seed).shuffle(pairs)
    examples = []
    for problem, failed, solution in pairs[: config.max_pairs]:
        with suppress(InputError):  # a program that no prompt holds
            source = loaded.encode_repair_prompt(problem, failed.program, failed.verdict)
            examples.append(CrossEntropyExample(tuple(source), loaded.encode_solution(problem, solution)))
    facts: Facts = {"num_pairs": len(examples), "num_steps": 0}
    if examples:
        steps = warm_start(loaded.model, examples, config.training, checkpoint_dir=work.checkpoints)
        title = f"repairing {len(examples)} failed programs"
        facts |= work.log_steps(steps, title, total=config.training.optim.num_steps)
    work.save(loaded.model)
    return facts


def failed_pairs(
    rollouts: Sequence[Rollout], problems: Sequence[LabelledProblem], *, use_samples: bool
) -> list[tuple[Problem, Rollout, str]]:
    """Return each distinct failed program with its problem and what it should have been.

    That is the nearest of the problem's reference solutions and, with `use_samples`, of the programs that passed its
    hidden tests; a failed program without any is left out.
    """
    drawn: dict[str, dict[str, Rollout]] = {}
    for rollout in rollouts:
        drawn.setdefault(rollout.program.problem_id, {}).setdefault(rollout.program.code, rollout)
    found: list[tuple[Problem, Rollout, str]] = []
    for labelled in problems:
        group = list(drawn.get(labelled.problem.problem_id, {}).values())
        right = [r.program.code for r in group if r.outcome is Outcome.PASSED_TEST] if use_samples else []
        failed = [r for r in group if r.outcome is not Outcome.PASSED_TEST]
        for pair in repair_pairs([r.program.code for r in failed], [*labelled.solutions, *right]):
            found.append((labelled.problem, failed[pair.failed_index], pair.solution))
    return found
