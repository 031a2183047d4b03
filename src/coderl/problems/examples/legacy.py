"""The original's rules for finding example tests in a description, flaws kept: published numbers rest on them."""

from __future__ import annotations

import re

_EXAMPLE_HEADER = re.compile(r"-examples?-|-example -|-example [1-5]-|example:|example [1245]:|-example 3:")


def extract_legacy(description: str) -> dict[str, list[str]] | None:
    """Return `{"inputs", "outputs"}` as in the original's `example_input_output.json`, or None.

    Kept flaws: inline examples become lower case, arguments of call-based examples stay text with the explanation in
    it, what follows a blank line inside a sample is lost, and a data line that holds "Input" opens a new sample.

    Source: spec of the reference code, `extract_example_test.ipynb`.
    """
    inputs: list[str] = []
    outputs: list[str] = []
    pending = {"input": "", "output": ""}
    capturing: str | None = None
    in_examples = False
    for line in re.findall(r"[^\n]*\n|[^\n]+", description):
        lowered = line.lower()
        if not line.strip():
            capturing = None
        elif _EXAMPLE_HEADER.search(lowered):
            in_examples = True
        elif "-note-" in lowered:
            capturing, in_examples = None, False
        elif kind := _marker(line, in_examples):
            capturing = kind
            other, finished = ("output", outputs) if kind == "input" else ("input", inputs)
            if pending[other]:
                finished.append(pending[other])
                pending[other] = ""
            pending[kind] = _inline(lowered, kind) or pending[kind]
        elif capturing:
            pending[capturing] += line
    if pending["output"]:
        outputs.append(pending["output"])
        capturing = None
    if not inputs or len(inputs) != len(outputs) or capturing:
        return None
    return {"inputs": inputs, "outputs": outputs}


def _marker(line: str, in_examples: bool) -> str | None:
    """`input` or `output` for a line that opens one; input wins where a line names both."""
    for kind in ("Input", "Output"):
        explicit = (f"-Sample {kind}", f"-Example {kind}", f"Sample {kind}:", f"-Sample {kind.lower()}")
        if (in_examples and kind in line) or any(phrase in line for phrase in explicit):
            return kind.lower()
    return None


def _inline(lowered: str, kind: str) -> str:
    """The content that stands on the marker's own line, in lower case as the original takes it."""
    if f"{kind}:" not in lowered or f"-sample {kind}" in lowered or f"-example {kind}" in lowered:
        return ""
    rest = lowered.replace("example", "").replace("sample", "").replace(f"{kind}:", "")
    return rest if rest.strip() else ""
