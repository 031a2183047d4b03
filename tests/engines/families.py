"""Tiny models with random weights of the families that people use."""

from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerBase

from coderl.models.lm import LanguageModel

FAMILIES = ("Llama", "Qwen2", "Starcoder2", "Gemma", "T5")


def tiny_of(family: str, tokenizer: PreTrainedTokenizerBase, *, spare_rows: int = 3) -> LanguageModel:
    """Return a model of two layers whose probabilities differ; its vocabulary is larger than its tokenizer's."""
    vocab = {"vocab_size": len(tokenizer) + spare_rows, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1}
    if family == "T5":
        own = {"d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 4, "d_kv": 8, "decoder_start_token_id": 0}
    else:
        own = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        own |= {"num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": False}
        own |= {"head_dim": 8} if family == "Gemma" else {}
    kind = "T5ForConditionalGeneration" if family == "T5" else f"{family}ForCausalLM"
    config: Any = getattr(transformers, f"{family}Config")(**vocab, **own)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = getattr(transformers, kind)(config)
        with torch.no_grad():
            if family != "T5":
                backbone.get_output_embeddings().weight.mul_(20)
            for name, parameter in backbone.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(0, 0.3)
    return LanguageModel(backbone, tokenizer).eval()
