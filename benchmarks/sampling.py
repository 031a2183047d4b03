"""How fast programs are drawn: each engine beside `generate` of transformers, in tokens per CPU-second.

    python benchmarks/sampling.py --quick --json sampling.json

The engines take turns in one process on one core, round by round, over the same prompts, so that what else the machine
does slows all of them. `over_hf_generate` is, by model and engine, the median over rounds of the ratio of tokens a
CPU-second. Tiny T5 (the demo's shape, at several numbers of rows) and CodeT5-small have random weights and never end a
program: nothing is gained here by dropping rows that have ended, which ours and CTranslate2 do and `generate` does not.
SmolLM2 has its own weights where its folder is given; its programs end. Loading and converting weights is not counted,
but CTranslate2 opens its copy anew for each draw, and that is. vLLM and CTranslate2 take part where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import T5Config, T5ForConditionalGeneration

from coderl.engines.engine import Request, fastest_engine, open_engine
from coderl.engines.settings import SamplingConfig
from coderl.models.lm import LanguageModel, pad_rows
from coderl.models.tiny import tiny_t5, train_tokenizer

SMOLLM2 = Path("models/smollm2-135m-instruct")
TEXTS = ["n = int(input())\nprint(n * (n + 1) // 2)\n", "for i in range(10):\n    print(i)\n"]
STATEMENTS = [
    "Write a function to find the sum of the first n numbers.",
    "Write a function to reverse the words of a given string, and keep the spaces between them as they are.",
    "Write a function to check whether a number is prime.",
    "Write a python function to count the vowels of a text; letters may be large or small.",
    "Write a function to merge two sorted lists into one sorted list without sorting it again.",
    "Write a function to find the longest common prefix of a list of strings.",
    "Write a function to compute the n-th Fibonacci number.",
    "Write a function to remove all duplicates from a list; what is left keeps its order.",
]
CHAT = "<|im_start|>user\n{}\nAnswer with code only.<|im_end|>\n<|im_start|>assistant\n```python\n"
Draw = Callable[[int], int]
"""Draws with a seed; returns how many tokens were drawn."""


def codet5_small() -> LanguageModel:
    """Return CodeT5-small's shape with random weights, and a vocabulary of its size."""
    tokenizer = train_tokenizer(TEXTS, 1000)
    config = T5Config(vocab_size=32100, d_model=512, d_ff=2048, d_kv=64, num_layers=6, num_heads=8)
    config.decoder_start_token_id = 0
    torch.manual_seed(0)
    return LanguageModel(T5ForConditionalGeneration(config), tokenizer).eval()


def by_generate(model: LanguageModel, requests: list[Request], config: SamplingConfig) -> Draw:
    """Return drawing by the library's `generate`, all prompts at once."""
    side = "right" if model.is_encoder_decoder else "left"
    ids, mask = pad_rows([r.prompt for r in requests], model.pad_id, side=side)
    how = {"temperature": config.temperature, "top_p": config.top_p, "top_k": 0, "do_sample": True}
    how |= {"num_return_sequences": requests[0].num_samples, "max_new_tokens": config.max_new_tokens}
    how |= {"eos_token_id": model.eos_id, "pad_token_id": model.pad_id}
    generate: Any = model.backbone.generate

    def draw(seed: int) -> int:
        torch.manual_seed(seed)
        with torch.inference_mode():
            rows = generate(ids, attention_mask=mask.long(), **how)
        rows = rows[:, 1 if model.is_encoder_decoder else ids.shape[1] :].tolist()
        return sum(row.index(model.eos_id) + 1 if model.eos_id in row else len(row) for row in rows)

    return draw


def by_engine(model: LanguageModel, requests: list[Request], config: SamplingConfig) -> Draw:
    """Return drawing by one of our engines, its weights converted beforehand."""
    engine = open_engine(model, config)

    def draw(seed: int) -> int:
        drawn = engine.draw(requests, config, seed=seed)
        return sum(len(d.drawn_tokens) for found in drawn for d in found)

    return draw


