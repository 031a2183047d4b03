"""Source files -> a model that knows code: masked spans first, then next tokens.

Source: CodeRL sections 3.2 and 4.1. The paper trains 150 + 10 epochs of masked spans at a peak rate of 2e-4, then 10 of
next tokens at 1e-4; here the caller's `OptimConfig` says. Every epoch masks and cuts anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Literal

from coderl.models.lm import LanguageModel
from coderl.training import losses
from coderl.training.loop import (
    StepMetrics,
    StoredExamples,
    Validate,
    train,
)
from coderl.training.losses import CrossEntropyExample
from coderl.training.packed import Windows
from coderl.training.settings import OptimConfig
from coderl.types import InputError

Objective = Literal["masked_span", "next_token"]
Tokens = Sequence[int]

MASKED_SHARE = 0.15
LONGEST_SPAN = 5
"""Spans have 1 to 5 words, each length as likely: 3 on average."""
LOWEST_PIVOT, HIGHEST_PIVOT = 0.1, 0.9
SPACES = "ĠĊĉč▁"
"""How byte-level and sentencepiece tokenizers write a space, a line feed, a tab, a carriage return; a space."""


def pretrain(
    model: LanguageModel,
    files: Sequence[Tokens],
    objective: Objective,
    config: OptimConfig,
    *,
    checkpoint_dir: Path | None = None,
    validate: Validate | None = None,
) -> Iterator[StepMetrics]:
    """Yield the metrics of each update of `model` on source files (tokens, as `encode_program` gives them).

    Files of fewer than two words or tokens teach nothing and are left out.

    Raises:
        InputError: no file is left, or masked spans are asked of a model or tokenizer that cannot have them.
    """
    bodies = [body for file in files if len(body := _body(model, file)) >= 2]
    if not bodies:
        raise InputError(f"none of the {len(files)} source files has two tokens to learn from")
    draw = partial(examples_of, model, bodies, objective)
    return train(
        model,
        lambda epoch: draw(seed=config.seed, epoch=epoch),
        losses.cross_entropy_of,
        config,
        checkpoint_dir=checkpoint_dir,
        length_of=losses.num_tokens,
        validate=validate,
    )


def pretrain_on_windows(
    model: LanguageModel,
    windows: Windows,
    objective: Objective,
    config: OptimConfig,
    *,
    checkpoint_dir: Path | None = None,
    validate: Validate | None = None,
) -> Iterator[StepMetrics]:
    """Yield the metrics of each update of `model` on a packed corpus, which stays on disk.

    Raises:
        InputError: masked spans are asked of a model or tokenizer that cannot have them.
    """
    return train(
        model,
        lambda epoch: WindowExamples(model, windows, objective, seed=config.seed, epoch=epoch),
        losses.cross_entropy_of,
        config,
        checkpoint_dir=checkpoint_dir,
        validate=validate,
    )


def examples_of(
    model: LanguageModel, bodies: Sequence[Tokens], objective: Objective, *, seed: int, epoch: int
) -> list[CrossEntropyExample]:
    """Return one example a file, the same for the same seed and epoch, framed by the model's special tokens.

    Raises:
        InputError: see `pretrain`.
    """
    frame = _Frame(model, objective)
    return [frame.example(body, _rng(seed, epoch, index), is_whole=True) for index, body in enumerate(bodies)]


class WindowExamples(StoredExamples[CrossEntropyExample]):
    """One example a window of a packed corpus, drawn when asked for; only windows that end a file end the sequence."""

    def __init__(self, model: LanguageModel, windows: Windows, objective: Objective, *, seed: int, epoch: int):
        """Examples that are the same for the same seed and epoch.

        Raises:
            InputError: see `pretrain`.
        """
        self.windows, self.group_sizes = windows, windows.sizes
        self.frame = _Frame(model, objective)
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> CrossEntropyExample:  # type: ignore[override]
        return self.frame.example(self.windows[index], _rng(self.seed, self.epoch, index), is_whole=False)

    def lengths(self) -> list[int]:
        """Return what decides an example's cost: the tokens before its pivot, all of them with masked spans."""
        lengths = self.windows.lengths()
        if self.frame.objective == "masked_span":
            return lengths
        return [pivot_of(n, _rng(self.seed, self.epoch, index)) for index, n in enumerate(lengths)]


class _Frame:
    """How a model's examples begin and end, and what masks its spans."""

    def __init__(self, model: LanguageModel, objective: Objective):
        self.model, self.objective = model, objective
        self.leading, self.trailing = model.prompt_frame
        self.start = self.leading if model.is_encoder_decoder else ()
        self.sentinels = sentinel_ids(model) if objective == "masked_span" else []

    def example(self, body: Tokens, rng: Random, *, is_whole: bool) -> CrossEntropyExample:
        """Return an example; next tokens of a window that is not whole are left open, as the file goes on."""
        if self.objective == "next_token":
            source, target = next_tokens(body, rng)
        else:
            source, target = masked_spans(body, rng, sentinels=self.sentinels, starts=word_starts(self.model, body))
        end = (self.model.eos_id,) if is_whole or self.objective == "masked_span" else ()
        return CrossEntropyExample((*self.leading, *source, *self.trailing), (*self.start, *target, *end))


