"""Drawing by vLLM, for decoder-only models: in this process, or by a server that has the same model.

Log-probabilities of drawn tokens are vLLM's own, of the distribution it drew from; `model_log_probs` are the language
model's, from one forward pass over what was drawn. Same weights, seed and requests draw the same programs as far as
vLLM's arithmetic repeats itself, which its batches do not promise.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from coderl.engines.engine import Drawn, Finish, Request
from coderl.engines.scoring import with_log_probs_of
from coderl.engines.settings import SamplingConfig
from coderl.engines.stops import stop_table
from coderl.engines.transformers import refuse_bad
from coderl.models import lora
from coderl.models.lm import LanguageModel
from coderl.types import InputError

GPU_SHARE = 0.45
"""Of the GPU's memory, which the language model itself needs too."""
SERVER_TIMEOUT_S = 3600


class Completion(NamedTuple):
    """What vLLM wrote for a prompt."""

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    is_cut: bool


@runtime_checkable
class Worker(Protocol):
    """vLLM in this process, or a server."""

    def complete(self, prompts: Sequence[Sequence[int]], how: Sequence[dict[str, Any]]) -> list[list[Completion]]:
        """Return the completions of each prompt."""
        ...

    def reload(self, folder: Path) -> None:
        """Take over the weights of a model folder."""
        ...


