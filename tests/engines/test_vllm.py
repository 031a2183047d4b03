"""vLLM behind the protocol: the real package where it is installed (slow), and what is sent to a server."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from coderl.engines.engine import Engine, Finish, Request
from coderl.engines.settings import SamplingConfig
from coderl.engines.transformers import TransformersEngine
from coderl.engines.vllm import VllmEngine
from coderl.types import InputError

REQUESTS = [Request((10, 11, 12), (), 2), Request((14, 15), (60, 61), 1)]


@pytest.fixture
def server():
    """Answers as vLLM's completions do: always the tokens 70, 71 and the end, or the answer that the test sets."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"null")
            asked.append((self.path, body))
            choice = {"token_ids": [70, 71, 2], "logprobs": {"token_logprobs": [-0.5, -0.25, 0.0]}}
            choices = [{**choice, "finish_reason": "stop"}] * (body or {}).get("n", 1)
            self.send_response(200 if asked[0][1].get("prompt") != [99] else 400)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": choices}).encode() if self.path == "/v1/completions" else b"")

        def log_message(self, *_):
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", asked
    running.shutdown()


def test_a_server_is_asked_for_tokens_and_told_of_new_weights(tiny, server):
    url, asked = server
    config = SamplingConfig(engine="vllm", vllm_url=url, temperature=0.7, top_p=0.9, max_new_tokens=8, stop=("zz",))
    model = tiny("llama")
    engine = VllmEngine(model, config)
    assert isinstance(engine, Engine)
    drawn = engine.draw(REQUESTS, config, seed=3, with_log_probs=True)
    assert [[d.tokens for d in found] for found in drawn] == [[(70, 71, 2)] * 2, [(60, 61, 70, 71, 2)]]
    assert {d.finish for found in drawn for d in found} == {Finish.END}
    assert drawn[1][0].log_probs == (-0.5, -0.25, 0.0)
    with torch.inference_mode():
        expected = model.log_probs(model.collate([(14, 15)], [drawn[1][0].tokens]))[0, 2:].tolist()
    assert drawn[1][0].model_log_probs == pytest.approx(expected, abs=1e-5)
    sent = {tuple(body["prompt"]): body for _, body in asked}
    assert set(sent) == {(10, 11, 12), (14, 15, 60, 61)}
    common = {"temperature": 0.7, "top_p": 0.9, "top_k": 0, "max_tokens": 8, "stop": ["zz"]}
    assert {k: sent[10, 11, 12][k] for k in (*common, "n")} == {**common, "n": 2}
    assert len({body["seed"] for body in sent.values()}) == 2
    asked.clear()
    engine.refresh()
    assert [path for path, _ in asked] == ["/collective_rpc", "/reset_prefix_cache"]
    assert asked[0][1]["method"] == "reload_weights"


def test_no_server_and_no_package_are_one_line(tiny, server):
    with pytest.raises(InputError, match="decoder-only"):
        VllmEngine(tiny("t5"), SamplingConfig())
    config = SamplingConfig(vllm_url=server[0])
    with pytest.raises(InputError, match="400"):
        VllmEngine(tiny("llama"), config).draw([Request((99,))], config, seed=0)
    config = SamplingConfig(vllm_url="http://127.0.0.1:9")
    with pytest.raises(InputError, match="no vLLM server answers"):
        VllmEngine(tiny("llama"), config).draw([Request((10,))], config, seed=0)


@pytest.mark.slow
def test_the_real_package_draws_what_the_model_draws(tokenizer):
    """Greedy token for token before and after new weights; samples with their log-probabilities and stops."""
    pytest.importorskip("vllm")
    from coderl.models.tiny import tiny_llama

    model = tiny_llama(tokenizer, d_model=64, num_layers=2, num_heads=2, max_positions=128)
    with torch.no_grad():
        model.backbone.get_input_embeddings().weight.mul_(3)
    config = SamplingConfig(temperature=0, max_new_tokens=8, cache_gib=0.25, batch_rows=8)
    engine, own = VllmEngine(model, config), TransformersEngine(model)
    before = own.draw(REQUESTS, config, seed=0)
    assert engine.draw(REQUESTS, config, seed=0) == before
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(0.3 * parameter.std().nan_to_num() * torch.randn_like(parameter))
    engine.refresh()
    after = own.draw(REQUESTS, config, seed=0)
    assert after != before
    assert engine.draw(REQUESTS, config, seed=0) == after
    how = config.model_copy(update={"temperature": 0.8, "top_p": 0.9})
    drawn = engine.draw(REQUESTS, how, seed=1, with_log_probs=True)
    assert [len(found) for found in drawn] == [2, 1]
    assert engine.draw(REQUESTS, how, seed=1, with_log_probs=True) == drawn
    from coderl.engines.scoring import with_log_probs_of

    exact = with_log_probs_of(model, REQUESTS, drawn, how, is_exact=True)
    for found, wanted in zip(drawn, exact, strict=True):
        for d, w in zip(found, wanted, strict=True):
            assert d.log_probs == pytest.approx(w.log_probs, abs=0.02)
    text = model.decode([before[0][0].tokens[0]]) or "a"
    stopped = engine.draw(REQUESTS, config.model_copy(update={"stop": (text,)}), seed=0)
    assert stopped == own.draw(REQUESTS, config.model_copy(update={"stop": (text,)}), seed=0)