def ways(model: LanguageModel, requests: list[Request], config: SamplingConfig) -> dict[str, Draw]:
    """Return every way to draw from the model that is installed."""
    engines = {"transformers": {}}
    if importlib.util.find_spec("ctranslate2"):
        engines |= {"ctranslate2": {}, "ctranslate2_int8": {"quantise": "int8"}}
    if importlib.util.find_spec("vllm") and not model.is_encoder_decoder:
        engines |= {"vllm": {"cache_gib": 1.0}}
    found = {"hf_generate": by_generate(model, requests, config)}
    for name, given in engines.items():
        update = {"engine": name.removesuffix("_int8"), **given}
        found[name] = by_engine(model, requests, config.model_copy(update=update))
    return found


def measured(model: LanguageModel, requests: list[Request], config: SamplingConfig, rounds: int) -> dict[str, Any]:
    """Return the tokens a CPU-second of each way, and their ratios; every way draws once before it counts."""
    drawing = ways(model, requests, config)
    rates: dict[str, list[float]] = {name: [] for name in drawing}
    for number in range(rounds + 1):
        for name, draw in drawing.items():
            start = time.process_time()
            num_tokens = draw(number)
            if number:
                rates[name].append(num_tokens / (time.process_time() - start))
    base = rates["hf_generate"]
    ratios = {name: [a / b for a, b in zip(own, base, strict=True)] for name, own in rates.items()}
    auto = fastest_engine(model)
    over = {name: round(statistics.median(own), 2) for name, own in ratios.items()}
    return {
        "over_hf_generate": {**over, "auto": over[auto]},
        "auto": auto,
        "tokens_per_cpu_s": {name: round(statistics.median(own), 1) for name, own in rates.items()},
        "range_over_hf_generate": {name: [round(min(own), 2), round(max(own), 2)] for name, own in ratios.items()},
        "num_prompts": len(requests),
        "num_samples": requests[0].num_samples,
        "max_new_tokens": config.max_new_tokens,
        "rounds": rounds,
    }


def cases(smollm2: Path, only: list[str], *, quick: bool) -> dict[str, Any]:
    """Return the figures of each model."""

    def asked(model: LanguageModel, number: int, form: str = "{}") -> list[Request]:
        return [Request(tuple(model.encode_prompt(form.format(text))), (), number) for text in STATEMENTS]

    def how(num_tokens: int) -> SamplingConfig:
        return SamplingConfig(temperature=0.6, top_p=0.95, max_new_tokens=num_tokens, stop=(), dtype="float32")

    found: dict[str, Any] = {}
    if "tiny_t5" in only:
        model = tiny_t5(train_tokenizer(TEXTS, 1000), d_model=128, num_layers=2, num_heads=4, d_ff=384)
        for rows in (8, 16, 64, 256):
            config = how(64).model_copy(update={"top_p": 1.0})  # as the demo draws
            found[f"tiny_t5_rows{rows}"] = measured(model, asked(model, rows // 8), config, 2 if quick else 8)
    if "codet5_small" in only:
        model = codet5_small()
        found["codet5_small"] = measured(model, asked(model, 4), how(24 if quick else 64), 1 if quick else 3)
    if "smollm2" in only and smollm2.is_dir():
        model = LanguageModel.load(smollm2)
        found["smollm2"] = measured(
            model, asked(model, 2 if quick else 8, CHAT), how(32 if quick else 96), 1 if quick else 3
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="shorter programs, fewer rounds")
    parser.add_argument("--smollm2", type=Path, default=SMOLLM2, help="folder of SmolLM2-135M; left out where absent")
    parser.add_argument("--only", nargs="+", default=["tiny_t5", "codet5_small", "smollm2"], metavar="MODEL")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = cases(arguments.smollm2, arguments.only, quick=arguments.quick)
    over = {name: case["over_hf_generate"] for name, case in found.items()}
    report = {"over_hf_generate": over, "torch": torch.__version__, "cases": found}
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
