"""Sampling draws from the model's own distribution, cut as asked, whatever shares the batch."""

from itertools import product

import pytest
import torch
from pydantic import ValidationError

from coderl.engines.cache import GrowingLayer, new_cache
from coderl.engines.decoding import Decoder
from coderl.engines.drawing import draw, row_uniforms
from coderl.engines.settings import SamplingConfig
from coderl.engines.transformers import greedy, sample
from coderl.models.lm import LanguageModel
from coderl.models.tiny import tiny_llama, tiny_t5, train_tokenizer
from coderl.types import InputError

PROMPTS = ["Print n.\n", "Read n and print the sum of the first n numbers.\n", "Sort.\n", "Reverse the list.\n"]
EXACT = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=24)


@pytest.fixture(scope="module", params=["t5", "llama"])
def model(request) -> LanguageModel:
    tokenizer = train_tokenizer(PROMPTS, 290, num_sentinels=5)
    make = {"t5": tiny_t5, "llama": tiny_llama}[request.param]
    model = make(tokenizer, d_model=32, num_layers=2, num_heads=2, seed=3)
    if request.param == "llama":  # whose untrained logits are almost equal
        with torch.no_grad():
            model.backbone.get_input_embeddings().weight *= 4
    ends_sometimes = torch.zeros(model.vocab_size)
    ends_sometimes[model.eos_id] = 3.0
    model.backbone.get_output_embeddings().register_forward_hook(lambda _m, _i, logits: logits + ends_sometimes)
    return model


@pytest.fixture(scope="module")
def prompts(model) -> list[list[int]]:
    return [model.encode_prompt(text) for text in PROMPTS]


# ------------------------------------------------------------------------------------------------ one draw, by hand

HALF = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()


def shares(logits, **options) -> list[float]:
    """The share of 2000 evenly spaced uniform numbers that draws each token."""
    num = 2000
    uniforms = (torch.arange(num) + 0.5) / num
    tokens = draw(logits.expand(num, -1), uniforms, **options)
    return (torch.bincount(tokens, minlength=logits.shape[-1]) / num).tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 1.0}, [0.5, 0.3, 0.15, 0.05]),
        ({"temperature": 0.5}, [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
        ({"temperature": 1.0, "top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.7}, [0.625, 0.375, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.9}, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
        ({"temperature": 1.0, "top_p": 0.4}, [1, 0, 0, 0]),
        # top-k first: of the two left, 0.625 alone has a mass of 0.6; of all four it would have taken two
        ({"temperature": 1.0, "top_k": 2, "top_p": 0.6}, [1, 0, 0, 0]),
        # temperature first: 0.25 / 0.365 = 0.685 reaches 0.6 alone
        ({"temperature": 0.5, "top_p": 0.6}, [1, 0, 0, 0]),
        ({"temperature": 0.0}, [1, 0, 0, 0]),
    ],
)
def test_cuts_worked_by_hand(options, expected):
    """Temperature, then top-k, then top-p, on the probabilities 0.5, 0.3, 0.15, 0.05."""
    assert shares(HALF, **options) == pytest.approx(expected, abs=1.5e-3)
    permuted = shares(HALF[:, [2, 0, 3, 1]], **options)
    assert permuted == pytest.approx([expected[i] for i in (2, 0, 3, 1)], abs=1.5e-3)


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.97])
def test_nucleus_larger_than_the_sorted_head(top_p):
    """A flat row needs the whole vocabulary sorted, a sharp one beside it does not: both are cut to their own mass."""
    vocab = 100
    flat, sharp = torch.zeros(vocab), torch.zeros(vocab)
    sharp[7] = 12.0
    flat[::2] = 1.0
    num = 4000
    uniforms = ((torch.arange(num) + 0.5) / num).repeat_interleave(2)
    tokens = draw(torch.stack([flat, sharp]).repeat(num, 1), uniforms, temperature=1.0, top_p=top_p).view(num, 2)
    assert (tokens[:, 1] == 7).all()
    probs = flat.softmax(-1).sort(descending=True, stable=True)
    size = next(i + 1 for i in range(vocab) if probs.values[: i + 1].sum() >= top_p)
    found = torch.bincount(tokens[:, 0], minlength=vocab).sort(descending=True).values / num
    expected = probs.values[:size] / probs.values[:size].sum()
    torch.testing.assert_close(found[:size], expected, atol=2 / num, rtol=0)
    assert found[size:].sum() == 0


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.9}, {"top_k": 3, "top_p": 0.99}])
def test_the_last_uniform_number_draws_a_real_token(options):
    """Rounding at the end of the cumulative sum must not reach past the kept tokens."""
    logits = torch.randn(50, 200, generator=torch.Generator().manual_seed(0))
    logits[:, 150:] = -torch.inf
    tokens = draw(logits, torch.full((50,), 1 - 2**-24), temperature=1.0, **options)
    assert (logits.gather(-1, tokens[:, None]) > -torch.inf).all()


