"""Language models: one pretrained backbone with its tokenizer, encoder-decoder or decoder-only behind the same methods.

A model gives the log-probabilities of programs (the actor) and the hidden states of their prefixes (the critic); both
families come from the Auto classes of `transformers`, and no modelling code is copied.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.functional import pad as widen
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from coderl.models import lora
from coderl.models.log_probs import OutputLayer, output_layer, token_log_probs
from coderl.models.settings import LoraConfig
from coderl.records import atomic_dir
from coderl.types import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OUR_FOLDERS = ("models", "runs")
"""A path under one of these is never taken for a hub name."""
TAIL_SHARE = 4
"""A prompt that is too long keeps its last quarter of the budget (the answer marker) and its beginning."""


@dataclass(frozen=True)
class Batch:
    """Prompts and programs as tensors: a decoder-only model's prompts are padded on the left, the rest on the right."""

    prompt_ids: Int[Tensor, "B S"]
    prompt_mask: Bool[Tensor, "B S"]
    program_ids: Int[Tensor, "B T"]
    program_mask: Bool[Tensor, "B T"]

    def to(self, device: str | torch.device) -> Batch:
        """Return the batch on `device`."""
        return Batch(*(field.to(device) for field in self._fields))

    def __getitem__(self, rows: slice) -> Batch:
        """Return some of the rows, as wide as all of them."""
        return Batch(*(field[rows] for field in self._fields))

    @property
    def _fields(self) -> tuple[Tensor, ...]:
        return (self.prompt_ids, self.prompt_mask, self.program_ids, self.program_mask)


class Reading(NamedTuple):
    """What a model makes of prompts and programs; where a batch is padded it means nothing."""

    prompt_states: Float[Tensor, "B S H"]
    prefix_states: Float[Tensor, "B one_more H"]
    """The state that has read w_1..w_t, for t = 0..T: the first has read the prompt alone."""
    logits: Float[Tensor, "B T V"] | None
    """What predicts w_t from what comes before it."""

    @property
    def states(self) -> Float[Tensor, "B T H"]:
        """The states that have read w_t, for t = 1..T."""
        return self.prefix_states[:, 1:]


