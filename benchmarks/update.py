"""What an update costs beside a raw loop: forward, backward, clipping and AdamW on the same batch, nothing else.

    python benchmarks/update.py --quick --json update.json

Both take turns in one process on one core, step by step, and their CPU-seconds are compared: what else the machine does
slows both. `ratio_to_raw_loop` is the median over rounds of ours to theirs; `actor_...` cases are reinforcement
learning's step with both terms, whose raw loop reads samples and solutions in one forward pass.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from coderl.models.lm import LanguageModel
from coderl.models.settings import LoraConfig
from coderl.models.tiny import tiny_t5, train_tokenizer
from coderl.rl import staged
from coderl.rl.settings import ActorTrainingConfig
from coderl.training import losses
from coderl.training.loop import train
from coderl.training.losses import ActorExample, CrossEntropyExample
from coderl.training.settings import OptimConfig

SMOLLM2 = Path("models/smollm2-135m-instruct")
TEXTS = ["n = int(input())\nprint(n * (n + 1) // 2)\n", "for i in range(10):\n    print(i)\n"]
LEARNING_RATE = 1e-5
Step = Callable[[], None]


def examples_of(model: LanguageModel, number: int, prompt: int, program: int) -> list[CrossEntropyExample]:
    """Return random examples of about these lengths, as a batch of like lengths has them."""
    rng = random.Random(0)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(10, model.vocab_size - 200) for _ in range(rng.randint(int(0.9 * length), length)))

    return [CrossEntropyExample(draw(prompt), (*draw(program), model.eos_id)) for _ in range(number)]


def raw_step(model: LanguageModel, examples: list[CrossEntropyExample]) -> Step:
    """Return one step of the loop that anyone would write; its batch is made beforehand."""
    batch = model.collate([e.prompt for e in examples], [e.program for e in examples])
    labels = batch.program_ids.masked_fill(~batch.program_mask, -100)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, LEARNING_RATE)
    if model.is_encoder_decoder:
        given = {"input_ids": batch.prompt_ids, "attention_mask": batch.prompt_mask.long(), "labels": labels}
    else:
        given = {
            "input_ids": torch.cat([batch.prompt_ids, batch.program_ids], 1),
            "attention_mask": torch.cat([batch.prompt_mask, batch.program_mask], 1).long(),
            "labels": torch.cat([torch.full_like(batch.prompt_ids, -100), labels], 1),
        }
    model.train()

    def step() -> None:
        model.backbone(**given, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


def our_step(model: LanguageModel, examples: list[CrossEntropyExample]) -> Step:
    """Return one step of `train` with the cross-entropy."""
    optim = OptimConfig(batch_size=len(examples), num_epochs=100_000, learning_rate=LEARNING_RATE)
    return _next_of(train(model, examples, losses.cross_entropy_of, optim, length_of=losses.num_tokens))


def our_actor_step(model: LanguageModel, examples: list[CrossEntropyExample]) -> Step:
    """Return one step of reinforcement learning: half of the examples are samples, half solutions."""
    half = len(examples) // 2
    samples = [ActorExample(e.prompt, e.program, (0.5,) * len(e.program)) for e in examples[:half]]
    optim = OptimConfig(batch_size=half, num_epochs=100_000, learning_rate=LEARNING_RATE)
    return _next_of(staged.train_actor(model, samples, examples[half:], ActorTrainingConfig(optim=optim)))


def _next_of(steps: Iterator[object]) -> Step:
    def step() -> None:
        next(steps)

    return step


def interleaved(ours: Step, theirs: Step, rounds: int, warm_up: int = 2) -> tuple[list[float], list[float]]:
    """Return the CPU-seconds of each step, taking turns; the first of both are not counted."""
    spent: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + warm_up):
        for step, seconds in zip((ours, theirs), spent, strict=True):
            start = time.process_time()
            step()
            if number >= warm_up:
                seconds.append(time.process_time() - start)
    return spent


def compared(
    model: LanguageModel, number: int, lengths: tuple[int, int], rounds: int, *, is_actor: bool = False
) -> dict:
    examples = examples_of(model, number, *lengths)
    ours = (our_actor_step if is_actor else our_step)(copy.deepcopy(model), examples)
    spent, raw = interleaved(ours, raw_step(copy.deepcopy(model), examples), rounds)
    ratios = [a / b for a, b in zip(spent, raw, strict=True)]
    return {
        "ratio_to_raw_loop": round(statistics.median(ratios), 3),
        "ratio_quartiles": [round(q, 3) for q in statistics.quantiles(ratios, n=4)],
        "cpu_ms": round(1000 * statistics.median(spent), 1),
        "raw_cpu_ms": round(1000 * statistics.median(raw), 1),
        "rounds": rounds,
    }


def cases(smollm2: Path, *, quick: bool) -> dict[str, dict[str, Any]]:
    tokenizer = train_tokenizer(TEXTS, 1000)
    tiny = tiny_t5(tokenizer, dropout=0.0)
    rounds = 30 if quick else 150
    found = {}
    for number in (4, 32):
        found[f"tiny_t5_b{number}"] = compared(tiny, number, (120, 40), rounds if number == 4 else rounds // 3)
        found[f"actor_tiny_t5_b{number}"] = compared(
            tiny, number, (120, 40), rounds if number == 4 else rounds // 3, is_actor=True
        )
    if smollm2.is_dir():
        rounds = 3 if quick else 10
        base = LanguageModel.load(smollm2)
        found["smollm2_b4"] = compared(base, 4, (150, 60), rounds)
        found["smollm2_lora_b4"] = compared(base.adapt(LoraConfig()), 4, (150, 60), rounds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--smollm2", type=Path, default=SMOLLM2, help="folder of SmolLM2-135M; left out where absent")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = cases(arguments.smollm2, quick=arguments.quick)
    report = {"ratio_to_raw_loop": {name: case["ratio_to_raw_loop"] for name, case in found.items()}, "cases": found}
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
