"""The rates that `coderl run --dry-run` reckons with: tokens a second of drawing, training and reading, by size.

    python benchmarks/rates.py [--hardware "CPU core"] >> src/coderl/stages/rates.toml

On a processor one thread is used and CPU-seconds are counted, so that other work on the machine does not show; on a GPU
wall seconds are. Models are T5s with random weights, which draw programs of full length.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from coderl.critic.model import Critic
from coderl.critic.values import values
from coderl.engines.actor import Actor
from coderl.engines.settings import SamplingConfig
from coderl.models.lm import best_device
from coderl.models.tiny import tiny_t5, train_tokenizer
from coderl.problems import load
from coderl.training.loop import train
from coderl.training.losses import CrossEntropyExample, cross_entropy_of, num_tokens
from coderl.training.settings import OptimConfig

SHAPES = ((16, 32, 1, 2), (64, 256, 2, 4), (128, 512, 4, 4), (256, 1024, 6, 8))
"""d_model, d_ff, layers, heads."""
NUM_PROBLEMS, NUM_SAMPLES, NUM_DRAWN = 32, 4, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hardware", default="CPU core")
    hardware = parser.parse_args().hardware
    torch.set_num_threads(1)
    clock = time.process_time if best_device() == "cpu" else time.monotonic
    source = f"miniapps:num_solved={NUM_PROBLEMS},num_unsolved=1,num_validation=2,num_test=2"
    problems = [p for p in load(source, split="train") if p.solutions]
    texts = [p.solutions[0] for p in problems] + [p.problem.description for p in problems]
    tokenizer = train_tokenizer(texts, 1000)
    for d_model, d_ff, num_layers, num_heads in SHAPES:
        shape = {"d_model": d_model, "d_ff": d_ff, "num_layers": num_layers, "num_heads": num_heads}
        model = tiny_t5(tokenizer, **shape, dropout=0.0, seed=0)
        size = sum(p.numel() for p in model.parameters())
        sampling = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=NUM_DRAWN)
        actor = Actor(model, sampling_config=sampling)
        bare = [p.problem for p in problems]
        drawn = [p for group in actor.sample(bare, num_samples=NUM_SAMPLES, seed=0) for p in group]
        row("draw", size, sum(len(p.tokens) for p in drawn), clock, lambda a=actor, b=bare: a.sample(
            b, num_samples=NUM_SAMPLES, seed=0), hardware)  # fmt: skip
        examples = [
            CrossEntropyExample(tuple(actor.encode_prompt(p.problem)), actor.encode_solution(p.problem, p.solutions[0]))
            for p in problems
        ]
        read = [e for e in examples for _ in range(4)]
        critic = Critic(model, num_outcomes=4)
        row("read", size, sum(map(num_tokens, read)), clock, lambda c=critic, r=read: values(
            c, [e.prompt for e in r], [e.program for e in r], batch_size=128), hardware)  # fmt: skip
        for batch_size in (4, 32):
            optim = OptimConfig(batch_size=batch_size, num_epochs=2, learning_rate=1e-4)
            row("train", size, 2 * sum(map(num_tokens, examples)), clock, lambda m=model, e=examples, o=optim: list(
                train(m, e, cross_entropy_of, o, length_of=num_tokens)), hardware, batch_size)  # fmt: skip


def row(
    work: str,
    num_weights: int,
    count: int,
    clock: Callable[[], float],
    do: Callable[[], object],
    hardware: str,
    batch_size: int = 1,
) -> None:
    """Do something once for warmth and twice for the clock, and print its rate as a table of TOML."""
    do()
    before = clock()
    do()
    do()
    rate = 2 * count / (clock() - before)
    batch = f", batch_size = {batch_size}" if work == "train" else ""
    print(f'  {{ hardware = "{hardware}", work = "{work}", num_weights = {num_weights}{batch}, '
          f"tokens_per_s = {rate:.3g} }},", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
