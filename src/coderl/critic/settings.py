"""How a critic pools what it reads."""

from __future__ import annotations

from typing import Literal

Pooling = Literal["prefix", "prefix_max", "token", "legacy"]
"""What a prefix is judged by: maximum and mean of its states and the mean of the prompt's; their maximum alone, as the
paper judges a program; its last state alone, as the paper judges a prefix; or what the original's code does, flaws
included."""
