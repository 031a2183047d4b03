"""Rows that share slots, one after the other, draw what they would draw alone; the GPU's way of doing so, on a CPU."""

import pytest
import torch

from coderl.engines import slots as slots_module
from coderl.engines.decoding import Decoder
from coderl.engines.drawing import draw_scored
from coderl.engines.engine import Request
from coderl.engines.settings import SamplingConfig
from coderl.engines.slots import ContinuousBatch, GraphReplay, Slots, fits_slots
from coderl.engines.tape import Wanted
from coderl.engines.transformers import TransformersEngine, rows_of

REQUESTS = [
    Request(tuple(range(10, 10 + n)), tuple(range(60, 60 + m)), k) for n, m, k in [(3, 0, 4), (9, 2, 1), (5, 7, 6)]
]
EXACT = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=30)


@pytest.fixture(scope="module")
def model(tokenizer):
    from coderl.models.tiny import tiny_llama

    made = tiny_llama(tokenizer, d_model=16, num_layers=2, num_heads=2)
    with torch.no_grad():
        made.backbone.get_input_embeddings().weight.mul_(20)
    ends_sometimes = torch.zeros(made.vocab_size)
    ends_sometimes[made.eos_id] = 4.0
    made.backbone.get_output_embeddings().register_forward_hook(lambda _m, _i, logits: logits + ends_sometimes)
    return made


@pytest.fixture(scope="module")
def alone(model):
    """Every request drawn by itself, one row at a time."""
    one = EXACT.model_copy(update={"batch_rows": 1})
    return [TransformersEngine(model).draw([request], one, seed=1)[0] for request in REQUESTS]


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("batch_rows", [2, 5, 64])
def test_rows_that_refill_a_batch_draw_what_they_draw_alone(model, alone, waits, batch_rows, monkeypatch):
    """Eleven programs of unequal prompts and prefixes through 2, 5 or 11 slots, looked at every step or every 16."""
    monkeypatch.setattr(slots_module, "READ_TOKENS", 20)
    engine = TransformersEngine(model)
    engine.waits = waits
    config = EXACT.model_copy(update={"batch_rows": batch_rows, "top_p": 1.0})
    assert engine.draw(REQUESTS, config, seed=1) == alone
    lengths = {len(drawn.drawn_tokens) for found in alone for drawn in found}
    assert max(lengths) > min(lengths) + 16  # some outlast others by more than one look


def test_slots_give_the_logits_of_the_decoder(model):
    """Rows at positions of their own against the padded batch, 70 tokens on, over a longer length."""
    prompts = [(10, 11, 12), (20, 21, 22, 23, 24), (30,)]
    tokens = torch.randint(60, 280, (3, 70), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        decoder = Decoder(model, prompts, [()] * 3)
        slots = Slots(model, 3, 128)
        slots.put([2, 0, 1], decoder, [0, 1, 2], [3, 5, 1])
        order = torch.tensor([1, 2, 0])
        for step in range(70):
            torch.testing.assert_close(slots.logits, decoder.logits[order], atol=1e-4, rtol=1e-4)
            slots.length = 64 if step < 50 else 128
            slots.read(tokens[order, step])
            decoder.step(tokens[:, step])


def test_which_models_fit(tiny):
    assert fits_slots(tiny("llama"), 100)
    assert not fits_slots(tiny("t5"), 100)
    windowed = tiny("llama")
    windowed.backbone.config.sliding_window = 50
    windowed.backbone.config.layer_types = ["sliding_attention"]
    assert (fits_slots(windowed, 50), fits_slots(windowed, 51)) == (True, False)


class Recorded(GraphReplay):
    """What a GPU does, but for the recording: on a processor the step itself is replayed."""

    def _warm_up(self, stream):
        self.step()

    def _record(self, length):
        self.graphs[length] = self
        self.replay()

    def replay(self):
        self.num_replays = getattr(self, "num_replays", 0) + 1
        self.step()


def test_a_step_is_the_same_whether_it_is_done_or_replayed(model, alone, monkeypatch):
    """Graphs are kept by length and forgotten with the places they were recorded on."""
    monkeypatch.setattr(slots_module, "LENGTH_STEP", 8)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    wanted = Wanted(EXACT, waits=False)
    with torch.inference_mode():
        batch = ContinuousBatch(model, rows_of(REQUESTS, 1), 4, wanted)
        batch.replay = Recorded(batch._advance)
        drawn = {(row.request, row.sample): program for row, program in batch.run()}
    assert [[drawn[i, j] for j in range(len(found))] for i, found in enumerate(alone)] == alone
    assert batch.replay.num_replays > 20
    assert batch.replay.graphs == {}


def test_without_graphs_drawing_goes_on(model, alone, monkeypatch, caplog):
    """A recording that fails is said once, and changes no program."""

    class Failing(GraphReplay):
        def _warm_up(self, stream):
            self.step()

    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    with torch.inference_mode():
        batch = ContinuousBatch(model, rows_of(REQUESTS, 1), 11, Wanted(EXACT, waits=False))
        batch.replay = Failing(batch._advance)
        drawn = {(row.request, row.sample): program for row, program in batch.run()}
    assert [[drawn[i, j] for j in range(len(found))] for i, found in enumerate(alone)] == alone
    assert caplog.text.count("without CUDA graphs") == 1


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.4), (1.0, 0.7), (0.5, 0.9), (1.0, 0.93)])
def test_without_waiting_the_nucleus_is_the_same(temperature, top_p):
    """Shares of evenly spaced uniform numbers, against the nucleus by a sort; a flat and a sharp row."""
    logits = torch.stack([torch.tensor([0.5, 0.3, 0.15, 0.05]).log(), torch.tensor([0.0, 9.0, -torch.inf, -40.0])])
    num = 1000
    uniforms = ((torch.arange(num) + 0.5) / num).repeat_interleave(2)
    how = {"temperature": temperature, "top_p": top_p}
    sorted_, halved = (draw_scored(logits.repeat(num, 1), uniforms, **how, waits=w) for w in (True, False))
    for row in (0, 1):
        counts = [torch.bincount(found.tokens[row::2], minlength=4) for found in (sorted_, halved)]
        assert (counts[0] - counts[1]).abs().max() <= 1
        by_token = dict(zip(sorted_.tokens[row::2].tolist(), sorted_.log_probs[row::2].tolist(), strict=True))
        for token, log_prob in zip(halved.tokens[row::2].tolist(), halved.log_probs[row::2].tolist(), strict=True):
            assert log_prob == pytest.approx(by_token[token], abs=1e-5)
