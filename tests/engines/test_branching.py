"""Greedy programs from many beginnings: the same as one at a time, and no token is read twice."""

import numpy as np
import pytest
import torch

from coderl.engines.branching import GreedyWriter
from coderl.engines.settings import SamplingConfig
from coderl.engines.transformers import greedy
from coderl.models.lm import LanguageModel
from coderl.models.tiny import tiny_llama, tiny_t5, train_tokenizer
from coderl.types import InputError

PROMPTS = ["Print n.\n", "Read n and print the sum of the first n numbers.\n", "Sort.\n", "Reverse the list.\n"]
LONGEST = 14
CONFIG = SamplingConfig(max_new_tokens=LONGEST)


@pytest.fixture(scope="module", params=["t5", "llama"])
def model(request) -> LanguageModel:
    """A model of random weights whose programs are of many lengths."""
    tokenizer = train_tokenizer(PROMPTS, 290, num_sentinels=5)
    made = {"t5": tiny_t5, "llama": tiny_llama}[request.param](tokenizer, d_model=32, num_layers=2, num_heads=2, seed=3)
    with torch.no_grad():
        made.backbone.get_input_embeddings().weight.mul_({"t5": 2, "llama": 4}[request.param])
    ends_sometimes = torch.zeros(made.vocab_size)
    ends_sometimes[made.eos_id] = {"t5": 8.0, "llama": 2.0}[request.param]
    made.backbone.get_output_embeddings().register_forward_hook(lambda _m, _i, logits: logits + ends_sometimes)
    return made


@pytest.fixture(scope="module")
def prompts(model) -> list[list[int]]:
    return [model.encode_prompt(text) for text in PROMPTS]


@pytest.fixture(scope="module")
def jobs(model, prompts) -> list[tuple[list[int], tuple[int, ...]]]:
    """Beginnings of 0 to 9 random tokens for each prompt, in no order of length."""
    rng = np.random.default_rng(0)
    lengths = rng.permutation([n for n in range(10) for _ in range(4)])
    return [(prompts[i % 4], tuple(rng.integers(10, 280, size=n).tolist())) for i, n in enumerate(lengths)]


@pytest.fixture(scope="module")
def alone(model, jobs) -> list[tuple[int, ...]]:
    """Each program by the engine that draws them, one at a time."""
    most = [CONFIG.model_copy(update={"max_new_tokens": LONGEST - len(beginning)}) for _, beginning in jobs]
    return [greedy(model, [p], config=c, prefixes=[b])[0] for (p, b), c in zip(jobs, most, strict=True)]


def written(model, jobs, **options):
    config = CONFIG.model_copy(update={"batch_rows": options.pop("batch_rows", 256)})
    return GreedyWriter(model, config, num_likeliest=3, **options).write(*zip(*jobs, strict=True))


def test_the_programs_of_the_fixture_are_of_many_lengths(alone):
    assert len({len(tokens) for tokens in alone}) >= 5


@pytest.mark.parametrize("batch_rows", [256, 5, 1])
def test_programs_are_those_of_one_at_a_time_whatever_shares_the_batch(model, jobs, alone, batch_rows):
    """Rows of unequal length side by side, and with few rows each taking on one beginning after the other."""
    assert [found.tokens for found in written(model, jobs, batch_rows=batch_rows)] == alone


def test_the_log_probabilities_are_those_of_training(model, jobs):
    """Of the token written, and of the next likeliest by the logits of the whole program read at once."""
    for (prompt, beginning), found in zip(jobs, written(model, jobs, batch_rows=7), strict=True):
        num = len(found.tokens) - len(beginning)
        assert found.likeliest.shape == found.log_probs.shape == (num, 3)
        assert found.likeliest[:, 0].tolist() == list(found.tokens[len(beginning) :])
        if not num:
            continue
        batch = model.collate([prompt], [found.tokens])
        with torch.inference_mode():
            logits = model.read(batch, with_logits=True).logits
        assert logits is not None
        logs, ids = logits[0, -num:].log_softmax(-1).topk(3)
        np.testing.assert_allclose(found.log_probs, logs.numpy(), atol=1e-4)
        is_clear = (logs[:, :-1] - logs[:, 1:] > 1e-3).all(1).numpy()
        assert (found.likeliest == ids.numpy())[is_clear].all()


