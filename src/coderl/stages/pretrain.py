"""The stages before finetuning: a model with random weights and its tokenizer, then masked spans, then next tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from coderl import records
from coderl.corpus import CorpusFile
from coderl.models.lm import LanguageModel
from coderl.models.settings import TinyConfig
from coderl.prompts import PromptConfig
from coderl.stages.console import Reporter
from coderl.stages.learning import log_steps
from coderl.stages.stages import (
    hash_model,
    hash_problems,
    run_stage,
    write_untrained,
)
from coderl.training.losses import validation_loss
from coderl.training.packed import Window, Windows, pack
from coderl.training.pretrain import Objective, WindowExamples, pretrain_on_windows
from coderl.training.pretrain import pretrain as pretrain_on_files
from coderl.training.settings import OptimConfig, PretrainConfig
from coderl.types import InputError, LabelledProblem

EVERY_STEPS = 200
"""Updates between two validations, and two checkpoints, of a corpus, where the settings do not say."""
TOKENIZER_BYTES = 20_000_000
"""Of text that a tokenizer is learned from: more changes few merges."""
PACKED = ".packed"


def initialise(out: Path, *, corpus: Path, config: TinyConfig, seed: int, reporter: Reporter) -> None:
    """Write a model with random weights and the byte-level BPE tokenizer learned from a corpus.

    Raises:
        InputError: `corpus` is not a finished corpus.
    """
    settings = {"tiny": config.model_dump(mode="json"), "seed": seed}

    def work(folder: Path) -> dict[str, Any]:
        return write_untrained(folder / "model", _some_texts(corpus), config, seed)

    run_stage(out, reporter, config=settings, inputs={"corpus": _corpus_hash(corpus)}, work=work)


def pretrain(
    out: Path, *, actor: Path | str, problems: Sequence[LabelledProblem], config: PretrainConfig, prompt: PromptConfig,
    reporter: Reporter,
) -> None:  # fmt: skip
    """Write the model after masked spans and then next tokens (section 3.2), on a corpus or on problems' solutions.

    A corpus is tokenised and packed first, shard by shard, and then stays on disk; its validation split's loss is
    reported during training. After masked spans that next tokens follow, the model so far is in `masked_span/model`.

    Raises:
        InputError: neither objective is asked for, there is nothing to learn from, or `config.corpus` is no corpus.
    """
    objectives: list[tuple[Objective, OptimConfig]] = []
    if config.masked_span:
        objectives.append(("masked_span", config.masked_span))
    if config.next_token:
        objectives.append(("next_token", config.next_token))
    if not objectives:
        raise InputError("nothing to do: give settings of masked_span or next_token, such as --next-token.num-epochs 1")
    settings: dict[str, Any] = {"pretrain": config.model_dump(mode="json", exclude={"corpus"})}
    inputs = {"actor": hash_model(actor)}
    if config.corpus:
        inputs["corpus"] = _corpus_hash(config.corpus)
    else:
        settings["prompt"] = prompt.model_dump(mode="json")
        inputs["problems"] = hash_problems(problems)

    def work(folder: Path) -> dict[str, Any]:
        model = LanguageModel.load(actor)
        facts: dict[str, Any] = {}
        if config.corpus:
            facts["packed"] = pack_corpus(folder / PACKED, model, config, reporter)
            train = partial(_train_on_corpus, model, folder / PACKED, config)
        else:
            texts = [solution for p in problems for solution in p.solutions]
            files = [model.encode_program(text, prompt.max_program_tokens) for text in texts]
            train = partial(pretrain_on_files, model, files)
        for objective, optim in objectives:
            steps = train(objective, optim, checkpoint_dir=folder / f".{objective}")
            facts[objective] = log_steps(steps, folder / objective, reporter, objective.replace("_", " "))
            if config.corpus:
                facts[objective] |= _validation_facts(folder / objective)
                if objective != objectives[-1][0]:
                    model.save(folder / objective / "model")
        model.save(folder / "model")
        return facts

    run_stage(out, reporter, config=settings, inputs=inputs, work=work)


def pack_corpus(folder: Path, model: LanguageModel, config: PretrainConfig, reporter: Reporter) -> dict[str, int]:
    """Write a shard of token windows for each shard of text that has none yet; return how many windows there are."""
    assert config.corpus is not None
    shards = {"train": _shards(config.corpus, "train")[: config.num_shards]}
    shards["validation"] = _shards(config.corpus, "validation")
    jobs = [(split, i, part) for split, parts in shards.items() for i, part in enumerate(parts)]
    tables = {split: records.PartedTable(folder / split, Window) for split in shards}
    todo = [(split, i, part) for split, i, part in jobs if not tables[split].has(i)]
    for split, i, part in reporter.track(todo, "packing", total=len(jobs), unit="shards", done=len(jobs) - len(todo)):
        files = (model.encode_program(file.text) for file in records.read_table(part, CorpusFile, batch_size=64))
        tables[split].write(i, pack(files, config.window_tokens))
    return {f"num_{split}_windows": len(Windows(folder / split)) for split, parts in shards.items() if parts}


def _train_on_corpus(
    model: LanguageModel, packed: Path, config: PretrainConfig, objective: Objective, optim: OptimConfig, *,
    checkpoint_dir: Path,
) -> Iterator[Any]:  # fmt: skip
    defaults = {"checkpoint_every_steps": EVERY_STEPS, "validate_every_steps": EVERY_STEPS}
    optim = optim.model_copy(update={name: n for name, n in defaults.items() if getattr(optim, name) is None})
    validate = None
    if (packed / "validation").exists():
        held_out = Windows(packed / "validation")
        drawn = WindowExamples(model, held_out, objective, seed=optim.seed, epoch=-1)
        chosen = np.unique(np.linspace(0, len(drawn) - 1, config.num_validation).astype(int))
        validate = partial(validation_loss, model, [drawn[int(i)] for i in chosen], batch_size=optim.batch_size)
    windows = Windows(packed / "train")
    return pretrain_on_windows(model, windows, objective, optim, checkpoint_dir=checkpoint_dir, validate=validate)


def _validation_facts(folder: Path) -> dict[str, float]:
    """Return the validation loss before the first and after the last update."""
    rows = records.read_jsonl(folder / "metrics.jsonl")
    starts = [row["validation_start_loss"] for row in rows if "validation_start_loss" in row]
    losses = [row["validation_loss"] for row in rows if "validation_loss" in row]
    if not starts or not losses:
        return {}
    return {"validation_loss_before": round(starts[0], 4), "validation_loss": round(losses[-1], 4)}


# ------------------------------------------------------------------------------------------------------------ corpora


def _corpus_hash(corpus: Path) -> str:
    """Return the content hash of a corpus.

    Raises:
        InputError: it is not there, or not finished.
    """
    if not (corpus / records.MANIFEST).exists() or not _shards(corpus, "train"):
        raise InputError(f"{corpus}: not a finished corpus (coderl build-corpus FOLDER... --out {corpus} makes one)")
    outputs = records.read_json(corpus / records.MANIFEST)["outputs"]
    missing = [name for name in outputs if not (corpus / name).exists()]
    if missing:
        raise InputError(f"{corpus}: {missing[0]} is missing")
    return records.hash_value(outputs)


def _shards(corpus: Path, split: str) -> list[Path]:
    folder = corpus / split
    return records.parts_of(folder) if folder.is_dir() else []


def _some_texts(corpus: Path) -> Iterator[str]:
    """Yield texts of the first shards, each of which is a sample of all projects."""
    num_bytes = 0
    for file in records.read_table(corpus / "train", CorpusFile, batch_size=64):
        yield file.text
        num_bytes += len(file.text)
        if num_bytes >= TOKENIZER_BYTES:
            return
