"""Beam search against a search of everything, for both families."""

import pytest
import torch

from coderl.engines.beam import beam_search
from coderl.engines.settings import SamplingConfig
from coderl.engines.transformers import greedy
from coderl.models import tiny as tiny_models
from coderl.models.lm import LanguageModel


@pytest.fixture(scope="module", params=["t5", "llama"])
def model(request) -> LanguageModel:
    tokenizer = tiny_models.train_tokenizer(["print(1)\n"], 262, num_sentinels=1)
    make, scale = {"t5": (tiny_models.tiny_t5, 0.3), "llama": (tiny_models.tiny_llama, 6.0)}[request.param]
    made = make(tokenizer, d_model=16, num_layers=1, num_heads=2, seed=4)
    with torch.no_grad():
        made.backbone.get_input_embeddings().weight.mul_(scale)  # probabilities that differ, but not too much
    return made


PROMPTS = [[70, 71, 72, 2], [80, 2], [90, 91, 2]]


def best_of_all(model: LanguageModel, prompt: list[int]) -> tuple[float, tuple[int, ...]]:
    """The best mean log-probability of all programs of two tokens, and of the end alone, by brute force."""
    num_tokens, end = model.vocab_size, model.eos_id
    with torch.inference_mode():
        batch = model.collate([prompt] * num_tokens, [(i, 0) for i in range(num_tokens)])
        logits = model.read(batch, with_logits=True).logits
    assert logits is not None
    log_probs = logits.log_softmax(-1)
    both = (log_probs[0, 0].unsqueeze(1) + log_probs[:, 1]) / 2
    both[end] = -torch.inf
    score, place = both.flatten().max(0)
    alone = log_probs[0, 0, end].item()
    return max((score.item(), divmod(int(place), num_tokens)), (alone, (end,)))


def test_as_many_beams_as_tokens_search_everything(model):
    """With every first token kept, nothing of two tokens can be missed."""
    prompt = PROMPTS[0]
    (found,) = beam_search(model, [prompt], num_beams=model.vocab_size, max_new_tokens=2, batch_rows=model.vocab_size)
    score, wanted = best_of_all(model, prompt)
    batch = model.collate([prompt], [found])
    with torch.inference_mode():
        assert model.log_probs(batch).mean().item() == pytest.approx(score, abs=1e-5)
    assert found == wanted


def test_one_beam_is_greedy_and_batches_change_nothing(model):
    wanted = greedy(model, PROMPTS, config=SamplingConfig(max_new_tokens=6))
    assert beam_search(model, PROMPTS, num_beams=1, max_new_tokens=6) == wanted
    together = beam_search(model, PROMPTS, num_beams=3, max_new_tokens=6)
    assert together == [beam_search(model, [p], num_beams=3, max_new_tokens=6)[0] for p in PROMPTS]


def test_more_beams_find_likelier_programs(model):
    def likelihood(programs):
        batch = model.collate(PROMPTS, programs)
        with torch.inference_mode():
            return (model.log_probs(batch).sum(1) / batch.program_mask.sum(1)).mean().item()

    narrow, broad = (beam_search(model, PROMPTS, num_beams=n, max_new_tokens=4) for n in (1, 40))
    assert likelihood(broad) > likelihood(narrow)
