"""Everything that wants a GPU, in one run without a network: tests, throughput, and a real model that learns.

    python benchmarks/gpu.py --json FILE [--only tests throughput updates learning] [--model FOLDER --mbpp FOLDER]
        [--minutes 4] [--tiny]

`--mbpp` is a folder with MBPP's `mbpp.jsonl` and `sanitized-mbpp.json`, `--model` SmolLM2-135M-Instruct as
`make smollm2` writes it. `--tiny` runs throughput and updates on a processor with models of no use, to see that they
work. Each part's figures are written as soon as they are there.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from coderl import records
from coderl.engines.engine import Request, open_engine
from coderl.engines.settings import SampleConfig, SamplingConfig
from coderl.evaluation.pass_at_k import estimate, percent
from coderl.models.lm import LanguageModel, best_device
from coderl.models.tiny import train_tokenizer
from coderl.recipe import RunConfig, load_recipe
from coderl.stages.console import Reporter
from coderl.stages.execute import execute
from coderl.stages.learn_online import learn_online
from coderl.stages.rollouts import pass_rates, rollouts_of
from coderl.stages.sample import sample
from coderl.stages.split_problems import kept_splits, split_problems
from coderl.stages.warm_start import warm_start
from coderl.training.loop import train
from coderl.training.losses import CrossEntropyExample, cross_entropy_of, num_tokens
from coderl.training.settings import OptimConfig
from coderl.types import LabelledProblem, ProgramKind

ROOT = Path(__file__).resolve().parents[1]
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "RTX 4090": 165e12}
"""Dense bfloat16, as the maker states them."""
SHAPES: dict[str, dict[str, Any]] = {
    "llama-135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
                   "num_key_value_heads": 3, "vocab_size": 49152},
    "t5-770m": {"d_model": 1024, "d_ff": 4096, "num_heads": 16, "num_layers": 24, "num_decoder_layers": 24, "d_kv": 64,
                "vocab_size": 32100},
}  # fmt: skip


def random_model(name: str, *, is_tiny: bool) -> LanguageModel:
    """Return a model of a shape with random weights, in bfloat16 where there is a GPU."""
    torch.manual_seed(0)
    tokenizer: Any = train_tokenizer(["for i in range(10):\n    print(i)\n"], 400)
    shape = dict(SHAPES[name])
    if is_tiny:
        small = {"hidden_size": 36, "num_hidden_layers": 2, "intermediate_size": 64, "d_model": 64, "num_layers": 2}
        shape |= {k: v for k, v in (small | {"num_decoder_layers": 2, "vocab_size": 512}).items() if k in shape}
    if name.startswith("t5"):
        ids = {"pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": tokenizer.eos_token_id}
        backbone: Any = T5ForConditionalGeneration(T5Config(**shape, **ids))
    else:
        backbone = LlamaForCausalLM(LlamaConfig(**shape, eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=True))
    device = best_device()
    return LanguageModel(backbone, tokenizer).to(device, torch.bfloat16 if device != "cpu" else torch.float32).eval()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the wall seconds of some work, the GPU's included, and what came of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    found = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, found


def tests(options: argparse.Namespace) -> dict[str, Any]:
    """Run the tests marked `gpu`."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout[-3000:], done.stderr[-1000:], flush=True)
    return {"status": done.returncode, "summary": done.stdout.strip().splitlines()[-1:]}


def throughput(options: argparse.Namespace) -> dict[str, Any]:
    """Measure drawn tokens a second of each shape: prompts of 200 tokens, 16 programs each, ours and `generate`."""
    found: dict[str, Any] = {}
    num_prompts, length, drawn = (4, 20, 12) if options.tiny else (64, 200, 96)
    for name in SHAPES:
        model = random_model(name, is_tiny=options.tiny)
        prompts = [tuple(5 + (i * 7 + k) % 300 for k in range(length)) for i in range(num_prompts)]
        requests = [Request(prompt, (), 16) for prompt in prompts]
        config = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=drawn, stop=())
        engine = open_engine(model, config)
        draw = partial(engine.draw, requests, config)
        first_s, _ = timed(partial(draw, seed=0))
        again_s, programs = timed(partial(draw, seed=1))
        count = sum(len(d.drawn_tokens) for group in programs for d in group)
        rates = {"tokens_per_s": count / again_s, "first_call_s": first_s, "num_programs": 16 * num_prompts}
        rates["hf_generate_tokens_per_s"] = hf_rate(model, prompts, drawn)
        rates["over_hf_generate"] = rates["tokens_per_s"] / rates["hf_generate_tokens_per_s"]
        if torch.cuda.is_available():
            rates["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
            torch.cuda.reset_peak_memory_stats()
        found[f"{name} ({engine.name})"] = rates
        print(name, rates, flush=True)
        del model, engine, draw
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return found


def hf_rate(model: LanguageModel, prompts: list[tuple[int, ...]], drawn: int) -> float:
    """Return the tokens a second of `generate` on the same prompts and number of programs."""
    ids = torch.tensor(prompts, device=model.device)
    how: dict[str, Any] = {"do_sample": True, "top_k": 0, "top_p": 1.0, "num_return_sequences": 16}
    how |= {"max_new_tokens": drawn, "min_new_tokens": drawn, "pad_token_id": model.pad_id}
    backbone: Any = model.backbone
    with torch.inference_mode():
        seconds, _ = timed(lambda: backbone.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **how))
    return 16 * len(prompts) * drawn / seconds


