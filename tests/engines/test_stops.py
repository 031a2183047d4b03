"""A text that ends a program is found at the token with which it is complete, however tokens cut it."""

import itertools

import pytest
import torch

from coderl.engines.engine import Finish, Request
from coderl.engines.settings import SamplingConfig
from coderl.engines.stops import FOUND, StopTable
from coderl.engines.transformers import TransformersEngine
from coderl.models.tiny import fast_tokenizer, tiny_llama, tiny_t5, train_tokenizer

TEXTS = ["x = 1\n```\nabab\n", "```python\né = 'ab'\n", "aab\n"]


@pytest.fixture(scope="module")
def model():
    return tiny_llama(train_tokenizer(TEXTS, 300, num_sentinels=5), d_model=8, num_layers=1, num_heads=1)


def first_end(model, tokens, stops) -> int | None:
    """By the definition: how many tokens until the decoded text holds one of the texts."""
    return next((n for n in range(1, len(tokens) + 1) if any(s in model.decode(tokens[:n]) for s in stops)), None)


@pytest.mark.parametrize("stops", [("\n```",), ("aab", "bb"), ("é",), ("ab", "abab", "c\nc")])
def test_the_end_is_that_of_the_decoded_text(model, stops):
    """Texts cut into tokens at random places (bytes of a character too), against decoding every beginning."""
    table = StopTable(model, stops)
    pieces = [
        model.encode_program(text)[:-1] for text in ("a", "b", "aa", "ab", "\n", "`", "``", "```", "é", "c", " x")
    ]
    rng = torch.Generator().manual_seed(0)
    num_found = 0
    for _ in range(200):
        picks = torch.randint(len(pieces), (12,), generator=rng).tolist()
        tokens = list(itertools.chain(*(pieces[i] for i in picks)))
        expected = first_end(model, tokens, stops)
        assert table.end(tokens) == expected
        states = torch.zeros(1, dtype=torch.long)
        for number, token in enumerate(tokens, start=1):
            states = table.after(states, torch.tensor([token]))
            assert (states.item() == FOUND) == (expected is not None and number >= expected)
        num_found += expected is not None
    assert num_found > 10


def test_special_tokens_are_no_text(model):
    table = StopTable(model, ("ab",))
    a, b = (model.encode_program(c)[0] for c in "ab")
    assert table.end([a, model.pad_id, b]) == 3
    assert table.end([a, model.eos_id]) is None


def test_words_with_a_space_before_them(model):
    """A tokenizer that writes spaces as signs, as that of T5 and Llama 2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "▁", "▁end", "end", "▁the", "x", "▁x", "<0x0A>"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    spaced = tiny_llama(fast_tokenizer(inner, []), d_model=8, num_layers=1, num_heads=1)
    the, end, joined, line = (words.index(w) for w in ("▁the", "▁end", "end", "<0x0A>"))
    for tokens, stops in [([the, end, the], ("the end",)), ([the, joined], ("theend",)), ([the, line, end], ("\n e",))]:
        assert StopTable(spaced, stops).end(tokens) == first_end(spaced, tokens, stops) is not None


# ---------------------------------------------------------------------------------------------------- while drawing


@pytest.fixture(scope="module", params=["t5", "llama"])
def writer(request):
    """Writes `a`, `b` or a line end, each with a third of the probability."""
    make = {"t5": tiny_t5, "llama": tiny_llama}[request.param]
    model = make(train_tokenizer(TEXTS, 300, num_sentinels=5), d_model=8, num_layers=1, num_heads=1)
    allowed = torch.full((model.vocab_size,), -torch.inf)
    allowed[[model.encode_program(c)[0] for c in "ab\n"]] = 0.0
    model.backbone.get_output_embeddings().register_forward_hook(lambda _m, _i, logits: 0 * logits + allowed)
    return model


def test_programs_are_those_without_stops_cut_at_the_first(writer):
    """The same seed with and without stops: the same beginnings, and what ends where."""
    config = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=20)
    requests = [Request((70, 71), (), 30), Request((72,), tuple(writer.encode_program("aba")[:-1]), 10)]
    engine = TransformersEngine(writer)
    whole = engine.draw(requests, config, seed=3)
    ended = engine.draw(requests, config.model_copy(update={"stop": ("ab\nb", "bbb")}), seed=3, with_log_probs=True)
    finishes = set()
    for long, short in zip(itertools.chain(*whole), itertools.chain(*ended), strict=True):
        end = first_end(writer, long.tokens, ("ab\nb", "bbb"))
        assert short.tokens == long.tokens[:end]
        assert short.finish == (Finish.LENGTH if end is None else Finish.STOP)
        assert len(short.log_probs) == len(short.drawn_tokens)
        finishes.add(short.finish)
    assert finishes == {Finish.LENGTH, Finish.STOP}


def test_a_prefix_that_a_stop_has_ended_stays_as_it_is(writer):
    prefix = tuple(writer.encode_program("abb")[:-1])
    config = SamplingConfig(temperature=1.0, max_new_tokens=5, stop=("bb",))
    ((ended, again), (other,)) = TransformersEngine(writer).draw(
        [Request((70,), prefix, 2), Request((70,), prefix[:-1])], config, seed=0, with_log_probs=True
    )
    assert ended == again
    assert (ended.tokens, ended.finish, ended.log_probs) == (prefix, Finish.STOP, ())
    assert len(other.tokens) > len(prefix) - 1
