"""How flags are given, the same for every command and for the settings of a recipe."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cyclopts import Parameter

MANY = Parameter(consume_multiple=True, negative_iterable=())
"""A list takes all values that follow its flag: `-k 1 5`."""


def spread_lists(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `1,5` and `[1, 5]` as `1 5`: a list may be given in any of these ways."""
    spread: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        given = value if equals and flag.startswith("--") else argument
        if re.fullmatch(r"\[[^\[\]]*\]|-?[\d.]+(e-?\d+)?(,-?[\d.]+(e-?\d+)?)+", given):
            spread += [flag] if equals else []
            spread += [item.strip(" \"'") for item in given.strip("[]").split(",") if item.strip()]
        else:
            spread.append(argument)
    return spread