class VllmEngine:
    """Draws with vLLM's copy of the language model's weights."""

    name = "vllm"

    def __init__(self, model: LanguageModel, config: SamplingConfig):
        """Take a model; vLLM itself starts with the first draw.

        Raises:
            InputError: the model is an encoder-decoder, which vLLM does not draw from, or the package is missing.
        """
        if model.is_encoder_decoder:
            raise InputError("engine = 'vllm' draws from decoder-only models: take 'transformers' or 'ctranslate2'")
        if config.vllm_url is None and importlib.util.find_spec("vllm") is None:
            raise InputError("engine = 'vllm' needs its package (pip install 'coderl[vllm]') or vllm_url, a server's")
        self.model, self.config = model, config
        self._worker: Worker | None = None

    def refresh(self) -> None:
        """Hand the language model's weights to vLLM, which goes on running; a server must see this machine's files."""
        if self._worker is not None:
            with tempfile.TemporaryDirectory(prefix="coderl-vllm-") as folder:
                self._worker.reload(_saved(self.model, Path(folder) / "model"))

    def draw(
        self,
        requests: Sequence[Request],
        config: SamplingConfig,
        *,
        seed: int,
        with_log_probs: bool = False,
        with_entropies: bool = False,
    ) -> list[list[Drawn]]:
        """Return the programs of each request, see `Engine.draw`.

        Raises:
            InputError: an empty prompt, a prefix that has already ended, or more tokens than the model has positions.
        """
        refuse_bad(self.model, requests, config)
        table = stop_table(self.model, config.stop) if config.stop else None
        found: list[list[Drawn]] = [[] for _ in requests]
        asked: list[int] = []
        for place, request in enumerate(requests):
            if table is not None and table.end(request.prefix) is not None:
                ended = Drawn(request.prefix, len(request.prefix), Finish.STOP, () if with_log_probs else None)
                found[place] = [ended] * request.num_samples
            elif request.num_samples:
                asked.append(place)
        if asked:
            prompts = [(*requests[i].prompt, *requests[i].prefix) for i in asked]
            how = [_how(requests[i], config, seed + requests[i].stream, i) for i in asked]
            for place, written in zip(asked, self._open().complete(prompts, how), strict=True):
                request = requests[place]
                rows = [self._ended(request, c, config, tells=with_log_probs) for c in written]
                found[place] = rows * (request.num_samples // len(rows))
        if not (with_log_probs or with_entropies):
            return found
        scored = with_log_probs_of(self.model, requests, found, config, has_entropies=with_entropies)
        return [
            [replace(s, log_probs=d.log_probs) for s, d in zip(new, old, strict=True)]
            for new, old in zip(scored, found, strict=True)
        ]

    def _open(self) -> Worker:
        if self._worker is None:
            self._worker = Server(self.config.vllm_url) if self.config.vllm_url else InProcess(self.model, self.config)
        return self._worker

    def _ended(self, request: Request, written: Completion, config: SamplingConfig, *, tells: bool) -> Drawn:
        """Return a completion as a program, cut where our own reading of the stop texts ends it."""
        tokens = (*request.prefix, *written.tokens)
        table = stop_table(self.model, config.stop) if config.stop else None
        end = table.end(tokens, len(request.prefix)) if table is not None else None
        ended = Finish.END if tokens[-1:] == (self.model.eos_id,) else Finish.LENGTH
        kept = tokens[:end]
        log_probs = written.log_probs[: len(kept) - len(request.prefix)] if tells else None
        return Drawn(kept, len(request.prefix), ended if end is None else Finish.STOP, log_probs)


def _how(request: Request, config: SamplingConfig, seed: int, place: int) -> dict[str, Any]:
    """Return a request's sampling parameters; of a greedy one a single program."""
    return {
        "n": 1 if config.temperature == 0 else request.num_samples,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
        "max_tokens": config.max_new_tokens,
        "stop": list(config.stop or ()),
        "include_stop_str_in_output": True,
        "seed": (seed * 1_000_003 + place * 100_003) % 2**31,
        "logprobs": 0,
    }


def _saved(model: LanguageModel, folder: Path) -> Path:
    """Return the folder with the model's weights, adapters merged."""
    state = None if model.lora is None else lora.merged_state(model.backbone)
    model.backbone.save_pretrained(folder, state_dict=state)
    model.tokenizer.save_pretrained(folder)
    return folder


class InProcess:
    """vLLM in this process, beside the language model."""

    def __init__(self, model: LanguageModel, config: SamplingConfig):
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        library: Any = importlib.import_module("vllm")
        room: dict[str, Any] = (
            {} if config.cache_gib is None else {"kv_cache_memory_bytes": int(config.cache_gib * 2**30)}
        )
        if torch.cuda.is_available() and not room:
            room = {"gpu_memory_utilization": GPU_SHARE}
        with tempfile.TemporaryDirectory(prefix="coderl-vllm-") as folder:
            self.engine = library.LLM(
                model=str(_saved(model, Path(folder) / "model")),
                dtype=str(model.backbone.dtype).removeprefix("torch."),
                max_model_len=getattr(model.backbone.config, "max_position_embeddings", None),
                max_num_seqs=config.batch_rows or (1024 if torch.cuda.is_available() else 256),
                enforce_eager=not torch.cuda.is_available(),
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                seed=0,
                **room,
            )
        self.parameters = library.SamplingParams

    def complete(self, prompts: Sequence[Sequence[int]], how: Sequence[dict[str, Any]]) -> list[list[Completion]]:
        """Return the completions of each prompt."""
        given = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        answers = self.engine.generate(given, [self.parameters(**h) for h in how], use_tqdm=False)
        return [
            [
                Completion(
                    tuple(written.token_ids),
                    tuple(at[token].logprob for token, at in zip(written.token_ids, written.logprobs, strict=True)),
                    written.finish_reason == "length",
                )
                for written in answer.outputs
            ]
            for answer in answers
        ]

    def reload(self, folder: Path) -> None:
        """Take over the weights of a model folder."""
        self.engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        self.engine.reset_prefix_cache()


class Server:
    """A vLLM server, `vllm serve MODEL --logprobs-mode processed_logprobs`, asked by HTTP."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")

    def complete(self, prompts: Sequence[Sequence[int]], how: Sequence[dict[str, Any]]) -> list[list[Completion]]:
        """Return the completions of each prompt; prompts of like settings go in one call.

        Raises:
            InputError: the server cannot be reached, or refuses.
        """
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(max_workers=64) as pool:
            return list(pool.map(self._one, prompts, how))

    def _one(self, prompt: Sequence[int], how: dict[str, Any]) -> list[Completion]:
        asked = {**how, "prompt": list(prompt), "logprobs": 1, "return_token_ids": True}
        answer = self._post("/v1/completions", asked)
        return [
            Completion(
                tuple(written["token_ids"]),
                tuple(written["logprobs"]["token_logprobs"]),
                written["finish_reason"] == "length",
            )
            for written in answer["choices"]
        ]

    def reload(self, folder: Path) -> None:
        """Take over the weights of a model folder; the server must run with VLLM_SERVER_DEV_MODE=1.

        Raises:
            InputError: the server cannot be reached, or refuses.
        """
        self._post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})
        self._post("/reset_prefix_cache", None)

    def _post(self, path: str, body: Any) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=SERVER_TIMEOUT_S) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise InputError(f"{self.url}{path}: {error.code} {error.read()[:300].decode(errors='replace')}") from None
        except (urllib.error.URLError, OSError) as error:
            raise InputError(f"{self.url}{path}: no vLLM server answers ({error})") from None
        return json.loads(text) if text.strip() else None