class LanguageModel(nn.Module):
    """A backbone with its tokenizer."""

    def __init__(self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.lora: LoraConfig | None = None
        """How it is adapted; None for a model whose own weights are trained."""
        self.chats: dict[tuple[str | None, bool], tuple[str, str]] = {}
        """What its chat template puts around a question, by system message and thinking."""
        self.source: str | None = None
        """The folder or hub name it was loaded from: the base model of its adapters."""
        self.is_encoder_decoder: bool = bool(backbone.config.is_encoder_decoder)
        self.hidden_size: int = backbone.config.hidden_size
        self.vocab_size: int = cast(nn.Embedding, backbone.get_input_embeddings()).num_embeddings
        self.eos_id: int = _eos_id(tokenizer, backbone)
        pad_id = token_id(tokenizer, "pad")
        self.pad_id: int = self.eos_id if pad_id is None else pad_id
        if len(tokenizer) > self.vocab_size:
            raise InputError(
                f"the tokenizer has {len(tokenizer)} tokens and the model only {self.vocab_size}: "
                "they do not belong together"
            )

    # ------------------------------------------------------------------------------------------------ files

    @classmethod
    def load(cls, path_or_name: str | Path, *, dtype: str = "float32", device: str | None = None) -> LanguageModel:
        """Return the model in a folder (or of a hub name), on `best_device` by default; its config decides the family.

        `dtype` is one of `DTYPES`, or `auto` for `best_dtype`.

        Raises:
            InputError: no such folder or name, a folder that holds no such model, weights that are not finite, an
                unknown `dtype`, or a tokenizer of another model.
        """
        device = device or best_device()
        dtype = best_dtype(device) if dtype == "auto" else dtype
        if dtype not in DTYPES:
            raise InputError(f"dtype {dtype!r}: expected one of auto, {', '.join(DTYPES)}")
        name = str(path_or_name)
        transformers_logging.disable_progress_bar()
        adapter = lora.read_adapter_config(Path(name))
        if adapter is not None:
            model = cls.load(adapter[0], dtype=dtype, device=device)
            lora.load_adapter(model.backbone, adapter[1], Path(name))
            model.lora = adapter[1]
            return model.eval()
        _refuse_no_model(path_or_name)
        try:
            config = AutoConfig.from_pretrained(name)
            for depth in ("num_layers", "num_decoder_layers", "num_hidden_layers"):
                if (getattr(config, depth, None) or 0) > _MAX_LAYERS:
                    raise InputError(f"{depth} = {getattr(config, depth)}, at most {_MAX_LAYERS}")
            auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            with _silent_transformers():  # its table of unfit weights beside our one line
                loaded: Any = auto.from_pretrained(
                    name, dtype=DTYPES[dtype], output_loading_info=True, ignore_mismatched_sizes=True
                )
            backbone, report = loaded
            for weight, found, expected in sorted(report["mismatched_keys"])[:1]:
                raise InputError(f"{weight} is {tuple(found)}, expected {tuple(expected)}")
            tokenizer = AutoTokenizer.from_pretrained(name)
            if report["missing_keys"]:
                raise InputError(f"the weights lack {min(report['missing_keys'])}")
            refuse_not_finite(backbone.named_parameters())
            model = cls(backbone, tokenizer).to(device).eval()
            model.source = str(Path(name).resolve()) if Path(name).exists() else name
            return model
        except Exception as error:  # the readers of weights, tokenizers and configs raise whatever they like
            raise InputError(f"{name}: cannot be loaded as a language model ({_first_line(error)})") from error

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), configuration and tokenizer to `folder`, all of it or nothing.

        An adapted model is written merged, or as its adapter alone, as its `LoraConfig` says.
        """
        transformers_logging.disable_progress_bar()
        with atomic_dir(Path(folder)) as temporary:
            if self.lora is not None and self.lora.saved_as == "adapter" and self.source is not None:
                lora.save_adapter(self.backbone, self.lora, self.source, temporary)
                return
            merged = None if self.lora is None else lora.merged_state(self.backbone)
            self.backbone.save_pretrained(temporary, state_dict=merged)
            self.tokenizer.save_pretrained(temporary)

    def adapt(self, config: LoraConfig | None) -> LanguageModel:
        """Return the model itself, from now on trained through adapters only; as it is where there is no config.

        Raises:
            InputError: see `lora.add_adapters`.
        """
        if config is not None and self.lora is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                lora.add_adapters(self.backbone, config)
            self.lora = config
        return self

    # ---------------------------------------------------------------------------------------- text and tokens

    def encode_prompt(self, text: str, max_tokens: int | None = None) -> list[int]:
        """Return the prompt's tokens: an encoder's as its tokenizer ends them, a decoder's open for continuation.

        A prompt of more than `max_tokens` loses its middle.

        Deviation: the original cuts the tail, and with it the answer marker and the end of sequence.

        Raises:
            InputError: there is nothing to condition on, or no room for it.
        """
        leading, trailing = self.prompt_frame
        tokens = self._encode(text, is_literal=self.is_encoder_decoder)
        if max_tokens is not None:
            room = max_tokens - len(leading) - len(trailing)
            if room < 1:
                raise InputError(f"max_tokens {max_tokens}: no room for a prompt")
            tokens = _cut_middle(tokens, room)
        prompt = [*leading, *tokens, *trailing]
        if not prompt:
            raise InputError("an empty prompt: a decoder-only model has nothing to continue")
        return prompt

    def encode_program(self, text: str, max_tokens: int | None = None) -> list[int]:
        """Return the program's tokens and the end of sequence, cut at `max_tokens`.

        What looks like a special token in the text (`</s>` in a string literal) is text.
        """
        leading = self.prompt_frame[0] if self.is_encoder_decoder else ()
        return [*leading, *self._encode(text, is_literal=True), self.eos_id][:max_tokens]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of `tokens` without special tokens, with every space as it was."""
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def _encode(self, text: str, *, is_literal: bool) -> list[int]:
        options: dict[str, Any] = {"split_special_tokens": True} if is_literal else {}
        return self.tokenizer.encode(text, add_special_tokens=False, verbose=False, **options)

    @cached_property
    def prompt_frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special tokens before and after a prompt: the tokenizer's own, without an end for a decoder."""
        bare = self._encode("x", is_literal=False)
        full = self.tokenizer.encode("x", add_special_tokens=True)
        start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        trailing = full[start + len(bare) :] if self.is_encoder_decoder else []
        return tuple(full[:start]), tuple(trailing)

    def collate(self, prompts: Sequence[Sequence[int]], programs: Sequence[Sequence[int]]) -> Batch:
        """Return prompts and programs (one each a row) as a padded batch on the model's device."""
        assert len(prompts) == len(programs), (len(prompts), len(programs))
        prompt_ids, prompt_mask = pad_rows(prompts, self.pad_id, side="right" if self.is_encoder_decoder else "left")
        program_ids, program_mask = pad_rows(programs, self.pad_id, side="right")
        return Batch(prompt_ids, prompt_mask, program_ids, program_mask).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are stored as."""
        return self.backbone.dtype

    @property
    def start_id(self) -> int:
        """The token a decoder starts from (encoder-decoder only)."""
        start = self.backbone.config.decoder_start_token_id
        return self.pad_id if start is None else int(start)

    # --------------------------------------------------------------------------------------------- forward

    def log_probs(self, batch: Batch) -> Float[Tensor, "B T"]:
        """Return log p(w_t | w_<t, D) of each program token, 0 where there is none, in float32.

        Source: the conditional probability of Eq. 1 and Eq. 5.
        """
        mask, head = batch.program_mask, self._output_layer
        if head is None:
            logits = self.read(batch, with_logits=True).logits
            assert logits is not None
            losses = cross_entropy(logits.float().transpose(1, 2), batch.program_ids, reduction="none")
            return torch.where(mask, -losses, 0.0)
        if self.is_encoder_decoder:
            _, hidden = self._encode_decode(batch, self._decoder_inputs(batch)[:, :-1])
        else:
            hidden = self.read(batch).prefix_states[:, :-1]
        found = token_log_probs(head, hidden[mask], batch.program_ids[mask])
        return torch.zeros(mask.shape, device=found.device).masked_scatter(mask, found)

    @cached_property
    def _output_layer(self) -> OutputLayer | None:
        """How hidden states become logits, found out once on a token."""

        def probe() -> tuple[Tensor, Tensor]:
            device, row = self.device, [[self.eos_id, self.eos_id]]
            ids, mask = torch.tensor(row, device=device), torch.ones(1, 2, dtype=torch.bool, device=device)
            reading = self.read(Batch(ids, mask, ids, mask), with_logits=True)
            assert reading.logits is not None
            return reading.prefix_states[:, :-1], reading.logits

        return output_layer(self.backbone, probe)

    def states(self, batch: Batch) -> Float[Tensor, "B T H"]:
        """Return the last hidden state that has read w_t, for each t: what the value of the prefix w_1..w_t rests on.

        Source: Eq. 10 and 11, whose prefix includes w_t.
        Deviation: the original takes the state that predicts w_t, which has not seen it, and scales it by d^-1/2 with
        tied embeddings; here the state is unscaled, and a linear layer on it finds its own scale.
        """
        return self.read(batch).states

    def read(self, batch: Batch, *, with_logits: bool = False) -> Reading:
        """Return the last hidden states of prompts and programs and, if asked for, the logits, for the price of one."""
        options: dict[str, Any] = {"use_cache": False}
        if self.is_encoder_decoder:
            given, starts = {"attention_mask": batch.prompt_mask, **options}, self._decoder_inputs(batch)
            if with_logits:
                outputs = self.backbone(batch.prompt_ids, decoder_input_ids=starts, output_hidden_states=True, **given)
                read, written = outputs.encoder_last_hidden_state, outputs.decoder_hidden_states[-1]
                return Reading(read, written, outputs.logits[:, :-1])
            return Reading(*self._encode_decode(batch, starts), None)
        start, logits = batch.prompt_ids.shape[1], None
        if self.pads_right and not bool(batch.prompt_mask.all()) and not (with_logits and self._output_layer is None):
            hidden = self._read_from_the_left(batch)
            if with_logits:
                assert self._output_layer is not None
                logits = self._output_layer(hidden[:, start - 1 : -1])
        elif with_logits:
            kept = batch.program_ids.shape[1] + 1
            options |= {"logits_to_keep": kept, "output_hidden_states": True}
            outputs = self.backbone(**self._joined_inputs(batch), **options)
            hidden, logits = outputs.hidden_states[-1], outputs.logits[:, :-1]
        else:
            hidden = self.backbone.base_model(**self._joined_inputs(batch), **options).last_hidden_state
        return Reading(hidden[:, :start], hidden[:, start - 1 :], logits)

    @property
    def pads_right(self) -> bool:
        """Whether a decoder-only model reads its rows from the left, as its attention on a GPU needs it.

        There, the gradient at a position that attends to nothing, as padding on the left does, may be no number.
        """
        return self.device.type == "cuda"

    def _read_from_the_left(self, batch: Batch) -> Float[Tensor, "B L H"]:
        """Return the states of prompts and programs, read with the padding behind them, where no token sees it."""
        joined = torch.cat([batch.prompt_ids, batch.program_ids], dim=1)
        length = joined.shape[1]
        places = torch.arange(length, device=joined.device)
        gaps = (~batch.prompt_mask).sum(1, keepdim=True)
        moved = joined.gather(1, (places + gaps) % length)
        hidden = self.backbone.base_model(input_ids=moved, use_cache=False).last_hidden_state
        back = ((places - gaps) % length).unsqueeze(-1)
        return hidden.gather(1, back.expand(-1, -1, hidden.shape[-1]))

    def _encode_decode(self, batch: Batch, starts: Int[Tensor, "B L"]) -> tuple[Tensor, Tensor]:
        """Return the last hidden states of an encoder-decoder's prompts and of what its decoder reads."""
        read = self.backbone.get_encoder()(batch.prompt_ids, attention_mask=batch.prompt_mask).last_hidden_state
        seen = {"encoder_hidden_states": read, "encoder_attention_mask": batch.prompt_mask, "use_cache": False}
        return read, self.backbone.get_decoder()(starts, **seen).last_hidden_state

    def _decoder_inputs(self, batch: Batch) -> Int[Tensor, "B one_more"]:
        """Return the start token and the program: the causal mask alone keeps the padding after it unseen."""
        return widen(batch.program_ids, (1, 0), value=self.start_id)

    def _joined_inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return prompt and program as one sequence, with positions that do not count the padding on the left."""
        mask = torch.cat([batch.prompt_mask, batch.program_mask], dim=1).long()
        return {
            "input_ids": torch.cat([batch.prompt_ids, batch.program_ids], dim=1),
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        }


def best_device() -> str:
    """Return this process's GPU where there is one, else the processor."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


