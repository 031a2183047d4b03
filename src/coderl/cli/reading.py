"""How a command reads problems: what cannot be used is named, the others are served, and the command ends with 1."""

from __future__ import annotations

from coderl import problems as data
from coderl.stages.console import Reporter
from coderl.types import InputError, LabelledProblem


def load_problems(
    source: str, *, split: str | None, limit: int | None, reporter: Reporter, num_shown_tests: int | None = None
) -> tuple[list[LabelledProblem], int]:
    """Return the problems of a data set, and how many records were named because they cannot be used.

    Raises:
        InputError: the source is missing or unreadable, or no record can be used.
    """
    bad = list[InputError]()
    found = data.load(source, split=split, limit=limit, num_shown_tests=num_shown_tests, on_bad=bad.append)
    for error in bad:
        reporter.say(f"coderl: {error}")
    if bad:
        reporter.say(f"coderl: {len(bad)} records left out, {len(found)} problems read")
    return found, len(bad)
