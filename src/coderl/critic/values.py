"""Programs -> the critic's probabilities: one row a program, and one row a token for the prefix that ends there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from coderl.critic.model import Critic
from coderl.types import Score


def values(
    critic: Critic, prompts: Sequence[Sequence[int]], programs: Sequence[Sequence[int]], *, batch_size: int = 32
) -> list[Score]:
    """Return one `Score` a program, in the given order.

    Source: CodeRL Eq. 10-12, with the critic's temperature. A program drawn many times is read once.

    Args:
        critic: of 4 outcomes or binary.
        prompts: the tokens of each program's own prompt.
        programs: at least one token each; batches hold programs of like length, so that little is padding.
        batch_size: programs in a forward pass.
    """
    assert all(len(program) > 0 for program in programs), "a program without tokens has no value"
    asked = [(tuple(prompt), tuple(program)) for prompt, program in zip(prompts, programs, strict=True)]
    pairs = list(dict.fromkeys(asked))
    found = iter_values(critic, [p for p, _ in pairs], [w for _, w in pairs], batch_size=batch_size)
    scores = {pairs[index]: score for index, score in found}
    return [scores[pair] for pair in asked]


def iter_values(
    critic: Critic, prompts: Sequence[Sequence[int]], programs: Sequence[Sequence[int]], *, batch_size: int = 32
) -> Iterator[tuple[int, Score]]:
    """Yield (position, score) as batches are done, longest programs first: memory runs out at once or not at all."""
    was_training = critic.training
    critic.eval()
    order = sorted(range(len(programs)), key=lambda i: (-len(programs[i]) - len(prompts[i]), i))
    try:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            yield from zip(rows, _batch_values(critic, prompts, programs, rows), strict=True)
    finally:
        critic.train(was_training)


@torch.inference_mode()
def _batch_values(
    critic: Critic, prompts: Sequence[Sequence[int]], programs: Sequence[Sequence[int]], rows: Sequence[int]
) -> list[Score]:
    batch = critic.model.collate([prompts[i] for i in rows], [programs[i] for i in rows])
    program_logits, token_logits = critic.both_logits(batch)
    program_probs = (program_logits.float() / critic.temperature).softmax(-1).tolist()
    token_probs = (token_logits.float() / critic.temperature).softmax(-1).tolist()
    return [
        Score(tuple(whole), tuple(tuple(row) for row in per_token[: len(programs[i])]))
        for i, whole, per_token in zip(rows, program_probs, token_probs, strict=True)
    ]
