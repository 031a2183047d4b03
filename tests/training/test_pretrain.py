"""Pretraining examples hold the whole file and nothing else, and are cut where the paper cuts."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl.models import tiny as tiny_models
from coderl.training.pretrain import (
    examples_of,
    masked_spans,
    next_tokens,
    pretrain,
    sentinel_ids,
    span_lengths,
    word_starts,
)
from coderl.training.settings import OptimConfig
from coderl.types import InputError

SENTINELS = list(range(1000, 1100))


def put_back(source, target, sentinels):
    """The text, from a source and target, by the definition of the format."""
    hidden, current = {}, None
    for token in target:
        if token in sentinels:
            current = token
            hidden[current] = []
        else:
            hidden[current].append(token)
    return [t for token in source for t in (hidden[token] if token in sentinels else [token])]


texts = st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=1, max_size=200)


@given(texts, st.integers(), st.floats(0.01, 1.0), st.integers(1, 9), st.integers(2, 100))
@settings(max_examples=200, deadline=None)
def test_the_text_can_be_put_back(text, seed, share, longest, num_sentinels):
    """Whatever is masked: source and target together are the text, sentinels ascend, spans are whole and apart."""
    tokens, starts = [t for t, _ in text], [s for _, s in text]
    sentinels = SENTINELS[:num_sentinels]
    source, target = masked_spans(
        tokens, Random(seed), sentinels=sentinels, starts=starts, masked_share=share, longest_span=longest
    )
    assert put_back(source, target, set(sentinels)) == tokens
    used = [t for t in source if t in sentinels]
    assert used == sentinels[: len(used)]
    assert len(used) >= 1
    assert [t for t in target if t in sentinels] == sentinels[: len(used) + 1]
    assert target[-1] == sentinels[len(used)]
    assert not any(a in sentinels and b in sentinels for a, b in pairwise(source))


@given(st.integers(7, 400), st.integers())
@settings(max_examples=100, deadline=None)
def test_fifteen_percent_of_the_words_are_masked(num_words, seed):
    source, _ = masked_spans(list(range(num_words)), Random(seed), sentinels=SENTINELS)
    assert num_words - sum(t < 1000 for t in source) == round(0.15 * num_words)


def test_spans_are_three_words_on_average():
    """Lengths 1 to 5 evenly (the last of a text is cut to fit): mean 3 within 4 standard errors of 2^0.5 / n^0.5."""
    lengths = span_lengths(100_000, Random(0), 0.15, 5)[:-1]
    assert set(lengths) == {1, 2, 3, 4, 5}
    assert abs(sum(lengths) / len(lengths) - 3) < 4 * (2 / len(lengths)) ** 0.5
    assert sum(span_lengths(100_000, Random(0), 0.15, 5)) == 15_000


def test_every_word_is_masked_equally_often():
    """Spans of one word: each of 20 words is hidden in 3 of 20 draws, first and last included."""
    counts = [0] * 20
    rng, num = Random(1), 4000
    for _ in range(num):
        source, _ = masked_spans(list(range(20)), rng, sentinels=SENTINELS, longest_span=1)
        for word in set(range(20)) - set(source):
            counts[word] += 1
    error = (0.15 * 0.85 / num) ** 0.5
    # spans do not touch, so an inner word has two neighbours that exclude it and an outer one has one
    assert all(abs(count / num - 0.15) < 0.03 + 4 * error for count in counts)
    assert sum(counts) == 3 * num


def test_format_worked_by_hand():
    """T5's format: one word of one token hidden among four, a word of two tokens kept whole."""
    found = {
        str(masked_spans([1, 2, 3], Random(seed), sentinels=[900, 901], starts=[True, True, False]))
        for seed in range(40)
    }
    assert found == {str(([900, 2, 3], [900, 1, 901])), str(([1, 900], [900, 2, 3, 901]))}


