"""CodeXGLUE: the pairs of its tasks that write, from the files as its authors publish them.

    task           files of a split in a folder                                   pair
    code-to-text   SPLIT.jsonl or .jsonl.gz: code_tokens, docstring_tokens        a function -> its summary
    text-to-code   SPLIT.json: nl, code (CONCODE)                                 a wish and its class -> a method
    code-to-code   SPLIT.java-cs.txt.java, SPLIT.java-cs.txt.cs                   Java -> C#, or C# -> Java
    refinement     SPLIT.buggy-fixed.buggy, SPLIT.buggy-fixed.fixed               a wrong method -> the right one

SPLIT is `train`, `valid` (also named `dev`) or `test`. A folder holds one language of code-to-text, or one size of
refinement (`small`, `medium`).

Source: Lu et al. 2021, "CodeXGLUE", github.com/microsoft/CodeXGLUE; read as CodeT5's `run_gen.py` reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coderl.problems.json_files import (
    read_records,
    read_text,
    text_field,
    texts_field,
)
from coderl.types import InputError

Task = Literal["code-to-text", "text-to-code", "code-to-code", "refinement"]
Language = Literal["java", "c_sharp", "python"]
Split = Literal["train", "valid", "test"]

PARALLEL_SUFFIXES = {"java": ".java-cs.txt.java", "c_sharp": ".java-cs.txt.cs"}
"""Of code-to-code."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What a model reads and what it should write; each is one line of text."""

    name: str
    """Its number in the file from 0, or its `idx`."""
    source: str
    target: str


def files_of(task: Task, folder: Path, split: Split, *, language: Language = "java") -> list[Path]:
    """Return the files of a split: one that holds both sides, or that of the sources and that of the targets.

    Args:
        task: What the files are.
        folder: Where they are.
        split: Which of them.
        language: What code-to-code writes.

    Raises:
        InputError: they are not there, or the task does not write the language.
    """
    if task == "code-to-text":
        choices = [[".jsonl"], [".jsonl.gz"]]
    elif task == "text-to-code":
        choices = [[".json"]]
    elif task == "refinement":
        choices = [[".buggy-fixed.buggy", ".buggy-fixed.fixed"]]
    elif language in PARALLEL_SUFFIXES:
        target = PARALLEL_SUFFIXES[language]
        choices = [[*(suffix for suffix in PARALLEL_SUFFIXES.values() if suffix != target), target]]
    else:
        raise InputError(f"language {language!r}: code-to-code writes {' or '.join(PARALLEL_SUFFIXES)}")
    names = ("valid", "dev") if split == "valid" else (split,)
    found = [[folder / f"{name}{suffix}" for suffix in suffixes] for name in names for suffixes in choices]
    for files in found:
        if all(file.is_file() for file in files):
            return files
    expected = " or ".join(", ".join(file.name for file in files) for files in found)
    raise InputError(f"{folder}: no {split} split of {task} in it, expected {expected}")


def read_pairs(task: Task, folder: Path, split: Split, *, language: Language = "java") -> list[Pair]:
    """Return the pairs of a split in the order of its files; for the arguments see `files_of`.

    Raises:
        InputError: files are missing or malformed, two parallel files differ in length, or there is no pair.
    """
    files = files_of(task, folder, split, language=language)
    if task == "code-to-text":
        pairs = read_code_to_text(files[0])
    elif task == "text-to-code":
        pairs = read_concode(files[0])
    else:
        sources, targets = map(read_lines, files)
        if len(sources) != len(targets):
            raise InputError(f"{files[0]}: {len(sources)} lines, but {len(targets)} in {files[1].name}")
        pairs = [Pair(str(i), *both) for i, both in enumerate(zip(sources, targets, strict=True))]
    for pair in pairs:
        if not pair.source:
            raise InputError(f"{files[0]}: nothing to read in pair {pair.name} (an empty line, `nl` or `code_tokens`)")
    if not pairs:
        raise InputError(f"{files[0]}: no pair in it")
    return pairs


def read_lines(path: Path) -> list[str]:
    """Return the programs of a parallel text file, one a line, without the blanks around them.

    Raises:
        InputError: the file is missing or not UTF-8.
    """
    text = read_text(path)
    return [line.strip() for line in text.removesuffix("\n").split("\n")] if text else []


def read_concode(path: Path) -> list[Pair]:
    """Return the pairs of a CONCODE file (text-to-code): `nl` and `code` of each line.

    Raises:
        InputError: the file is missing, or a line is no object with text as `code`.
    """
    return [
        Pair(str(index), text_field(record, "nl", where, default="").strip(), text_field(record, "code", where).strip())
        for index, (where, record) in enumerate(read_records(path))
    ]


def read_code_to_text(path: Path) -> list[Pair]:
    """Return the pairs of a file of CodeSearchNet's JSON lines (code-to-text): tokens joined by single blanks.

    Raises:
        InputError: the file is missing, a line lacks `docstring_tokens`, or two have the same `idx`.
    """
    pairs: dict[str, Pair] = {}
    for index, (where, record) in enumerate(read_records(path)):
        name = record.get("idx", index)
        if not isinstance(name, int | str) or str(name) in pairs:
            raise InputError(f"{where}: field 'idx' must be a number, another in each line")
        if "docstring_tokens" not in record:
            raise InputError(f"{where}: field 'docstring_tokens' is missing")
        code, text = (texts_field(record, field, where) for field in ("code_tokens", "docstring_tokens"))
        source, target = " ".join(code).replace("\n", " "), " ".join(text).replace("\n", "")
        pairs[str(name)] = Pair(str(name), " ".join(source.split()), " ".join(target.split()))
    return list(pairs.values())
