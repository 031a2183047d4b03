"""CodeXGLUE as two stages: a model fine-tuned on the pairs of a task, and what it writes for those of a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from coderl import records
from coderl.codexglue.pairs import (
    Language,
    Pair,
    Split,
    Task,
    files_of,
    read_pairs,
)
from coderl.codexglue.settings import CodexglueConfig
from coderl.engines.beam import beam_search
from coderl.engines.settings import SamplingConfig
from coderl.engines.transformers import greedy
from coderl.models.lm import LanguageModel
from coderl.stages.console import Reporter
from coderl.stages.learning import log_steps
from coderl.stages.stages import chunks, hash_model, run_stage
from coderl.training.losses import CrossEntropyExample, validation_loss
from coderl.training.warm_start import warm_start as warm_start_steps

PREDICTIONS_FILE = "predictions.txt"
CHUNK_SIZE = 64
"""Predictions that a killed run may have to write again."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model wrote for a pair."""

    name: str
    text: str
    """One line."""


def finetune(
    out: Path, *, actor: Path | str, task: Task, data: Path, language: Language, config: CodexglueConfig,
    reporter: Reporter, limit: int | None = None,
) -> None:  # fmt: skip
    """Write the model after cross-entropy on a task's training pairs, as of its lowest validation loss.

    Args:
        out: the stage's folder.
        actor: the model to begin from, of either family.
        task: what is learned.
        data: the folder of its files.
        language: what code-to-code writes.
        config: see `config.codexglue_config`.
        reporter: progress.
        limit: only the first so many pairs of each split.

    Raises:
        InputError: see `read_pairs`.
    """

    def work(folder: Path) -> dict[str, Any]:
        parts = [read_pairs(task, data, split, language=language)[:limit] for split in ("train", "valid")]
        model = LanguageModel.load(actor).adapt(config.lora)
        examples, validation = (_examples(model, pairs, config) for pairs in parts)
        validate = partial(validation_loss, model, validation, batch_size=config.optim.batch_size)
        steps = warm_start_steps(model, examples, config, checkpoint_dir=folder / ".checkpoints", validate=validate)
        facts = log_steps(steps, folder, reporter, f"{task} on {len(examples)} pairs")
        model.save(folder / "model")
        return {**facts, "num_pairs": len(examples), "validation_loss": round(validate()["loss"], 4)}

    settings = {"codexglue": config.model_dump(mode="json"), "task": task, "language": language, "limit": limit}
    inputs = {"actor": hash_model(actor), **_hash_files(task, data, ("train", "valid"), language)}
    run_stage(out, reporter, config=settings, inputs=inputs, work=work)


def predict(
    out: Path, *, model: Path | str, task: Task, data: Path, split: Split, language: Language,
    config: CodexglueConfig, num_beams: int, reporter: Reporter, limit: int | None = None,
) -> tuple[list[str], list[str]]:  # fmt: skip
    """Write what a model makes of each pair of a split, a line each, and return that and what was wanted.

    OUT/predictions.txt is a file of predictions as CodeXGLUE's evaluators read it. With one beam the tokens are the
    likeliest one by one.

    Args:
        out: the stage's folder.
        model: a fine-tuned model.
        task: what it does.
        data: the folder of the task's files.
        split: which pairs.
        language: what code-to-code writes.
        config: of it only the lengths are used.
        num_beams: 1 for the sampler's greedy programs.
        reporter: progress.
        limit: only the first so many pairs.

    Raises:
        InputError: see `read_pairs`.
    """
    pairs = read_pairs(task, data, split, language=language)[:limit]
    table = records.PartedTable(out / "predictions", Prediction)
    is_numbered = task == "code-to-text"

    def work(folder: Path) -> dict[str, Any]:
        parts = list(enumerate(chunks(pairs, CHUNK_SIZE)))
        todo = [(index, chunk) for index, chunk in parts if not table.has(index)]
        loaded = LanguageModel.load(model) if todo else None
        title, num_done = f"writing {len(pairs)} lines of {task}", len(parts) - len(todo)
        for index, chunk in reporter.track(todo, title, total=len(parts), unit="chunks", done=num_done):
            assert loaded is not None
            table.write(index, _predictions(loaded, chunk, config, num_beams))
        lines = [f"{row.name}\t{row.text}\n" if is_numbered else f"{row.text}\n" for row in table.rows()]
        records.write_text(folder / PREDICTIONS_FILE, "".join(lines))
        return {"num_predictions": len(lines)}

    lengths = {"max_source_tokens": config.max_source_tokens, "max_target_tokens": config.max_target_tokens}
    settings = {**lengths, "task": task, "split": split, "language": language, "num_beams": num_beams, "limit": limit}
    inputs = {"model": hash_model(model), **_hash_files(task, data, (split,), language)}
    run_stage(out, reporter, config=settings, inputs=inputs, work=work)
    return [row.text for row in table.rows()], [pair.target for pair in pairs]


def encode_source(model: LanguageModel, text: str, max_tokens: int) -> tuple[int, ...]:
    """Return what a model reads of a pair: the line, and for a decoder-only model its end, where the answer begins."""
    return tuple(model.encode_prompt(text if model.is_encoder_decoder else f"{text}\n", max_tokens))


def _examples(model: LanguageModel, pairs: Sequence[Pair], config: CodexglueConfig) -> list[CrossEntropyExample]:
    return [
        CrossEntropyExample(
            encode_source(model, pair.source, config.max_source_tokens),
            tuple(model.encode_program(pair.target, config.max_target_tokens)),
        )
        for pair in pairs
    ]


def _predictions(
    model: LanguageModel, pairs: Sequence[Pair], config: CodexglueConfig, num_beams: int
) -> list[Prediction]:
    prompts = [encode_source(model, pair.source, config.max_source_tokens) for pair in pairs]
    limit = config.max_target_tokens
    if num_beams == 1:
        drawn = greedy(model, prompts, config=SamplingConfig(max_new_tokens=limit, batch_rows=CHUNK_SIZE))
    else:
        drawn = beam_search(model, prompts, num_beams=num_beams, max_new_tokens=limit)
    texts = [re.sub(r"[\r\n]+", " ", model.decode(tokens)).strip() for tokens in drawn]
    return [Prediction(pair.name, text) for pair, text in zip(pairs, texts, strict=True)]


def _hash_files(task: Task, data: Path, splits: Sequence[Split], language: Language) -> dict[str, str]:
    files = [file for split in splits for file in files_of(task, data, split, language=language)]
    return {file.name: records.hash_path(file) for file in files}
