"""Drawing by CTranslate2: T5, CodeT5, Llama, Qwen2, StarCoder2 and their like, on processors and GPUs, in int8 too.

The model's weights are converted in memory, again after each `refresh`. Log-probabilities are the language model's own,
from one forward pass over what was drawn: those of a quantised engine are never trusted.

Same weights, seed and requests draw the same programs. Unlike with `transformers`, what a prompt draws depends on the
requests beside it, and a prefix of the samples is not what fewer samples would have been.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import io
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from coderl.engines.engine import Drawn, Finish, Request
from coderl.engines.scoring import with_log_probs_of
from coderl.engines.settings import SamplingConfig
from coderl.engines.stops import FOUND, StopTable, stop_table
from coderl.engines.transformers import refuse_bad
from coderl.models.lm import LanguageModel
from coderl.types import InputError

ROWS = 256
"""Programs side by side; not `batch_rows`, because here a row does depend on those beside it."""


def is_installed() -> bool:
    """Return whether the package is there."""
    return importlib.util.find_spec("ctranslate2") is not None


def knows(model: LanguageModel) -> bool:
    """Return whether the installed package converts models of this family."""
    return is_installed() and type(model.backbone.config).__name__ in _loaders()


class CTranslate2Engine:
    """Draws with a converted copy of the language model's weights."""

    name = "ctranslate2"

    def __init__(self, model: LanguageModel, *, compute_type: str | None = None):
        """Take a model's weights, rounded to `compute_type`; None for the model's own type.

        Raises:
            InputError: the package is missing or does not know the model's family.
        """
        if not is_installed():
            raise InputError("engine = 'ctranslate2' needs its package: pip install 'coderl[ctranslate2]'")
        family = type(model.backbone.config).__name__
        if family not in _loaders():
            raise InputError(f"engine = 'ctranslate2' does not know {family}: take engine = 'transformers'")
        self.model = model
        self.compute_type = compute_type or _compute_type(model)
        self._files: dict[str, bytes] | None = None
        self._names: list[str] = []

    def refresh(self) -> None:
        """Convert the weights anew before the next draw."""
        self._files = None

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
        if not requests:
            return []
        table = stop_table(self.model, config.stop) if config.stop else None
        worker = self._open(seed, requests)
        found: list[list[Drawn]] = [[] for _ in requests]
        for number in sorted({r.num_samples for r in requests} - {0}):
            places = [i for i, r in enumerate(requests) if r.num_samples == number]
            asked = [requests[i] for i in places]
            for place, request, rows in zip(places, asked, self._rows(worker, asked, config, table), strict=True):
                order = np.random.default_rng([seed, place]).permutation(len(rows)).tolist()  # they come best first
                ended = [self._ended(request, rows[i], config, table) for i in order]
                found[place] = ended * (number // len(ended))
        if with_log_probs or with_entropies:
            is_exact = self.compute_type == "float32"
            return with_log_probs_of(
                self.model, requests, found, config, is_exact=is_exact, has_entropies=with_entropies
            )
        return found

    # ------------------------------------------------------------------------------------------------- weights

    def _open(self, seed: int, requests: Sequence[Request]) -> Any:
        """Return a new translator or generator, whose random numbers follow from the seed alone."""
        library: Any = importlib.import_module("ctranslate2")
        if self._files is None:
            self._names, self._files = _converted(self.model, self.compute_type)
        name = f"{seed}|{sorted({request.stream for request in requests})}"
        library.set_random_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little") >> 1)
        device = self.model.device
        kind = library.Translator if self.model.is_encoder_decoder else library.Generator
        return kind(
            "model",
            device=device.type,
            device_index=device.index or 0,
            compute_type=self.compute_type,
            intra_threads=torch.get_num_threads(),
            files={name: io.BytesIO(content) for name, content in self._files.items()},
        )

    # ------------------------------------------------------------------------------------------------- drawing

    def _rows(
        self, worker: Any, requests: Sequence[Request], config: SamplingConfig, table: StopTable | None
    ) -> list[list[tuple[int, ...]]]:
        """Return what is drawn behind each request's prefix, not yet cut; of a greedy request one.

        Samples of a request share the reading of its prompt; but a text that ends a program must stop its row alone, so
        that with such texts each sample is a row of its own.
        """
        number = 1 if config.temperature == 0 else requests[0].num_samples
        how: dict[str, Any] = {"beam_size": 1, "return_end_token": True}
        if config.temperature > 0:
            how |= {"sampling_temperature": config.temperature, "sampling_topk": config.top_k}
            how |= {"sampling_topp": config.top_p} if config.top_p < 1 else {}
        given = [request for request in requests for _ in range(1 if table is None else number)]
        how["num_hypotheses"] = number if table is None else 1
        order = sorted(range(len(given)), key=lambda i: len(given[i].prompt) + len(given[i].prefix))
        size = max(1, ROWS // how["num_hypotheses"])
        drawn: list[list[tuple[int, ...]]] = [[] for _ in given]
        for start in range(0, len(order), size):
            places = order[start : start + size]
            part = [given[i] for i in places]
            searching = {} if table is None else {"callback": self._search(table, part)}
            for place, rows in zip(
                places, self._call(worker, part, config.max_new_tokens, how | searching), strict=True
            ):
                drawn[place] = rows
        each = len(given) // len(requests)
        return [[row for rows in drawn[i : i + each] for row in rows] for i in range(0, len(drawn), each)]

    def _search(self, table: StopTable, requests: Sequence[Request]) -> Callable[[Any], bool]:
        """Return the function of a step that says whether a text has ended its row."""
        has_read = self.model.is_encoder_decoder  # whose prefixes are drawn as it were
        states = [0 if has_read else table.read(request.prefix) for request in requests]

        def has_ended(step: Any) -> bool:
            row = step.batch_id
            if states[row] != FOUND:
                states[row] = table.read([step.token_id], states[row])
            return states[row] == FOUND

        return has_ended

    def _call(
        self, worker: Any, requests: Sequence[Request], max_new_tokens: int, how: dict[str, Any]
    ) -> list[list[tuple[int, ...]]]:
        names = self._names
        if not self.model.is_encoder_decoder:
            prompts = [[names[t] for t in (*r.prompt, *r.prefix)] for r in requests]
            given = {"max_length": max_new_tokens, "min_length": 0, "include_prompt_in_result": False}
            return [
                [tuple(row) for row in done.sequences_ids] for done in worker.generate_batch(prompts, **given, **how)
            ]
        ids = {name: i for i, name in enumerate(names)}
        longest = max(len(r.prefix) for r in requests)
        done = worker.translate_batch(
            [[names[t] for t in r.prompt] for r in requests],
            target_prefix=[[names[t] for t in r.prefix] for r in requests] if longest else None,
            max_decoding_length=max_new_tokens + longest,
            min_decoding_length=0,
            max_input_length=0,
            **how,
        )
        return [
            [tuple(ids[name] for name in row[len(r.prefix) :]) for row in one.hypotheses]
            for r, one in zip(requests, done, strict=True)
        ]

    def _ended(self, request: Request, row: tuple[int, ...], config: SamplingConfig, table: StopTable | None) -> Drawn:
        """Return a program cut where it ends: at the end of sequence, a stop text or the limit."""
        prefix, eos = request.prefix, self.model.eos_id
        tokens = (*prefix, *row[: config.max_new_tokens])
        end = table.end(tokens, len(prefix)) if table is not None else None
        if eos in tokens and (end is None or tokens.index(eos) < end):
            return Drawn(tokens[: tokens.index(eos) + 1], len(prefix), Finish.END)
        return Drawn(tokens[:end], len(prefix), Finish.LENGTH if end is None else Finish.STOP)


# ---------------------------------------------------------------------------------------------------- conversion


def _compute_type(model: LanguageModel) -> str:
    """Return the model's own type where CTranslate2 computes in it on this device, else float32."""
    library: Any = importlib.import_module("ctranslate2")
    own = str(model.backbone.dtype).removeprefix("torch.")
    return own if own in library.get_supported_compute_types(model.device.type) else "float32"


def _converted(model: LanguageModel, compute_type: str) -> tuple[list[str], dict[str, bytes]]:
    """Return the names of all tokens and the files of the converted model."""
    loader = _loaders()[type(model.backbone.config).__name__]
    with torch.no_grad():
        spec = loader.get_model_spec(_plain_copy(model.backbone))
        loader.set_config(spec.config, model.backbone, model.tokenizer)
        names = _token_names(model)
        loader.set_vocabulary(spec, names)
        spec.validate()
        spec.optimize(quantization=compute_type)
        with tempfile.TemporaryDirectory() as folder:
            spec.save(folder)
            return names, {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _token_names(model: LanguageModel) -> list[str]:
    """Return a name for each number that the model can write; those beyond its tokenizer have one too."""
    names = [f"<no token {i}>" for i in range(model.vocab_size)]
    for name, number in model.tokenizer.get_vocab().items():
        names[number] = name
    return names


def _plain_copy(backbone: nn.Module) -> nn.Module:
    """Return the backbone's modules anew around the same weights, adapters merged: converting takes modules apart."""
    tensors = {id(t): t for t in (*backbone.parameters(), *backbone.buffers())}
    copied = copy.deepcopy(backbone, memo=dict(tensors))
    for name, module in list(copied.named_modules()):
        if hasattr(module, "base_layer") and hasattr(module, "get_delta_weight"):
            adapted: Any = module
            base = adapted.base_layer
            merged = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
            delta = sum(adapted.get_delta_weight(adapter) for adapter in adapted.active_adapters)
            merged.weight = nn.Parameter(base.weight + delta, requires_grad=False)
            merged.bias = base.bias
            owner, _, last = name.rpartition(".")
            setattr(copied.get_submodule(owner), last, merged)
    return copied


@cache
def _loaders() -> dict[str, Any]:
    """Return the converters by the name of a model's configuration: the package's, and StarCoder2's."""
    library: Any = importlib.import_module("ctranslate2.converters.transformers")
    specs: Any = importlib.import_module("ctranslate2.specs")
    utils: Any = importlib.import_module("ctranslate2.converters.utils")
    qwen: Any = type(library._MODEL_LOADERS["Qwen2Config"])

    class StarCoder2Loader(qwen):
        """Layers as Qwen2's, but norms with a bias and a feed-forward network without a gate."""

        def get_model_spec(self, model: Any) -> Any:
            config = model.config
            scaling, factor, theta = self.get_rotary_params(config, 10_000)
            num_heads, num_shared = config.num_attention_heads, config.num_key_value_heads
            spec = specs.transformer_spec.TransformerDecoderModelSpec.from_config(
                config.num_hidden_layers,
                num_heads,
                activation=library._SUPPORTED_ACTIVATIONS[config.hidden_act],
                pre_norm=True,
                rotary_dim=0,
                rotary_interleave=False,
                rotary_scaling_type=scaling,
                rotary_scaling_factor=factor,
                rotary_base=theta,
                num_heads_kv=None if num_shared == num_heads else num_shared,
                sliding_window=config.sliding_window,
            )
            self.set_layers(spec.decoder, model.model)
            self.set_linear(spec.decoder.projection, model.lm_head)
            return spec

        def set_layers(self, spec: Any, module: Any) -> None:
            spec.scale_embeddings = False
            self.set_embeddings(spec.embeddings, module.embed_tokens)
            self.set_layer_norm(spec.layer_norm, module.norm)
            for own, layer in zip(spec.layer, module.layers, strict=True):
                self.set_layer_norm(own.self_attention.layer_norm, layer.input_layernorm)
                self.set_layer_norm(own.ffn.layer_norm, layer.post_attention_layernorm)
                split = [specs.common_spec.LinearSpec() for _ in range(3)]
                for part, name in zip(split, ("q_proj", "k_proj", "v_proj"), strict=True):
                    self.set_linear(part, getattr(layer.self_attn, name))
                utils.fuse_linear(own.self_attention.linear[0], split)
                self.set_linear(own.self_attention.linear[1], layer.self_attn.o_proj)
                self.set_linear(own.ffn.linear_0, layer.mlp.c_fc)
                self.set_linear(own.ffn.linear_1, layer.mlp.c_proj)

        def set_layer_norm(self, spec: Any, layer_norm: Any) -> None:
            spec.gamma, spec.beta = layer_norm.weight, layer_norm.bias

        def set_config(self, config: Any, model: Any, tokenizer: Any) -> None:
            config.bos_token = tokenizer.bos_token or tokenizer.pad_token
            config.eos_token, config.unk_token = tokenizer.eos_token, tokenizer.unk_token or ""
            config.layer_norm_epsilon = model.config.norm_epsilon

    return {**library._MODEL_LOADERS, "Starcoder2Config": StarCoder2Loader()}