@given(st.lists(st.integers(0, 9), min_size=2, max_size=300), st.integers())
@settings(max_examples=200, deadline=None)
def test_next_tokens_cut_between_ten_and_ninety_percent(tokens, seed):
    before, after = next_tokens(tokens, Random(seed))
    assert before + after == tokens
    assert before
    assert after
    if len(tokens) >= 10:
        assert 0.1 * len(tokens) - 0.5 <= len(before) <= 0.9 * len(tokens) + 0.5


def test_pivots_are_spread_evenly():
    """Mean of the pivot of 1000 tokens is 500 within 4 standard errors of 800 / sqrt(12 n)."""
    rng = Random(3)
    pivots = [len(next_tokens(range(1000), rng)[0]) for _ in range(2000)]
    assert abs(sum(pivots) / 2000 - 500) < 4 * 800 / (12 * 2000) ** 0.5
    assert min(pivots) < 110
    assert max(pivots) > 890


def test_nothing_to_cut_is_refused():
    with pytest.raises(ValueError, match="cut in two"):
        next_tokens([1], Random(0))
    with pytest.raises(ValueError, match="sentinels"):
        masked_spans([1, 2], Random(0), sentinels=[900])


# -------------------------------------------------------------------------------------------------- on a real model

CODE = "total_sum = int(input())\nprint(total_sum + 12, 'é')\n"


def test_words_are_names_numbers_signs_and_spaces(tokenizer, tiny):
    """A name of many tokens is one word; a space, a line's end or a sign begins another."""
    model = tiny()
    tokens = model.encode_program(CODE)[:-1]
    starts = word_starts(model, tokens)
    words, text = [], ""
    for token, is_start in zip(tokens, starts, strict=True):
        if is_start and text:
            words.append(text)
            text = ""
        text += tokenizer.decode([token]) if token != 0 else ""
    assert words[0] == "total_sum"
    assert starts[0]
    joined = [w.strip() for w in words]
    assert "print" in joined
    assert joined.count("total_sum") == 2
    assert "12" in joined


@pytest.mark.parametrize("objective", ["masked_span", "next_token"])
def test_examples_are_framed_and_whole(tiny, objective):
    """Encoder and target end with the end of sequence; the file can be put back; epochs differ, seeds repeat."""
    model = tiny()
    body = model.encode_program(CODE)[:-1]
    (example,) = examples_of(model, [body], objective, seed=1, epoch=0)
    assert example.prompt[-1] == example.program[-1] == model.eos_id
    source, target = list(example.prompt[:-1]), list(example.program[:-1])
    if objective == "masked_span":
        assert put_back(source, target, set(sentinel_ids(model))) == body
    else:
        assert source + target == body
    assert examples_of(model, [body], objective, seed=1, epoch=0) == [example]
    assert any(examples_of(model, [body], objective, seed=1, epoch=e) != [example] for e in range(1, 4))


@pytest.mark.parametrize("objective", ["masked_span", "next_token"])
def test_pretraining_lowers_the_loss(tiny, objective):
    model = tiny()
    files = [model.encode_program(f"for i in range({n}):\n    print(i + {n})\n") for n in range(16)]
    config = OptimConfig(learning_rate=1e-2, batch_size=8, num_steps=40)
    ce = [step.metrics["ce_loss"] for step in pretrain(model, files, objective, config)]
    assert sum(ce[-5:]) < 0.8 * sum(ce[:5])


def test_decoder_only_models_learn_next_tokens_only(tokenizer):
    model = tiny_models.tiny_llama(tokenizer, d_model=8, num_layers=1, num_heads=1)
    body = model.encode_program(CODE)[:-1]
    (example,) = examples_of(model, [body], "next_token", seed=0, epoch=0)
    assert [*example.prompt, *example.program] == [*body, model.eos_id]
    with pytest.raises(InputError, match="encoder-decoder"):
        examples_of(model, [body], "masked_span", seed=0, epoch=0)


def test_files_without_content_are_refused(tiny):
    with pytest.raises(InputError, match="none of the 2 source files"):
        pretrain(tiny(), [[2], []], "next_token", OptimConfig(num_steps=1))
