"""A random model small enough that a step takes milliseconds."""

import pytest

from coderl import lm
from coderl.training.losses import CrossEntropyExample


@pytest.fixture(scope="session")
def tokenizer():
    return lm.train_tokenizer(["print(int(input()) + 1)\n", "for i in range(3):\n    print(i)\n"], 400)


@pytest.fixture
def tiny(tokenizer):
    """A fresh T5 with the same random weights every time; `tiny(dropout=...)`."""

    def make(**options):
        return lm.tiny_t5(tokenizer, **{"d_model": 16, "num_layers": 1, "num_heads": 2, "dropout": 0.0, **options})

    return make


@pytest.fixture
def examples():
    """24 programs of 2 to 6 tokens and the end of sequence (2)."""
    return [CrossEntropyExample((10, 11 + i % 3), (*range(20 + i % 4, 22 + i % 4 + i % 5), 2)) for i in range(24)]
