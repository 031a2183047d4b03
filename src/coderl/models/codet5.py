"""CodeT5, the original's backbone: its tokenizer, its shapes and the original's checkpoints, without a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from coderl.models.lm import LanguageModel, refuse_not_finite
from coderl.models.tiny import SPECIAL_TOKENS, fast_tokenizer
from coderl.records import read_json
from coderl.types import InputError

SHAPES = {
    "small": {"d_model": 512, "d_ff": 2048, "num_heads": 8, "num_layers": 6},
    "base": {"d_model": 768, "d_ff": 3072, "num_heads": 12, "num_layers": 12},
    "large": {"d_model": 1024, "d_ff": 4096, "num_heads": 16, "num_layers": 24},
}
"""CodeT5 of 60, 220 and 770 million weights, of as many layers in the encoder and in the decoder; 64 numbers a head."""

VOCAB_SIZE = 32_100
NUM_SENTINELS = 100


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer in a model's folder, or CodeT5's own from a folder of its vocabulary and merges.

    Raises:
        InputError: there is none.
    """
    folder = Path(folder)
    published = [file for pattern in ("*vocab.json", "*merges.txt") for file in folder.glob(pattern)]
    if published and not (folder / "tokenizer.json").exists():
        return load_codet5_tokenizer(folder)
    try:
        if not folder.is_dir():
            raise OSError("no such folder")
        return AutoTokenizer.from_pretrained(str(folder))
    except Exception as error:  # `tokenizers` raises plain `Exception`
        raise InputError(f"{folder}: no tokenizer in it ({_line(error)})") from None


def load_codet5_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """Return CodeT5's tokenizer, from the `*vocab.json` and `*merges.txt` that its authors publish; no network.

    `<pad>` `<s>` `</s>` `<unk>` `<mask>` have the ids 0 to 4, the sentinels `<extra_id_99>`..`<extra_id_0>` 32000 to
    32099, and text becomes `<s> ... </s>`, as at `Salesforce/codet5-base`.

    Raises:
        InputError: a file is missing or double, or the two are not a vocabulary of CodeT5 and its merges.
    """
    files = [sorted(Path(folder).glob(pattern)) for pattern in ("*vocab.json", "*merges.txt")]
    if any(len(found) != 1 for found in files):
        raise InputError(f"{folder}: expected one *vocab.json and one *merges.txt of CodeT5")
    (vocab_file,), (merges_file,) = files
    vocab = read_json(vocab_file)
    if not isinstance(vocab, dict) or sorted(map(str, vocab.values())) != sorted(map(str, range(len(vocab)))):
        raise InputError(f"{vocab_file}: expected token -> id, with the ids 0 to the number of tokens")
    if [vocab.get(token) for token in SPECIAL_TOKENS] != list(range(len(SPECIAL_TOKENS))):
        raise InputError(f"{vocab_file}: expected {' '.join(SPECIAL_TOKENS)} as the ids 0 to {len(SPECIAL_TOKENS) - 1}")
    try:
        lines = merges_file.read_text(encoding="utf-8").split("\n")
        merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=cast(Any, merges)))
    except Exception as error:  # as above
        raise InputError(f"{merges_file}: not the merges of {vocab_file.name} ({_line(error)})") from None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", vocab["</s>"]), ("<s>", vocab["<s>"]), add_prefix_space=False
    )
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(NUM_SENTINELS))]
    return fast_tokenizer(tokenizer, sentinels, cls_token="<s>", sep_token="</s>")


def config_of(size: str) -> T5Config:
    """Return the configuration of CodeT5 `small` (60M), `base` (220M) or `large` (770M).

    Source: section 3.2 and the cards of `Salesforce/codet5-*`: ReLU, tied embeddings scaled by d^-1/2, 32 buckets of
        relative position, dropout 0.1.

    Raises:
        InputError: no such size.
    """
    if size not in SHAPES:
        raise InputError(f"CodeT5 {size!r}: expected one of {', '.join(SHAPES)}")
    return _config(vocab_size=VOCAB_SIZE, d_kv=64, **SHAPES[size])


def _config(**shape: int) -> T5Config:
    config = T5Config(
        dropout_rate=0.1,
        feed_forward_proj="relu",
        pad_token_id=0,
        eos_token_id=2,
        **shape,  # pyright: ignore[reportArgumentType]
    )
    config.decoder_start_token_id = 0
    return config


