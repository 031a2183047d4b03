"""The stage that fine-tunes the actor on reference solutions."""

from __future__ import annotations

from collections.abc import Sequence

from coderl.engines.actor import Actor
from coderl.prompts import PromptConfig
from coderl.stages.networks import own_language_model
from coderl.stages.stage import Facts, Labelled, ModelSource, Work, stage
from coderl.training import warm_start as training
from coderl.training.losses import CrossEntropyExample
from coderl.training.settings import WarmStartConfig
from coderl.types import InputError, LabelledProblem


@stage(shared="updates")
def warm_start(
    work: Work,
    *,
    actor: ModelSource,
    problems: Labelled,
    config: WarmStartConfig = WarmStartConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> Facts:
    r"""Fine-tune the actor on reference solutions by cross-entropy.

        coderl warm-start --actor models/smollm2-135m-instruct --problems data/mbpp/mbpp.jsonl --split train \
            --out runs/mbpp/warm-start --optim.num-epochs 2

    The model goes to OUT/model. The control with more cross-entropy is this stage too.

    Source: CodeRL Eq. 1.

    Raises:
        InputError: no problem has a solution.
    """
    loaded = Actor(own_language_model(actor), prompt)
    examples = solution_examples(loaded, problems)
    loaded.model.adapt(config.lora)
    if not examples:
        raise InputError(f"none of the {len(problems)} problems has a reference solution to start from")
    steps = training.warm_start(loaded.model, examples, config, checkpoint_dir=work.checkpoints)
    facts = work.log_steps(steps, f"cross-entropy on {len(examples)} solutions", total=config.optim.num_steps)
    work.save(loaded.model)
    return facts


def solution_examples(actor: Actor, problems: Sequence[LabelledProblem]) -> list[CrossEntropyExample]:
    """Return every reference solution of the problems as something to imitate."""
    return [
        CrossEntropyExample(tuple(prompt), actor.encode_solution(labelled.problem, solution))
        for labelled in problems
        if labelled.solutions
        for prompt in [actor.encode_prompt(labelled.problem)]
        for solution in labelled.solutions
    ]