@lru_cache
def best_dtype(device: str) -> str:
    """Return `bfloat16` where a device has instructions for it, else `float32`."""
    if torch.device(device).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return "float32"
    return "bfloat16" if flags & {"amx_bf16", "avx512_bf16", "bf16"} else "float32"


def pad_rows(
    rows: Sequence[Sequence[int]], pad_id: int, *, side: str
) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """Return the rows as one tensor padded on the given side, and where it is real."""
    width = max((len(row) for row in rows), default=0)
    gaps = [[pad_id] * (width - len(row)) for row in rows]
    if side == "right":
        ids = [[*row, *gap] for row, gap in zip(rows, gaps, strict=True)]
        mask = [[True] * len(row) + [False] * len(gap) for row, gap in zip(rows, gaps, strict=True)]
    else:
        ids = [[*gap, *row] for row, gap in zip(rows, gaps, strict=True)]
        mask = [[False] * len(gap) + [True] * len(row) for row, gap in zip(rows, gaps, strict=True)]
    shape = (len(rows), width)
    return torch.tensor(ids, dtype=torch.long).view(shape), torch.tensor(mask, dtype=torch.bool).view(shape)


def _cut_middle(tokens: list[int], room: int) -> list[int]:
    if len(tokens) <= room:
        return tokens
    tail = min(room, max(1, room // TAIL_SHARE))
    return tokens[: room - tail] + tokens[len(tokens) - tail :]


def token_id(tokenizer: PreTrainedTokenizerBase, role: str) -> int | None:
    """Return the id of the `pad`, `eos` or `bos` token; None where the tokenizer has none."""
    found: Any = getattr(tokenizer, f"{role}_token_id")
    return found


def _eos_id(tokenizer: PreTrainedTokenizerBase, backbone: PreTrainedModel) -> int:
    for candidate in (token_id(tokenizer, "eos"), backbone.config.eos_token_id):
        if isinstance(candidate, int):
            return candidate
    raise InputError("the tokenizer has no end-of-sequence token: a program could not end")


def _refuse_no_model(path_or_name: str | Path) -> None:
    """Say at once what a folder lacks; a string that is no path may be a hub name."""
    folder = Path(path_or_name)
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise InputError(f"{folder}: no model in this folder (no config.json)")
        return
    owner = folder.parent
    is_hub_name = isinstance(path_or_name, str) and len(folder.parts) == 2 and not owner.exists()
    if not is_hub_name or str(owner) in OUR_FOLDERS:
        raise InputError(f"{folder}: no such model folder (and no hub name, which is owner/name)")


_MAX_LAYERS = 1000
"""Far more than any model has: a hostile configuration would build layers until memory ends."""


@contextmanager
def _silent_transformers() -> Iterator[None]:
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def refuse_not_finite(weights: Iterable[tuple[str, Tensor]]) -> None:
    """Raise an `InputError` that names the first of the named weights with a NaN or an infinity."""
    for name, tensor in weights:
        if not tensor.isfinite().all():
            raise InputError(f"{name} is not finite (training in float16 overflowed?)")