def untrained(size: str, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0) -> LanguageModel:
    """Return an untrained CodeT5 of a size in `SHAPES`, the same for the same seed; no network.

    Its weights load the published ones (`LanguageModel.load` reads a folder of them).

    Raises:
        InputError: no such size, or a tokenizer of more tokens.
    """
    config = config_of(size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = T5ForConditionalGeneration(config)
    return LanguageModel(backbone, tokenizer).eval()


# ------------------------------------------------------------------------------------------------------ checkpoints

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_BLOCK = re.compile(r"(encoder|decoder)\.block\.(\d{1,3})\.")
_TIED = ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_OLD = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
"""Of T5's first release; nothing reads it."""


def load_checkpoint(
    folder: str | Path, tokenizer: PreTrainedTokenizerBase, *, extra: tuple[str, ...] = ()
) -> tuple[LanguageModel, dict[str, Tensor]]:
    """Return the language model of a checkpoint that the original's trainer wrote, and its `extra` weights, in float32.

    The shapes are read off the weights: the published checkpoints lack their configuration. Pickled weights are read
    by torch's reader for weights alone, which runs nothing.

    Args:
        folder: Holds `pytorch_model.bin` or `model.safetensors`.
        tokenizer: The original's, which its checkpoints lack as well.
        extra: How the names of weights begin that are no T5's (`error_head.`).

    Raises:
        InputError: the folder holds no weights, or those of something else, or such as are not finite.
    """
    weights = _read_weights(Path(folder))
    others = {name: weights.pop(name) for name in list(weights) if name.startswith(extra)} if extra else {}
    weights = {name: tensor for name, tensor in weights.items() if name not in (*_TIED, _OLD)}
    config = _config_of_weights(weights, folder)
    with torch.device("meta"):
        backbone = T5ForConditionalGeneration(config)
    expected = {name: p.shape for name, p in backbone.state_dict().items() if name not in _TIED}
    for name in sorted(expected.keys() ^ weights.keys()):
        raise InputError(f"{folder}: {'lacks' if name in expected else 'holds'} the weights {name}: not a CodeT5")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise InputError(f"{folder}: {name} is {tuple(weights[name].shape)}, expected {tuple(shape)}")
    weights |= dict.fromkeys(_TIED, weights["shared.weight"])
    backbone.load_state_dict(weights, assign=True)
    backbone.tie_weights()
    return LanguageModel(backbone, tokenizer).eval(), others


def _read_weights(folder: Path) -> dict[str, Tensor]:
    found = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not found:
        raise InputError(f"{folder}: no checkpoint in it ({' or '.join(WEIGHT_FILES)})")
    try:
        if found[0].suffix == ".safetensors":
            weights: Any = load_file(found[0])
        else:
            weights = torch.load(found[0], map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader asserts and raises whatever it likes on broken bytes
        raise InputError(f"{found[0]}: refused, not a file of weights alone ({_line(error)[:100]})") from None
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise InputError(f"{found[0]}: expected weights by name")
    weights = {str(name): w.float() for name, w in weights.items()}
    refuse_not_finite((f"{found[0]}: {name}", tensor) for name, tensor in weights.items())
    return weights


def _config_of_weights(weights: dict[str, Tensor], folder: str | Path) -> T5Config:
    attention = "encoder.block.0.layer.0.SelfAttention"
    names = ("shared.weight", f"{attention}.q.weight", f"{attention}.relative_attention_bias.weight",
             "encoder.block.0.layer.1.DenseReluDense.wi.weight")  # fmt: skip
    shapes = [tuple(weights[name].shape) if name in weights else (0, 0) for name in names]
    if not all(len(shape) == 2 and min(shape) > 0 for shape in shapes):
        raise InputError(f"{folder}: not the weights of a CodeT5 (no usable {names[0]} or first layer)")
    (vocab_size, width), (inner, _), (num_buckets, num_heads), (d_ff, _) = cast(list[tuple[int, int]], shapes)
    depth = {"encoder": 0, "decoder": 0}
    for name in weights:
        if block := _BLOCK.match(name):
            depth[block[1]] = max(depth[block[1]], int(block[2]) + 1)
    shape = {"d_model": width, "d_ff": d_ff, "num_heads": num_heads, "d_kv": max(inner // num_heads, 1)}
    shape |= {"num_layers": depth["encoder"], "num_decoder_layers": depth["decoder"], "vocab_size": vocab_size}
    return _config(relative_attention_num_buckets=num_buckets, **shape)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
