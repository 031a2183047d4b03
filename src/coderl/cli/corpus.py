"""Commands for what comes before finetuning: a corpus of source files, and a model with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from coderl import problems as data
from coderl.cli.apps import Flat, app
from coderl.corpus import build as corpora
from coderl.corpus.build import CorpusConfig
from coderl.models.settings import TinyConfig
from coderl.prompts import PromptConfig
from coderl.stages import pretrain as pretraining
from coderl.stages import stages
from coderl.stages.console import Reporter
from coderl.training.settings import PretrainConfig
from coderl.types import InputError


@app.command(name="build-corpus")
def build_corpus(folders: list[Path], /, *, out: Path, config: Annotated[CorpusConfig, Flat] = CorpusConfig()) -> None:
    r"""Make a pretraining corpus of folders of Python files: permissive licences, no copies, no secrets.

        coderl build-corpus .venv/lib/python3.11/site-packages --out data/corpus
        coderl build-corpus src/projects more/projects --out data/corpus --any-licence --validation-share 0.05

    Files go to OUT/train and OUT/validation, by project, as Parquet shards; OUT/dropped says why the others did not;
    OUT/manifest.json counts both. The same command continues a run that was stopped.

    Args:
        folders: Folders of installed packages (with their `*.dist-info`), of projects, or projects.
        out: The corpus.
    """
    corpora.build(out, folders=folders, config=config, reporter=Reporter())
    print(json.dumps(stages.facts_of(out), indent=2))


@app.command
def init(
    *,
    out: Path,
    corpus: Path | None = None,
    problems: str | None = None,
    split: str | None = None,
    seed: int = 0,
    config: Annotated[TinyConfig, Flat] = TinyConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Make a T5 with random weights, and its byte-level BPE tokenizer from the texts of a corpus or of problems.

        coderl init --corpus data/corpus --out models/small --vocab-size 8192 --d-model 256 --d-ff 1280 --num-layers 4

    Args:
        out: The stage's folder; the model goes to OUT/model.
        corpus: What `build-corpus` wrote.
        problems: A file or folder of problems, `miniapps`, or `hub:owner/name`.
        split: Only this split of the problems.
        seed: Of the random weights.
    """
    if (corpus is None) == (problems is None):
        raise InputError("give one of --corpus and --problems: the texts that the tokenizer is learned from")
    if corpus:
        pretraining.initialise(out, corpus=corpus, config=config, seed=seed, reporter=Reporter())
    else:
        stages.initialise(out, problems=data.load(problems or "", split=split), config=config, prompt=prompt, seed=seed,
                          reporter=Reporter())  # fmt: skip
    print(json.dumps(stages.facts_of(out), indent=2))


@app.command
def pretrain(
    *,
    actor: str,
    out: Path,
    problems: str | None = None,
    split: str | None = None,
    config: Annotated[PretrainConfig, Flat] = PretrainConfig(),
    prompt: PromptConfig = PromptConfig(),
) -> None:
    r"""Pretrain a model on a corpus, or on the source text of solutions: masked spans, then next tokens.

        coderl pretrain --actor models/small/model --corpus data/corpus --out runs/pretrain --window-tokens 256 \
            --masked-span.num-steps 2000 --masked-span.learning-rate 1e-3 --masked-span.warmup-steps 100 \
            --next-token.num-steps 2000 --next-token.learning-rate 5e-4
        coderl pretrain --actor models/tiny --problems data/APPS/train --out runs/x/pretrain \
            --masked-span.num-epochs 1 --next-token.num-epochs 1

    Args:
        actor: A model folder or hub name.
        out: The stage's folder; the model goes to OUT/model, that between the objectives to OUT/masked_span/model.
        problems: A file or folder of problems, `miniapps`, or `hub:owner/name`, in place of --corpus.
        split: Only this split of the problems.
    """
    if (config.corpus is None) == (problems is None):
        raise InputError("give one of --corpus and --problems: what to learn from")
    chosen = data.load(problems, split=split) if problems else []
    pretraining.pretrain(out, actor=actor, problems=chosen, config=config, prompt=prompt, reporter=Reporter())
    print(json.dumps(stages.facts_of(out), indent=2))
