"""The example tests that problem statements show, as the original keeps them: a file in each problem folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from coderl import records
from coderl.problems import apps
from coderl.problems.examples.extract import extract, extract_legacy
from coderl.stages.stage import command
from coderl.types import CallTest, InputError, StdinTest, UnitTest


@command("extract-examples")
def extract_examples(source: Path, *, rules: Literal["default", "legacy"] = "default", write: bool = False) -> None:
    """Print the example tests that problem statements show, as JSON; one line a problem folder.

        coderl extract-examples data/APPS/test
        coderl extract-examples data/APPS/test --rules legacy --write

    Args:
        source: An APPS problem folder, or a folder of them.
        rules: `legacy` follows the original's notebook, flaws included.
        write: Also write `example_input_output.json` into each problem folder, as the original does.
    """
    for found in read_statements(source, rules=rules, write=write):
        print(json.dumps(found, ensure_ascii=False))


def read_statements(source: Path, *, rules: Literal["default", "legacy"], write: bool) -> Iterator[dict[str, Any]]:
    """Yield the example tests of each problem folder's statement; with `write`, leave them in the folder too.

    The original writes `null` where it finds none; so does this.

    Raises:
        InputError: there is no problem folder, or one is a link out of `source`.
    """
    folders = (
        [source] if (source / "question.txt").is_file() else sorted(p.parent for p in source.glob("*/question.txt"))
    )
    if not folders:
        raise InputError(f"{source}: no problem folder with a question.txt")
    for folder in folders:
        if folder != source:
            apps.refuse_leaving(folder, source)
        problem = apps.read_folder(folder).problem
        if rules == "legacy":
            found = extract_legacy(problem.description)
        else:
            tests = extract(problem.description, fn_name=problem.fn_name)
            found = {"inputs": [_given(t) for t in tests], "outputs": [_wanted(t) for t in tests]} if tests else None
        if write:
            records.write_json(folder / "example_input_output.json", found)
        yield {"problem_id": folder.name, **(found or {"inputs": None, "outputs": None})}


def _given(test: UnitTest) -> Any:
    return test.stdin if isinstance(test, StdinTest) else list(test.args) if isinstance(test, CallTest) else test.code


def _wanted(test: UnitTest) -> Any:
    return test.stdout if isinstance(test, StdinTest) else test.expected if isinstance(test, CallTest) else None