# ------------------------------------------------------------------------------------------ the whole distribution


def exact_distribution(model, prompt, num_tokens, config) -> dict[tuple[int, ...], float]:
    """Every program of `num_tokens` tokens over a small alphabet with its probability, by enumeration."""
    alphabet = [model.eos_id, 70, 80, 90]
    programs = {}
    for tokens in product(alphabet, repeat=num_tokens):
        cut = tokens[: tokens.index(model.eos_id) + 1] if model.eos_id in tokens else tokens
        programs[cut] = 0.0
    for program in programs:
        prob = 1.0
        for t, token in enumerate(program):
            if model.is_encoder_decoder:
                inputs = {"input_ids": [prompt], "decoder_input_ids": [[model.start_id, *program[:t]]]}
            else:
                inputs = {"input_ids": [[*prompt, *program[:t]]]}
            logits = model.backbone(**{k: torch.tensor(v) for k, v in inputs.items()}).logits[0, -1].detach()
            kept = (logits[alphabet] / config.temperature).softmax(-1)
            prob *= kept[alphabet.index(token)].item()
        programs[program] = prob
    return programs


@pytest.fixture
def restricted(model):
    """The model with all tokens but four impossible, so that its programs can be enumerated."""
    allowed = torch.full((model.vocab_size,), -torch.inf)
    allowed[[model.eos_id, 70, 80, 90]] = 0.0
    hook = model.backbone.get_output_embeddings().register_forward_hook(lambda _m, _i, logits: logits * 0.3 + allowed)
    yield model
    hook.remove()


def test_frequencies_are_the_enumerated_probabilities(restricted, prompts):
    """4000 samples of up to three tokens, every one of the 40 programs within 4.5 standard errors."""
    config = EXACT.model_copy(update={"temperature": 0.8, "max_new_tokens": 3})
    expected = exact_distribution(restricted, prompts[1], 3, config)
    assert sum(expected.values()) == pytest.approx(1, abs=1e-4)
    num = 4000
    (programs,) = sample(restricted, [prompts[1]], num_samples=num, config=config, seed=11)
    assert len(programs) == num
    for program, prob in expected.items():
        error = (prob * (1 - prob) / num) ** 0.5
        assert programs.count(program) / num == pytest.approx(prob, abs=4.5 * error + 1e-4), program
    assert set(programs) <= set(expected)


def test_rows_of_different_lengths_do_not_disturb_each_other(restricted, prompts):
    """All prompts in one batch, finished rows dropped: each keeps its own distribution of first tokens and lengths."""
    config = EXACT.model_copy(update={"max_new_tokens": 6, "batch_rows": 4096})
    num = 1000
    together = sample(restricted, prompts, num_samples=num, config=config, seed=2)
    for prompt, programs in zip(prompts, together, strict=True):
        exact = exact_distribution(restricted, prompt, 2, config)
        for start, prob in exact.items():
            found = sum(program[:2] == start for program in programs) / num
            assert found == pytest.approx(prob, abs=4.5 * (prob * (1 - prob) / num) ** 0.5 + 1e-4)


# -------------------------------------------------------------------------------------------------- greedy, the cache


def generated_by_transformers(model, prompt, max_new_tokens) -> tuple[int, ...]:
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = model.backbone.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_new_tokens
        )[0].tolist()
    program = out[1:] if model.is_encoder_decoder else out[len(prompt) :]
    return tuple(program)


def test_greedy_is_that_of_transformers_token_for_token(model, prompts):
    """All prompts side by side against `generate` on one at a time."""
    expected = [generated_by_transformers(model, prompt, 40) for prompt in prompts]
    assert greedy(model, prompts, config=SamplingConfig(max_new_tokens=40)) == expected


def test_temperature_zero_is_greedy(model, prompts):
    config = SamplingConfig(temperature=0, max_new_tokens=12)
    assert sample(model, prompts, num_samples=3, config=config, seed=0) == [
        [row] * 3 for row in greedy(model, prompts, config=config)
    ]