def _rng(seed: int, epoch: int, index: int) -> Random:
    return Random(f"{seed}|{epoch}|{index}")


# ------------------------------------------------------------------------------------------------------- objectives


def next_tokens(tokens: Tokens, rng: Random) -> tuple[list[int], list[int]]:
    """Return the tokens before and after a pivot drawn evenly between 10% and 90% of them; neither is empty.

    Source: section 3.2, next-token prediction.
    """
    pivot = pivot_of(len(tokens), rng)
    return list(tokens[:pivot]), list(tokens[pivot:])


def pivot_of(num_tokens: int, rng: Random) -> int:
    """Return how many tokens stand before the pivot."""
    if num_tokens < 2:
        raise ValueError(f"{num_tokens} tokens cannot be cut in two")
    pivot = round(rng.uniform(LOWEST_PIVOT, HIGHEST_PIVOT) * num_tokens)
    return min(max(pivot, 1), num_tokens - 1)


def masked_spans(
    tokens: Tokens,
    rng: Random,
    *,
    sentinels: Sequence[int],
    starts: Sequence[bool] | None = None,
    masked_share: float = MASKED_SHARE,
    longest_span: int = LONGEST_SPAN,
) -> tuple[list[int], list[int]]:
    """Return the tokens with spans replaced by sentinels, and the sentinels each followed by what it hides.

    A span is of whole words and no two touch; the last sentinel closes the target. A text with too few sentinels for
    its spans hides fewer words.

    Source: section 3.2, masked span prediction as in T5 and CodeT5: 15% of words, spans of 3 on average.

    Args:
        tokens: a text without special tokens.
        rng: what the spans are drawn from.
        sentinels: ids of `<extra_id_0>`, `<extra_id_1>`, ...; at least two.
        starts: whether a word begins at each token; every token is a word where None.
        masked_share: how many of the words are hidden, at least one.
        longest_span: the most words of a span.
    """
    if not tokens or len(sentinels) < 2:
        raise ValueError(f"{len(tokens)} tokens and {len(sentinels)} sentinels: expected at least 1 and 2")
    words = _words(tokens, starts)
    lengths = span_lengths(len(words), rng, masked_share, longest_span)[: len(sentinels) - 1]
    num_shown = len(words) - sum(lengths)
    lengths = lengths[: num_shown + 1]  # as many spans as there are gaps between the words that stay
    num_shown = len(words) - sum(lengths)
    gaps = sorted(rng.sample(range(num_shown + 1), len(lengths)))
    spans = dict(zip(gaps, zip(sentinels, lengths, strict=False), strict=True))
    source: list[int] = []
    target: list[int] = []
    rest = iter(words)
    for gap in range(num_shown + 1):
        if gap in spans:
            sentinel, length = spans[gap]
            source.append(sentinel)
            target.append(sentinel)
            for _ in range(length):
                target.extend(next(rest))
        source.extend(next(rest, ()))
    return source, [*target, sentinels[len(gaps)]]


def span_lengths(num_words: int, rng: Random, masked_share: float, longest_span: int) -> list[int]:
    """Return lengths drawn evenly from 1 to `longest_span` that add up to `masked_share` of the words, at least one."""
    left = min(max(1, round(masked_share * num_words)), num_words)
    lengths = []
    while left:
        lengths.append(min(rng.randint(1, longest_span), left))
        left -= lengths[-1]
    return lengths


# ---------------------------------------------------------------------------------------------------- words, sentinels


def word_starts(model: LanguageModel, tokens: Tokens) -> list[bool]:
    """Return whether each token begins a word: it does unless a name or number goes on in it."""
    pieces = model.tokenizer.convert_ids_to_tokens(list(tokens))
    before = ["", *(piece[-1:] for piece in pieces[:-1])]
    return [not (_is_of_name(last) and _is_of_name(piece[:1])) for last, piece in zip(before, pieces, strict=True)]


def sentinel_ids(model: LanguageModel) -> list[int]:
    """Return the ids of `<extra_id_0>`, `<extra_id_1>`, ... as far as the tokenizer has them.

    Raises:
        InputError: fewer than two, or a model that has no encoder to read around a span.
    """
    if not model.is_encoder_decoder:
        raise InputError("masked spans need an encoder-decoder model: pretrain a decoder-only one on next tokens alone")
    vocab = model.tokenizer.get_vocab()
    found = []
    while (token_id := vocab.get(f"<extra_id_{len(found)}>")) is not None:
        found.append(token_id)
    if len(found) < 2:
        raise InputError("masked spans need a tokenizer with the sentinels <extra_id_0>, <extra_id_1>, ...")
    return found


def _is_of_name(char: str) -> bool:
    return char != "" and char not in SPACES and (char.isalnum() or char == "_" or ord(char) > 127)


def _words(tokens: Tokens, starts: Sequence[bool] | None) -> list[list[int]]:
    words: list[list[int]] = []
    for position, token in enumerate(tokens):
        if starts is None or starts[position] or not words:
            words.append([])
        words[-1].append(token)
    return words


def _body(model: LanguageModel, file: Tokens) -> list[int]:
    """Return the file without the special tokens around it."""
    special = {model.eos_id, model.pad_id, *model.prompt_frame[0], *model.prompt_frame[1]}
    return [token for token in file if token not in special]
