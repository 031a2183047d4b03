"""CodeXGLUE as two stages: a model fine-tuned on the pairs of a task, and what it writes for those of a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from coderl import records, tables
from coderl.codexglue.pairs import Language, Pair, Split, read_pairs
from coderl.codexglue.settings import CodexglueConfig, CodexglueTask
from coderl.engines.beam import beam_search
from coderl.engines.settings import SamplingConfig
from coderl.engines.transformers import greedy
from coderl.models.lm import LanguageModel
from coderl.settings import Count
from coderl.stages import networks
from coderl.stages.stage import Facts, Input, ModelSource, Work, chunks, stage
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


TaskFiles = Annotated[Path, Input("The folder of the task's files, as published: of one language, or of one size.")]


@stage(shared="updates")
def finetune_codexglue(
    work: Work,
    *,
    actor: ModelSource,
    data: TaskFiles,
    language: Language = "java",
    limit: Count | None = None,
    config: CodexglueConfig,
) -> Facts:
    r"""Fine-tune a model on a task of CodeXGLUE, until its validation loss no longer falls.

    Settings that are not given are those of CodeT5-base for the task.

        coderl finetune-codexglue --task refinement --actor Salesforce/codet5-base --data data/refine/small \
            --out runs/refine
        coderl finetune-codexglue --task code-to-code --language c_sharp --actor models/tiny --data data/translate \
            --out runs/java-cs --optim.num-epochs 10 --optim.patience 2 --optim.checkpoint-every-steps 200

    The model goes to OUT/model, as of its lowest validation loss. A killed command continues.

    Args:
        actor: A model folder or hub name, encoder-decoder or decoder-only.
        language: What code-to-code writes: `c_sharp` or `java`.
        limit: Only the first so many pairs of each split.

    Raises:
        InputError: see `read_pairs`.
    """
    task = config.task
    parts = [read_pairs(task, data, split, language=language)[:limit] for split in ("train", "valid")]
    model = networks.own_language_model(actor).adapt(config.lora)
    examples, validation = (_examples(model, pairs, config) for pairs in parts)
    validate = partial(validation_loss, model, validation, batch_size=config.optim.batch_size)
    steps = warm_start_steps(model, examples, config, checkpoint_dir=work.checkpoints, validate=validate)
    facts = work.log_steps(steps, f"{task} on {len(examples)} pairs", total=config.optim.num_steps)
    work.save(model)
    return {**facts, "num_pairs": len(examples), "validation_loss": round(validate()["loss"], 4)}


@stage(shared="parts")
def predict_codexglue(
    work: Work,
    *,
    model: ModelSource,
    data: TaskFiles,
    split: Split = "test",
    language: Language = "java",
    num_beams: Count = 1,
    limit: Count | None = None,
    config: CodexglueTask,
) -> Facts:
    r"""Write what a model makes of each pair of a split of a CodeXGLUE task, a line each.

        coderl predict-codexglue --task refinement --model runs/refine/model --data data/refine/small --out runs/refined

    OUT/predictions.txt is a file of predictions as CodeXGLUE's evaluators read it. A killed command continues.

    Args:
        model: A fine-tuned model.
        split: Which pairs.
        language: What code-to-code writes: `c_sharp` or `java`.
        num_beams: 1 takes the likeliest token each time; the published figures are of 10 beams.
        limit: Only the first so many pairs.

    Raises:
        InputError: see `read_pairs`.
    """
    task = config.task
    pairs = read_pairs(task, data, split, language=language)[:limit]
    table = tables.PartedTable(work.folder / "predictions", Prediction)
    for index, chunk in work.parts(table, chunks(pairs, CHUNK_SIZE), f"writing {len(pairs)} lines of {task}"):
        table.write(index, _predictions(networks.language_model(model), chunk, config, num_beams))
    is_numbered = task == "code-to-text"
    lines = [f"{row.name}\t{row.text}\n" if is_numbered else f"{row.text}\n" for row in table.rows()]
    work.group.on_main(lambda: records.write_text(work.folder / PREDICTIONS_FILE, "".join(lines)))
    return {"num_predictions": len(lines)}


def predictions_of(folder: Path) -> list[str]:
    """Return the lines that `predict_codexglue` wrote."""
    return [row.text for row in tables.PartedTable(folder / "predictions", Prediction).rows()]


def encode_source(model: LanguageModel, text: str, max_tokens: int) -> tuple[int, ...]:
    """Return what a model reads of a pair: the line, and for a decoder-only model its end, where the answer begins."""
    return tuple(model.encode_prompt(text if model.is_encoder_decoder else f"{text}\n", max_tokens))


def _examples(model: LanguageModel, pairs: Sequence[Pair], config: CodexglueTask) -> list[CrossEntropyExample]:
    return [
        CrossEntropyExample(
            encode_source(model, pair.source, config.max_source_tokens),
            tuple(model.encode_program(pair.target, config.max_target_tokens)),
        )
        for pair in pairs
    ]


def _predictions(
    model: LanguageModel, pairs: Sequence[Pair], config: CodexglueTask, num_beams: int
) -> list[Prediction]:
    prompts = [encode_source(model, pair.source, config.max_source_tokens) for pair in pairs]
    limit = config.max_target_tokens
    if num_beams == 1:
        drawn = greedy(model, prompts, config=SamplingConfig(max_new_tokens=limit, batch_rows=CHUNK_SIZE))
    else:
        drawn = beam_search(model, prompts, num_beams=num_beams, max_new_tokens=limit)
    texts = [re.sub(r"[\r\n]+", " ", model.decode(tokens)).strip() for tokens in drawn]
    return [Prediction(pair.name, text) for pair, text in zip(pairs, texts, strict=True)]