def test_branches_of_what_was_written_are_those_of_one_at_a_time(model, jobs):
    """Twice: branches of some programs, then branches of those."""
    writer = GreedyWriter(model, CONFIG.model_copy(update={"batch_rows": 6}), num_likeliest=3)
    for _ in range(2):
        jobs = jobs[:12]
        found = writer.write(*zip(*jobs, strict=True))
        jobs = [
            (prompt, (*each.tokens[: len(beginning) + at], int(each.likeliest[at, 1])))
            for (prompt, beginning), each in zip(jobs, found, strict=True)
            for at in range(0, len(each.likeliest), 3)
        ]
        jobs = [(prompt, beginning) for prompt, beginning in jobs if model.eos_id not in beginning]
        fresh = [written(model, [job])[0] for job in jobs]
        again = writer.write(*zip(*jobs, strict=True))
        assert [each.tokens for each in again] == [each.tokens for each in fresh]


def test_a_branch_reads_its_own_tokens_only(model, prompts):
    """The second call runs the decoder on one token a step: as many as it draws; a forgetful writer reads more."""
    counts = []
    decoder = model.backbone.get_decoder()
    handle = decoder.register_forward_pre_hook(
        lambda _m, _a, given: counts.append(given["input_ids"].numel()), with_kwargs=True
    )
    for memory, is_kept in ((1.0, True), (1e-12, False)):
        writer = GreedyWriter(model, CONFIG, num_likeliest=3, memory_gib=memory)
        program, other = (writer.write([p], [(40, 50, 60, 70, 80)])[0] for p in prompts[:2])
        assert min(len(program.tokens), len(other.tokens)) > 5
        counts.clear()
        branch = writer.write([prompts[0]], [(*program.tokens[:4], 90)])[0]
        num_drawn = len(branch.tokens) - 5
        assert (sum(counts) == num_drawn) == is_kept
        assert sum(counts) >= num_drawn
    handle.remove()


def test_a_beginning_that_has_ended_or_is_full_is_returned_as_it_is(model, prompts):
    full = tuple(range(20, 20 + LONGEST))
    found = written(model, [(prompts[0], (30, model.eos_id)), (prompts[1], full)])
    assert [each.tokens for each in found] == [(30, model.eos_id), full]
    assert [each.likeliest.shape for each in found] == [(0, 3), (0, 3)]
    assert written(model, [(prompts[0], (30, model.eos_id))])[0].tokens == (30, model.eos_id)


def test_a_stop_text_ends_a_program_where_it_is_complete(model, jobs, alone):
    """The text is that of the second token which some program has after its beginning."""
    at, long = next((len(b), t) for (_, b), t in zip(jobs, alone, strict=True) if len(t) - len(b) > 2)
    text = model.decode(long[at + 1 : at + 2])
    assert text
    config = CONFIG.model_copy(update={"stop": (text,), "batch_rows": 5})
    found = GreedyWriter(model, config, num_likeliest=2).write(*zip(*jobs, strict=True))
    cut = 0
    for (_, beginning), whole, each in zip(jobs, alone, found, strict=True):
        ends = [n for n in range(len(whole) + 1) if text in model.decode(whole[:n])]
        want = whole[: max(ends[0], len(beginning))] if ends else whole
        assert each.tokens == want
        cut += len(want) < len(whole)
    assert cut


def test_what_cannot_be_written_is_refused(model, prompts):
    with pytest.raises(InputError, match="a prompt is empty"):
        written(model, [([], ())])
    if not model.is_encoder_decoder:
        long = CONFIG.model_copy(update={"max_new_tokens": 3000})
        with pytest.raises(InputError, match="more than 2048 positions"):
            GreedyWriter(model, long, num_likeliest=2).write(prompts[:1], [()])


def test_an_encoder_decoder_of_absolute_positions_is_refused(tiny):
    model = tiny("llama")
    model.is_encoder_decoder = True
    with pytest.raises(InputError, match="only a T5 can be branched from"):
        GreedyWriter(model, num_likeliest=2)
