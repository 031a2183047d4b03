"""What engines tell of the tokens they drew, against the model's own forward pass."""

import math

import pytest
import torch

from coderl.engines.engine import Engine, Finish, Request
from coderl.engines.settings import SamplingConfig
from coderl.engines.transformers import TransformersEngine


@pytest.fixture(scope="module", params=["t5", "llama"])
def model(request, tokenizer):
    from coderl.models import tiny as tiny_models

    make, scale = {"t5": (tiny_models.tiny_t5, 1.0), "llama": (tiny_models.tiny_llama, 20.0)}[request.param]
    made = make(tokenizer, d_model=16, num_layers=2, num_heads=2)
    with torch.no_grad():
        made.backbone.get_input_embeddings().weight.mul_(scale)  # probabilities that differ
    return made


REQUESTS = [Request((10, 11, 12), (), 3), Request((13, 14), (60, 61), 2), Request((15,), (62,), 1)]


def softmaxes(model, request, drawn):
    """The model's distribution before each drawn token, from one pass without a cache."""
    batch = model.collate([request.prompt], [drawn.tokens])
    with torch.inference_mode():
        logits = model.read(batch, with_logits=True).logits[0, drawn.num_prefix_tokens :]
    return logits.double()


@pytest.mark.parametrize(
    "how", [{}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.8}, {"temperature": 1.3, "top_k": 20, "top_p": 0.9}]
)
def test_log_probs_are_those_of_the_distribution_that_was_drawn_from(model, how):
    """Softmax after the temperature, cut and renormalised by hand over a sorted list; and the model's own beside it."""
    config = SamplingConfig(**{"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 9, **how})
    found = TransformersEngine(model).draw(REQUESTS, config, seed=1, with_log_probs=True, with_entropies=True)
    for request, programs in zip(REQUESTS, found, strict=True):
        assert len(programs) == request.num_samples
        for drawn in programs:
            assert drawn.tokens[: len(request.prefix)] == request.prefix
            logits = softmaxes(model, request, drawn)
            own = logits.log_softmax(-1)
            for t, token in enumerate(drawn.drawn_tokens):
                probs = sorted(((logits[t] / config.temperature).softmax(-1)).tolist(), reverse=True)
                probs = probs[: config.top_k or None]
                total, mass, kept = sum(probs), 0.0, 0.0
                for prob in probs:
                    kept += prob
                    mass += prob / total
                    if mass >= config.top_p:
                        break
                expected = (logits[t] / config.temperature).log_softmax(-1)[token].item() - math.log(kept)
                assert drawn.log_probs[t] == pytest.approx(expected, abs=2e-3)
                assert drawn.model_log_probs[t] == pytest.approx(own[t, token].item(), abs=2e-3)
                assert drawn.entropies[t] == pytest.approx(-(own[t].exp() * own[t]).sum().item(), abs=2e-3)


def test_it_is_an_engine_that_tells_only_what_is_asked(model):
    engine = TransformersEngine(model)
    assert isinstance(engine, Engine)
    config = SamplingConfig(max_new_tokens=4)
    ((drawn,),) = engine.draw([Request((10,))], config, seed=0)
    assert (drawn.log_probs, drawn.model_log_probs, drawn.entropies) == (None, None, None)
    assert drawn.finish in (Finish.END, Finish.LENGTH)
    assert engine.draw([], config, seed=0) == []
    assert engine.draw([Request((10,), (), 0)], config, seed=0) == [[]]


def test_greedy_log_probs(model):
    """The likeliest token alone is drawn from: probability 1 there, the model's own beside it."""
    config = SamplingConfig(temperature=0, max_new_tokens=4)
    ((drawn, again),) = TransformersEngine(model).draw([Request((10,), (), 2)], config, seed=0, with_log_probs=True)
    assert drawn == again
    assert set(drawn.log_probs) == {0.0}
    own = softmaxes(model, Request((10,)), drawn).log_softmax(-1).max(-1).values.tolist()
    assert drawn.model_log_probs == pytest.approx(own, abs=1e-3)
