"""The stage that makes a model from nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from coderl import prompts, tables
from coderl.models.settings import TinyConfig
from coderl.models.tiny import tiny_t5, train_tokenizer
from coderl.prompts import PromptConfig
from coderl.stages.pretrain import CorpusInput
from coderl.stages.stage import Facts, Labelled, Work, stage
from coderl.training.packed import CorpusFile
from coderl.types import InputError, LabelledProblem

TOKENIZER_BYTES = 20_000_000
"""Of a corpus's text that a tokenizer is learned from: more changes few merges."""


@stage
def init(
    work: Work,
    *,
    corpus: Annotated[Path, CorpusInput("What `build-corpus` wrote.")] | None = None,
    problems: Labelled | None = None,
    config: TinyConfig = TinyConfig(),
    prompt: PromptConfig = PromptConfig(),
    seed: int = 0,
) -> Facts:
    r"""Make a T5 with random weights, and its byte-level BPE tokenizer from the texts of a corpus or of problems.

        coderl init --corpus data/corpus --out models/small --vocab-size 8192 --d-model 256 --d-ff 1280 --num-layers 4

    The model goes to OUT/model.

    Args:
        seed: Decides the random weights.

    Raises:
        InputError: both a corpus and problems are given, or neither.
    """
    if (corpus is None) == (problems is None):
        raise InputError("give one of --corpus and --problems: the texts that the tokenizer is learned from")
    texts = _corpus_texts(corpus) if corpus else _problem_texts(problems or (), prompt)
    tokenizer = train_tokenizer(texts, config.vocab_size)
    shape = config.model_dump(exclude={"vocab_size"})
    model = tiny_t5(tokenizer, **shape, seed=seed)
    model.save(work.folder / "model")
    return {"num_parameters": sum(p.numel() for p in model.parameters()), "vocab_size": model.vocab_size}


def _problem_texts(problems: Labelled, prompt: PromptConfig) -> list[str]:
    def solutions(labelled: LabelledProblem) -> list[str]:
        return [prompts.actor_target(labelled.problem, text, style=prompt.style) for text in labelled.solutions]

    texts = [prompts.actor_prompt(p.problem, style=prompt.style) for p in problems]
    return texts + [text for labelled in problems for text in solutions(labelled)]


def _corpus_texts(corpus: Path) -> Iterator[str]:
    """Yield texts of the first shards, each of which is a sample of all projects."""
    num_bytes = 0
    for file in tables.read_table(corpus / "train", CorpusFile, batch_size=64):
        yield file.text
        num_bytes += len(file.text)
        if num_bytes >= TOKENIZER_BYTES:
            return
