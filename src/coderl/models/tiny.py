"""Models from nothing: a byte-level BPE tokenizer learned from texts, and a small T5 or Llama with random weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as bpe
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from coderl.models.lm import LanguageModel, token_id
from coderl.types import InputError

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
"""In the order, and so with the ids 0..4, of the CodeT5 tokenizer."""

PIECES = r"\s*[\r\n]+[ \t]*| ?\p{N}| ?[\p{L}_]+| ?[^\s\p{L}\p{N}_]+|\s+"
"""What a token may not cross: a line's end with the next line's indent, a digit, a name, a run of signs, spaces."""


def train_tokenizer(texts: Iterable[str], vocab_size: int, num_sentinels: int = 100) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on `texts`, the same for the same texts: any text round trips.

    It has CodeT5's special tokens and the sentinels `<extra_id_0>`... of masked-span prediction; `vocab_size` counts
    them, and prompts end with `</s>`.

    Raises:
        InputError: `vocab_size` has no room for the 256 bytes and the special tokens.
    """
    sentinels = [f"<extra_id_{i}>" for i in range(num_sentinels)]
    if vocab_size < 256 + len(SPECIAL_TOKENS) + num_sentinels:
        raise InputError(f"vocab_size {vocab_size}: expected at least {256 + len(SPECIAL_TOKENS) + num_sentinels}")
    tokenizer = Tokenizer(bpe.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *sentinels],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    eos = SPECIAL_TOKENS.index("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", eos)])
    return fast_tokenizer(tokenizer, sentinels)


def fast_tokenizer(tokenizer: Tokenizer, sentinels: Sequence[str], **more: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer with the special tokens of a T5 on code, `more` of them if given, as transformers uses it."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        extra_special_tokens=list(sentinels),
        clean_up_tokenization_spaces=False,
        **more,
    )


def tiny_t5(
    tokenizer: PreTrainedTokenizerBase,
    *,
    d_model: int = 128,
    num_layers: int = 2,
    num_heads: int = 4,
    d_ff: int | None = None,
    dropout: float = 0.1,
    seed: int = 0,
) -> LanguageModel:
    """Return an untrained T5 of `num_layers` encoder and decoder layers, the same for the same seed."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=d_model,
        num_layers=num_layers,
        num_decoder_layers=num_layers,
        num_heads=num_heads,
        d_ff=d_ff or 4 * d_model,
        d_kv=d_model // num_heads,
        dropout_rate=dropout,
        pad_token_id=token_id(tokenizer, "pad"),
        eos_token_id=token_id(tokenizer, "eos"),
    )
    config.decoder_start_token_id = config.pad_token_id
    return LanguageModel(_untrained(T5ForConditionalGeneration, config, seed), tokenizer).eval()


def tiny_llama(
    tokenizer: PreTrainedTokenizerBase,
    *,
    d_model: int = 128,
    num_layers: int = 2,
    num_heads: int = 4,
    d_ff: int | None = None,
    max_positions: int = 2048,
    seed: int = 0,
) -> LanguageModel:
    """Return an untrained Llama, the same for the same seed."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=d_model,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        intermediate_size=d_ff or 4 * d_model,
        max_position_embeddings=max_positions,
        pad_token_id=token_id(tokenizer, "pad"),
        bos_token_id=token_id(tokenizer, "bos"),
        eos_token_id=token_id(tokenizer, "eos"),
        tie_word_embeddings=True,
    )
    return LanguageModel(_untrained(LlamaForCausalLM, config, seed), tokenizer).eval()


def _untrained(architecture: type[PreTrainedModel], config: Any, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return architecture(config)