def updates(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the tokens a second of training, and the share of the hardware's arithmetic that is used."""
    found: dict[str, Any] = {}
    peak = next((f for n, f in PEAK_FLOPS.items() if torch.cuda.is_available() and n in device_name()), None)
    for name in SHAPES:
        model = random_model(name, is_tiny=options.tiny).float()
        rows = 8 if options.tiny else 64
        given = [CrossEntropyExample(tuple(range(5, 205)), (*range(5, 305), 2)) for _ in range(rows)]
        optim = OptimConfig(batch_size=rows, num_steps=8, learning_rate=1e-5, gradient_accumulation_steps=2,
                            mixed_precision="bf16" if torch.cuda.is_available() else "no")  # fmt: skip
        clocks: list[float] = []
        started = time.perf_counter()
        for step in train(model, given, cross_entropy_of, optim, length_of=num_tokens):
            clocks.append(time.perf_counter() - started)
            assert step.step
        seconds = (clocks[-1] - clocks[2]) / (len(clocks) - 3)
        tokens = sum(map(num_tokens, given))
        weights = sum(p.numel() for p in model.parameters())
        rates = {"tokens_per_s": tokens / seconds, "update_s": seconds, "weights": weights}
        if peak is not None:
            rates["model_flop_utilisation"] = 6 * weights * tokens / seconds / peak
        found[name] = rates
        print(name, rates, flush=True)
        del model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return found


def device_name() -> str:
    """Return the GPU's name, or the processor's."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else platform.processor() or platform.machine()


def learning(options: argparse.Namespace) -> dict[str, Any]:
    """Run the online recipe's learning on MBPP, and judge each of its models on the test tasks.

    The stages are those of `coderl run`, without what needs no GPU. The control is the warm start after more epochs.
    """
    sources = {"source": options.mbpp / "mbpp.jsonl", "test-source": options.mbpp / "sanitized-mbpp.json"}
    flags = [f"--problems.{name}={path}" for name, path in sources.items()]
    config = load_recipe(ROOT / "recipes" / "mbpp_smollm2_online.toml", [*flags, *options.flags])
    assert config.warm_start is not None
    assert config.online is not None
    out, reporter = options.out, Reporter()
    split_problems(out / "problems", config=config.problems, reporter=reporter)
    splits = kept_splits(out / "problems")
    given: dict[str, Any] = {"prompt": config.prompt, "reporter": reporter}
    warm_start(out / "warm", actor=options.model, problems=splits.solved, config=config.warm_start, **given)
    learnt = {"problems": splits.tested, "config": config.online, "execution": config.execution}
    learn_online(out / "online", actor=out / "warm/model", **learnt, **given)
    more = {"num_epochs": None, "num_steps": config.evaluation.ce_control_steps}
    control = config.warm_start.model_copy(update={"optim": config.warm_start.optim.model_copy(update=more)})
    warm_start(out / "control", actor=out / "warm/model", problems=splits.solved, config=control, **given)
    models = {**{name: out / name / "model" for name in ("warm", "online", "control")}, "before": options.model}
    figures: dict[str, Any] = {
        name: judged(name, model, splits.test, config, options) for name, model in models.items()
    }
    left_out = ("critic_", "learning_rate", "epoch", "cpu_s", "loss")
    steps = records.read_jsonl(out / "online" / "metrics.jsonl")
    figures["steps"] = [{n: round(v, 4) for n, v in m.items() if not n.startswith(left_out)} for m in steps]
    return figures


def judged(
    name: str, model: Path, problems: list[LabelledProblem], config: RunConfig, options: argparse.Namespace
) -> dict[str, Any]:
    """Return pass@1 of a model's samples and of its greedy programs, each with its interval over problems."""
    out = options.out / "judged" / name
    evaluation = config.evaluation
    drawn = evaluation.sampling.model_copy(update={"temperature": evaluation.temperatures[0]})
    settings = SampleConfig(num_samples=evaluation.num_samples, sampling=drawn, chunk_size=len(problems))
    bare = [p.problem for p in problems]
    sample(out / "sample", actor=model, problems=bare, config=settings, prompt=config.prompt, greedy=True)
    execute(out / "execute", programs=out / "sample", problems=problems, config=config.execution)
    rollouts = rollouts_of(out / "sample", out / "execute")
    found: dict[str, Any] = {"num_programs": len(rollouts)}
    for kind in (ProgramKind.SAMPLE, ProgramKind.BASELINE):
        rates = pass_rates(r for r in rollouts if r.program.kind is kind)
        found[kind.value] = {"pass_at_1": percent(estimate(list(rates.values()))), "rates": rates}
    print(name, {kind: found[kind]["pass_at_1"] for kind in found if kind != "num_programs"}, flush=True)
    return found


def main() -> int:
    """Run the parts that were asked for; return 1 if a test failed."""
    torch.set_float32_matmul_precision("high")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = {"tests": tests, "throughput": throughput, "updates": updates, "learning": learning}
    parser.add_argument("--only", nargs="*", choices=list(parts), default=list(parts))
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--model", type=Path, default=Path("models/smollm2-135m-instruct"))
    parser.add_argument("--mbpp", type=Path, default=Path("data/mbpp"))
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="further flags of that recipe")
    options = parser.parse_args()
    done: dict[str, Any] = {"device": device_name(), "torch": torch.__version__}
    for name in options.only:
        started = time.monotonic()
        done[name] = parts[name](options)
        done[name]["part_wall_s"] = round(time.monotonic() - started, 1)
        options.json.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    return int(done.get("tests", {}).get("status", 0) != 0)


if __name__ == "__main__":
    sys.exit(main())
