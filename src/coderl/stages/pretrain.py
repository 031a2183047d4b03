"""The stage before fine-tuning: masked spans, then next tokens, on a corpus or on the source text of solutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from coderl import records, tables
from coderl.models.lm import LanguageModel
from coderl.prompts import PromptConfig
from coderl.stages.networks import own_language_model
from coderl.stages.stage import Facts, Input, Labelled, ModelSource, Work, stage
from coderl.training import pretrain as training
from coderl.training.losses import validation_loss
from coderl.training.packed import CorpusFile, Window, Windows, pack
from coderl.training.pretrain import Objective, WindowExamples
from coderl.training.settings import OptimConfig, PretrainConfig
from coderl.types import InputError

EVERY_STEPS = 200
"""Updates between two validations, and two checkpoints, of a corpus, where the settings do not say."""
PACKED = ".packed"


class CorpusInput(Input):
    """A finished corpus: what its manifest names."""

    def hash_of(self, value: Any) -> str:
        """Return the hash of what the corpus holds.

        Raises:
            InputError: it is not there, or not finished.
        """
        refuse_unfinished(value)
        return records.hash_stage(value)


def refuse_unfinished(corpus: Path) -> None:
    """Refuse a folder that is no corpus, or one of which a part is missing.

    Raises:
        InputError: it is one.
    """
    if not (corpus / records.MANIFEST).exists() or not _shards(corpus, "train"):
        raise InputError(f"{corpus}: not a finished corpus (coderl build-corpus FOLDER... --out {corpus} makes one)")
    missing = [name for name in records.read_json(corpus / records.MANIFEST)["outputs"] if not (corpus / name).exists()]
    if missing:
        raise InputError(f"{corpus}: {missing[0]} is missing")


@stage(shared="updates")
def pretrain(
    work: Work,
    *,
    actor: ModelSource,
    problems: Labelled | None = None,
    config: PretrainConfig = PretrainConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> Facts:
    r"""Pretrain a model on a corpus, or on the source text of solutions: masked spans, then next tokens.

        coderl pretrain --actor models/small/model --corpus data/corpus --out runs/pretrain --window-tokens 256 \
            --masked-span.num-steps 2000 --masked-span.learning-rate 1e-3 --masked-span.warmup-steps 100 \
            --next-token.num-steps 2000 --next-token.learning-rate 5e-4
        coderl pretrain --actor models/tiny/model --problems data/APPS/train --out runs/x/pretrain \
            --masked-span.num-epochs 1 --next-token.num-epochs 1

    The model goes to OUT/model, that between the objectives to OUT/masked_span/model. A corpus is tokenised and packed
    first, shard by shard; the loss on its validation split is reported during training.

    Source: CodeRL section 3.2.

    Args:
        problems: A file or folder of problems, `miniapps`, or `hub:owner/name`, in place of --corpus.

    Raises:
        InputError: neither objective is asked for, or there is nothing to learn from.
    """
    if (config.corpus is None) == (problems is None):
        raise InputError("give one of --corpus and --problems: what to learn from")
    asked: list[tuple[Objective, OptimConfig | None]] = [
        ("masked_span", config.masked_span),
        ("next_token", config.next_token),
    ]
    objectives: list[tuple[Objective, OptimConfig]] = [(name, optim) for name, optim in asked if optim is not None]
    if not objectives:
        raise InputError("nothing to do: give settings of masked_span or next_token, such as --next-token.num-epochs 1")
    if config.corpus:
        refuse_unfinished(config.corpus)
    model = own_language_model(actor)
    facts: Facts = {}
    if config.corpus:
        facts["packed"] = pack_corpus(work, model, config.corpus, config)
        train: Callable[..., Any] = partial(_train_on_corpus, model, work.folder / PACKED, config)
    else:
        texts = [solution for p in problems or () for solution in p.solutions]
        train = partial(training.pretrain, model, [model.encode_program(t, prompt.max_program_tokens) for t in texts])
    for objective, optim in objectives:
        steps = train(objective, optim, checkpoint_dir=work.folder / f".{objective}")
        title = objective.replace("_", " ")
        facts[objective] = work.log_steps(steps, title, total=optim.num_steps, below=objective)
        if config.corpus:
            facts[objective] |= _validation_facts(work.folder / objective)
            if objective != objectives[-1][0]:
                work.save(model, f"{objective}/model")
    work.save(model)
    return facts


def pack_corpus(work: Work, model: LanguageModel, corpus: Path, config: PretrainConfig) -> dict[str, int]:
    """Write a shard of token windows for each shard of text that has none yet; return how many windows there are."""
    folder = work.folder / PACKED
    shards = {"train": _shards(corpus, "train")[: config.num_shards], "validation": _shards(corpus, "validation")}
    for split, parts in shards.items():
        table = tables.PartedTable(folder / split, Window)
        for index, part in work.parts(table, parts, f"packing {split}", "shards"):
            files = (model.encode_program(file.text) for file in tables.read_table(part, CorpusFile, batch_size=64))
            table.write(index, pack(files, config.window_tokens))
    return {f"num_{split}_windows": len(Windows(folder / split)) for split, parts in shards.items() if parts}


def _train_on_corpus(
    model: LanguageModel,
    packed: Path,
    config: PretrainConfig,
    objective: Objective,
    optim: OptimConfig,
    *,
    checkpoint_dir: Path,
) -> Iterator[Any]:
    defaults = {"checkpoint_every_steps": EVERY_STEPS, "validate_every_steps": EVERY_STEPS}
    optim = optim.model_copy(update={name: n for name, n in defaults.items() if getattr(optim, name) is None})
    validate = None
    if (packed / "validation").exists():
        held_out = Windows(packed / "validation")
        drawn = WindowExamples(model, held_out, objective, seed=optim.seed, epoch=-1)
        chosen = np.unique(np.linspace(0, len(drawn) - 1, config.num_validation).astype(int))
        validate = partial(validation_loss, model, [drawn[int(i)] for i in chosen], batch_size=optim.batch_size)
    windows = Windows(packed / "train")
    how = {"checkpoint_dir": checkpoint_dir, "validate": validate}
    return training.pretrain_on_windows(model, windows, objective, optim, **how)


def _validation_facts(folder: Path) -> dict[str, float]:
    """Return the validation loss before the first and after the last update."""
    rows = records.read_jsonl(folder / "metrics.jsonl")
    starts = [row["validation_start_loss"] for row in rows if "validation_start_loss" in row]
    losses = [row["validation_loss"] for row in rows if "validation_loss" in row]
    if not starts or not losses:
        return {}
    return {"validation_loss_before": round(starts[0], 4), "validation_loss": round(losses[-1], 4)}


def _shards(corpus: Path, split: str) -> list[Path]:
    folder = corpus / split
    return tables.parts_of(folder) if folder.is_dir() else []