@pytest.mark.parametrize("is_growing", [True, False])
def test_cached_logits_are_those_of_a_forward_without_cache(model, prompts, is_growing, monkeypatch):
    """70 steps (past two growths of the cache) with rows repeated at the start and dropped half way."""
    if not is_growing:
        monkeypatch.setattr("coderl.engines.cache.GrowingLayer", torch.nn.Identity)
        monkeypatch.setattr("coderl.engines.decoding.new_cache", library_cache)
    tokens = torch.randint(60, 280, (8, 70), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        decoder = Decoder(model, prompts, [()] * 4)
        decoder.select(torch.arange(4).repeat_interleave(2))
        rows = torch.arange(8)
        for step in range(70):
            if step == 33:
                kept = torch.tensor([0, 3, 6])
                rows = rows[kept]
                decoder.select(kept)
            decoder.step(tokens[rows, step])
            if step in (0, 31, 32, 33, 34, 69):
                for line, row in enumerate(rows.tolist()):
                    expected = uncached_logits(model, prompts[row // 2], tokens[row, : step + 1].tolist())
                    torch.testing.assert_close(decoder.logits[line], expected, atol=1e-4, rtol=1e-4)


def library_cache(model):
    from transformers import DynamicCache, EncoderDecoderCache

    return EncoderDecoderCache(DynamicCache(), DynamicCache()) if model.is_encoder_decoder else DynamicCache()


def uncached_logits(model, prompt, read):
    if model.is_encoder_decoder:
        ids, starts = torch.tensor([prompt]), torch.tensor([[model.start_id, *read]])
        return model.backbone(input_ids=ids, decoder_input_ids=starts, use_cache=False).logits[0, -1]
    return model.backbone(input_ids=torch.tensor([[*prompt, *read]]), use_cache=False).logits[0, -1]


def test_our_cache_is_in_use(model):
    """Full-attention layers grow by doubling; were the library's layer renamed, sampling would only be slower."""
    cache = new_cache(model)
    own = cache.self_attention_cache if model.is_encoder_decoder else cache
    assert own.layer_class_to_replicate is GrowingLayer


# ----------------------------------------------------------------------------------------------------- what a row is


def test_shapes_lengths_and_ends(model, prompts):
    """N programs a prompt; each ends with its only end of sequence or at exactly the length limit."""
    programs = sample(model, prompts, num_samples=5, config=EXACT, seed=1)
    assert [len(rows) for rows in programs] == [5] * 4
    lengths = {len(program) for rows in programs for program in rows}
    assert max(lengths) == EXACT.max_new_tokens
    assert min(lengths) < EXACT.max_new_tokens / 2
    for program in (p for rows in programs for p in rows):
        assert model.eos_id not in program[:-1]
        assert program[-1] == model.eos_id or len(program) == EXACT.max_new_tokens


def test_no_remainder_is_lost(model, prompts):
    """7 samples in batches of 3 rows: the original's floor(7 / 3) * 3 would have drawn 6."""
    config = EXACT.model_copy(update={"batch_rows": 3})
    whole = sample(model, prompts, num_samples=7, config=EXACT, seed=1)
    assert [len(rows) for rows in whole] == [7] * 4
    assert sample(model, prompts, num_samples=7, config=config, seed=1) == whole


def test_small_cache_budget_changes_no_program(model, prompts):
    config = EXACT.model_copy(update={"cache_gib": 1e-5})
    assert sample(model, prompts, num_samples=3, config=config, seed=1) == sample(
        model, prompts, num_samples=3, config=EXACT, seed=1
    )


def test_a_prompt_draws_the_same_in_any_company(model, prompts):
    """Alone, among others, in another order, or with more samples after it."""
    together = sample(model, prompts, num_samples=4, config=EXACT, seed=5)
    alone = [sample(model, [prompt], num_samples=4, config=EXACT, seed=5)[0] for prompt in prompts]
    assert alone == together
    assert sample(model, prompts[::-1], num_samples=4, config=EXACT, seed=5) == together[::-1]
    more = sample(model, prompts, num_samples=6, config=EXACT, seed=5)
    assert [rows[:4] for rows in more] == together


def test_seeds_and_equal_prompts_differ(model, prompts):
    first, again = sample(model, [prompts[0]] * 2, num_samples=4, config=EXACT, seed=5)
    (other,) = sample(model, [prompts[0]], num_samples=4, config=EXACT, seed=6)
    assert first != again
    assert first != other
    assert len(set(first)) > 1


def test_row_uniforms_are_pinned():
    """A change of the stream would change every run: this one is part of the format of a seed."""
    numbers = row_uniforms(7, [1, 2], [3], 0, 0, 1000)
    assert (numbers == row_uniforms(7, [1, 2], [3], 0, 0, 1000)).all()
    assert 0 <= numbers.min() < 0.01
    assert 0.99 < numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 4 * (1 / 12 / 1000) ** 0.5
    others = [(8, [1, 2], [3], 0, 0), (7, [1], [2, 3], 0, 0), (7, [1, 2], [3], 1, 0), (7, [1, 2], [3], 0, 1)]
    assert all((numbers[:4] != row_uniforms(*other, 4)).all() for other in others)


def test_dropout_is_off_and_the_mode_comes_back(model, prompts):
    expected = greedy(model, prompts, config=EXACT)
    model.train()
    try:
        assert greedy(model, prompts, config=EXACT) == expected
        assert model.training
    finally:
        model.eval()


# ------------------------------------------------------------------------------------------------------- prefixes


@pytest.mark.parametrize("batch_rows", [1, 256])
def test_prefixes_of_any_length_are_kept_and_continued(model, prompts, batch_rows):
    """Greedy continuation of a greedy program's own beginnings, mixed in one batch, gives the program again."""
    config = EXACT.model_copy(update={"batch_rows": batch_rows, "max_new_tokens": 20})
    whole = greedy(model, prompts, config=config)
    lengths = [0, 3, 9, 1]
    prefixes = [list(program[: min(n, len(program) - 1)]) for program, n in zip(whole, lengths, strict=True)]
    continued = greedy(model, prompts, config=config, prefixes=prefixes)
    for program, found, prefix in zip(whole, continued, prefixes, strict=True):
        assert found[: len(program)] == program
        assert found[-1] == model.eos_id or len(found) == len(prefix) + 20


def test_foreign_prefix_conditions_what_follows(model, prompts):
    """The first drawn token after a prefix the model would not have written follows the uncached distribution."""
    prefix = [100, 200, 150, 120]
    logits = uncached_logits(model, prompts[0], prefix)
    (found,) = greedy(model, prompts[:1], config=EXACT, prefixes=[prefix])
    assert found[:4] == tuple(prefix)
    assert found[4] == logits.argmax().item()


def test_prefix_draws_do_not_depend_on_longer_ones_beside_them(model, prompts):
    prefixes = [[], [100, 101, 102], [100], [99, 98, 97, 96, 95, 94]]
    together = sample(model, prompts, num_samples=3, config=EXACT, seed=4, prefixes=prefixes)
    for i in range(4):
        alone = sample(model, prompts[i : i + 1], num_samples=3, config=EXACT, seed=4, prefixes=prefixes[i : i + 1])
        assert alone == together[i : i + 1]
        assert all(list(program[: len(prefixes[i])]) == prefixes[i] for program in together[i])


# ------------------------------------------------------------------------------------------------------ the border


def test_bad_requests_are_one_line(model, prompts):
    with pytest.raises(InputError, match="prompt 1 is empty"):
        sample(model, [prompts[0], []], num_samples=1, seed=0)
    with pytest.raises(InputError, match="prefix 0 holds the end"):
        sample(model, prompts[:1], num_samples=1, seed=0, prefixes=[[5, model.eos_id]])
    with pytest.raises(InputError, match="1 prefixes for 2 prompts"):
        sample(model, prompts[:2], num_samples=1, seed=0, prefixes=[[]])


def test_more_tokens_than_positions_are_refused(prompts):
    small = tiny_llama(train_tokenizer(PROMPTS, 290, num_sentinels=5), d_model=8, num_heads=1, max_positions=30)
    with pytest.raises(InputError, match="30 positions"):
        sample(small, [[5, 6, 7]], num_samples=1, seed=0, config=SamplingConfig(max_new_tokens=28))
    assert len(greedy(small, [[5, 6, 7]], config=SamplingConfig(max_new_tokens=27))) == 1


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"max_new_tokens": 0}, {"topp": 1}])
def test_config_refuses(bad):
    with pytest.raises(ValidationError):
        SamplingConfig(**bad)


def test_no_prompts_no_programs(model):
    assert sample(model, [], num_samples=3, seed=0) == []
