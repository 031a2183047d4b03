"""The converted copy draws what the model would draw: greedy token for token, samples by their frequencies."""

from collections import Counter

import pytest
import torch

from coderl.engines.engine import Engine, Finish, Request, fastest_engine, open_engine
from coderl.engines.settings import SamplingConfig
from coderl.engines.transformers import TransformersEngine
from coderl.types import InputError

from .families import FAMILIES, tiny_of

ctranslate2 = pytest.importorskip("ctranslate2")
from coderl.engines.ctranslate2 import CTranslate2Engine  # noqa: E402

REQUESTS = [Request((10, 11, 12, 13), (), 2), Request((14, 15), (60, 61), 1), Request((20, 21, 22), (62,), 3)]
GREEDY = SamplingConfig(temperature=0, max_new_tokens=12)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tokenizer):
    return tiny_of(request.param, tokenizer)


def test_greedy_is_that_of_the_model_and_follows_its_weights(model):
    """Before and after a change of the weights, which `refresh` takes over; the model itself stays whole."""
    engine = CTranslate2Engine(model)
    assert isinstance(engine, Engine)
    own = TransformersEngine(model)
    before = own.draw(REQUESTS, GREEDY, seed=0)
    assert engine.draw(REQUESTS, GREEDY, seed=0) == before
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(parameter.std() * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    engine.refresh()
    after = own.draw(REQUESTS, GREEDY, seed=0)
    assert engine.draw(REQUESTS, GREEDY, seed=0) == after != before


def test_stops_end_rows_where_they_are_complete(model):
    """What greedy draws, cut at its fourth token's text, with prompts and prefixes of unequal lengths side by side."""
    whole = TransformersEngine(model).draw(REQUESTS, GREEDY, seed=0)
    texts = {model.decode([found[0].drawn_tokens[3]]) for found in whole} - {""}
    config = GREEDY.model_copy(update={"stop": tuple(sorted(texts))})
    assert CTranslate2Engine(model).draw(REQUESTS, config, seed=0) == TransformersEngine(model).draw(
        REQUESTS, config, seed=0
    )


@pytest.mark.parametrize("how", [{}, {"temperature": 0.7, "top_p": 0.8}, {"top_k": 3, "stop": ("zzz",)}])
def test_first_tokens_come_as_often_as_they_should(tokenizer, how):
    """1000 samples within 4.5 standard errors of the model's own distribution, cut as asked; and what is told of it."""
    model = tiny_of("T5", tokenizer)
    config = SamplingConfig(**{"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 1, **how})
    num, request = 1000, Request((10, 11, 12), (60,), 1000)
    (drawn,) = CTranslate2Engine(model).draw([request], config, seed=3, with_log_probs=True)
    counts = Counter(d.drawn_tokens for d in drawn)
    told = {d.drawn_tokens: d.log_probs[0] for d in drawn}
    (reference,) = TransformersEngine(model).draw([request], config, seed=5, with_log_probs=True)
    expected = {d.drawn_tokens: d.log_probs[0] for d in reference}
    for token, log_prob in expected.items():
        prob = torch.tensor(log_prob).exp().item()
        if prob < 0.01:
            continue
        assert counts[token] / num == pytest.approx(prob, abs=4.5 * (prob * (1 - prob) / num) ** 0.5)
    assert {t: told[t] for t in expected if t in told} == pytest.approx(
        {t: expected[t] for t in expected if t in told}, abs=1e-3
    )
    own = {d.drawn_tokens: d.model_log_probs[0] for d in reference}
    assert {d.drawn_tokens: d.model_log_probs[0] for d in drawn if d.drawn_tokens in own} == pytest.approx(
        {t: own[t] for t in own if t in told}, abs=1e-3
    )


def test_samples_are_in_no_order_and_follow_the_seed(model):
    config = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=6)
    requests = [Request((10, 11), (), 12), Request((12,), (60,), 3)]
    engine = CTranslate2Engine(model)
    first = engine.draw(requests, config, seed=1, with_log_probs=True)
    assert engine.draw(requests, config, seed=1, with_log_probs=True) == first
    assert engine.draw(requests, config, seed=2, with_log_probs=True) != first
    means = [sum(d.log_probs) / len(d.log_probs) for d in first[0]]
    assert means != sorted(means, reverse=True)  # the library hands them out best first
    assert {d.finish for found in first for d in found} <= {Finish.END, Finish.LENGTH}
    assert [len(found) for found in first] == [12, 3]


def test_a_quantised_copy_tells_the_models_own_log_probs(tokenizer):
    """What it draws is not what the model would: no `log_probs`, and `model_log_probs` from the model's pass."""
    model = tiny_of("T5", tokenizer)
    config = SamplingConfig(temperature=1.0, engine="ctranslate2", quantise="int8", max_new_tokens=5)
    engine = open_engine(model, config)
    assert engine.compute_type == "int8"
    ((drawn,),) = engine.draw([Request((10, 11))], config, seed=0, with_log_probs=True, with_entropies=True)
    batch = model.collate([(10, 11)], [drawn.tokens])
    with torch.inference_mode():
        expected = model.log_probs(batch)[0].tolist()
    assert drawn.log_probs is None
    assert drawn.model_log_probs == pytest.approx(expected, abs=1e-4)
    assert len(drawn.entropies) == len(drawn.tokens)


def test_adapters_are_merged(tokenizer):
    """What LoRA has learnt is in the converted copy."""
    pytest.importorskip("peft")
    from coderl.models.settings import LoraConfig

    model = tiny_of("Llama", tokenizer).adapt(LoraConfig(rank=2))
    with torch.no_grad():
        for name, parameter in model.backbone.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5)
    assert CTranslate2Engine(model).draw(REQUESTS, GREEDY, seed=0) == TransformersEngine(model).draw(
        REQUESTS, GREEDY, seed=0
    )


def test_auto_takes_what_is_measured_to_be_fastest(tokenizer):
    assert fastest_engine(tiny_of("T5", tokenizer)) == "ctranslate2"


def test_unknown_families_are_refused(tokenizer, monkeypatch):
    monkeypatch.setattr("coderl.engines.ctranslate2._loaders", dict)
    with pytest.raises(InputError, match="does not know T5Config"):
        CTranslate2Engine(tiny_of("T5", tokenizer))
