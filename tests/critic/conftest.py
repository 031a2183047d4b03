"""A random model small enough that a step takes milliseconds."""

import pytest

from coderl import lm


@pytest.fixture(scope="session")
def tokenizer():
    return lm.train_tokenizer(["print(int(input()) + 1)\n", "for i in range(3):\n    print(i)\n"], 400)


@pytest.fixture
def tiny(tokenizer):
    """Fresh models with random weights: `tiny("t5")`, `tiny("llama")`."""

    def make(family="t5", **options):
        build = {"t5": lm.tiny_t5, "llama": lm.tiny_llama}[family]
        return build(tokenizer, **{"d_model": 16, "num_layers": 1, "num_heads": 2, **options})

    return make
