"""Data sets of programming problems, each read into `LabelledProblem`."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from coderl.problems import (
    apps,
    humaneval,
    jsonl,
    mbpp,
)
from coderl.problems.apps import ExampleRules
from coderl.problems.json_files import read_records
from coderl.types import InputError, LabelledProblem

__all__ = ["FORMATS", "ExampleRules", "load", "read"]

FORMATS = ("apps", "mbpp", "humaneval", "jsonl", "miniapps")
"""The formats `load` knows; it tells them apart by itself."""

_DATA_FILES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")


def load(
    source: str | Path,
    *,
    format: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    num_shown_tests: int | None = None,
    example_rules: ExampleRules = "default",
) -> list[LabelledProblem]:
    """Return the problems of a data set, in its own order; those without tests too, with `hidden_tests` empty.

    Args:
        source: an APPS folder (of one problem, of problems or of splits), a file (APPS, MBPP, HumanEval or our own JSON
            lines), a folder of one such file or of one a split, `hub:OWNER/NAME[:CONFIG]`, or `miniapps[:seed=1,...]`.
        format: one of `FORMATS`; None to see it from the data.
        split: None for all.
        limit: keep the first so many.
        num_shown_tests: MBPP's asserts that the prompt shows; see `mbpp.problem`.
        example_rules: how APPS' example tests are found.

    Raises:
        InputError: the source is missing, empty or malformed, an id stands twice, or a name is not known.
    """
    options = _Options(num_shown_tests, example_rules)
    return list(_read(str(source), format, split, limit, options))


def read(source: str | Path, *, split: str | None = None, limit: int | None = None) -> Iterator[LabelledProblem]:
    """Yield the problems of a data set as `load` would return them: for who need not hold their tests.

    Raises:
        InputError: see `load`.
    """
    return _read(str(source), None, split, limit, _Options(None, "default"))


def _read(
    source: str, format: str | None, split: str | None, limit: int | None, options: _Options
) -> Iterator[LabelledProblem]:
    _check_arguments(format, limit, options.num_shown_tests)
    seen: set[str] = set()
    for labelled in islice(_problems(source, format, split, options), limit):
        problem_id = labelled.problem.problem_id
        if problem_id in seen:
            raise InputError(f"{source}: problem '{problem_id}' stands twice; name one split")
        if not _can_name_a_file(problem_id):
            raise InputError(f"{source}: problem id {problem_id[:80]!r} cannot name a file")
        seen.add(problem_id)
        yield labelled
    if not seen and limit != 0:
        raise InputError(f"{source}: no problems" + (f" in the split '{split}'" if split else ""))


def _can_name_a_file(problem_id: str) -> bool:
    """True for a printable text of at most 200 bytes without a separator: stages and the original write such files."""
    is_short = problem_id.isprintable() and 0 < len(problem_id.encode()) <= 200
    return is_short and problem_id not in (".", "..") and not re.search(r"[/\\]", problem_id)


@dataclass(frozen=True)
class _Options:
    """What the caller asked of particular formats; asking it of another one is an error."""

    num_shown_tests: int | None
    example_rules: ExampleRules

    def check(self, format: str, source: str) -> None:
        if self.num_shown_tests is not None and format != "mbpp":
            raise InputError(f"{source}: num_shown_tests is for MBPP, this is {format}")
        if self.example_rules != "default" and format != "apps":
            raise InputError(f"{source}: example_rules is for APPS, this is {format}")


def _check_arguments(format: str | None, limit: int | None, num_shown_tests: int | None) -> None:
    if format is not None:
        _known(format, FORMATS, "format")
    for name, value in (("limit", limit), ("num_shown_tests", num_shown_tests)):
        if value is not None and value < 0:
            raise InputError(f"{name} must not be negative, found {value}")


def _known(name: str, names: Iterable[str], what: str, where: str = "") -> str:
    """Return `name` when it is one of `names`, else complain, naming the nearest."""
    names = list(names)
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise InputError(f"{where}unknown {what} '{name}'; {hint}known: {', '.join(names)}")


def _problems(source: str, format: str | None, split: str | None, options: _Options) -> Iterator[LabelledProblem]:
    if source == "miniapps" or source.startswith("miniapps:") or format == "miniapps":
        options.check("miniapps", source)
        return _generated(source, split)
    if source.startswith("hub:"):
        return _from_hub(source, format, split, options)
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if (path / "question.txt").exists():
        return iter([apps.read_folder(path, example_rules=options.example_rules)])
    if path.is_dir() and (format == "apps" or format is None) and apps.is_folder_tree(path):
        options.check("apps", source)
        return _from_folders(path, split, options)
    if path.is_dir():
        path, split = _data_file(path, split)
    return _from_records(read_records(path), str(path), format, split, options)


def _from_folders(path: Path, split: str | None, options: _Options) -> Iterator[LabelledProblem]:
    splits = apps.splits(path)
    if splits:
        names = list(splits) if split is None else [_known(split, splits, "split", f"{path}: ")]
        return apps.read_splits(path, names, example_rules=options.example_rules)
    if split is not None:
        raise InputError(f"{path}: holds problems, not splits; drop split='{split}' or name the folder above")
    return apps.read_folders(path, example_rules=options.example_rules)


def _data_file(folder: Path, split: str | None) -> tuple[Path, str | None]:
    """The only data file of a folder, or the one named after the split; and the split still to be picked from it."""
    files = {f.name.split(".")[0]: f for f in sorted(folder.iterdir()) if f.name.endswith(_DATA_FILES)}
    if not files:
        raise InputError(f"{folder}: no problem folders (with question.txt) and no .jsonl or .json file in it")
    if split in files:
        return files[split], None
    if len(files) == 1:
        return next(iter(files.values())), split
    raise InputError(f"{folder}: several data files; name one of {', '.join(f.name for f in files.values())}")


def _format_of(record: dict[str, Any], where: str) -> str:
    if "entry_point" in record:
        return "humaneval"
    if "test_list" in record:
        return "mbpp"
    if "question" in record:
        return "apps"
    if "problem_id" in record and "description" in record:
        return "jsonl"
    known = ", ".join(sorted(record)[:6]) or "none"
    raise InputError(f"{where}: not a problem of a known format (its fields: {known}); formats: {', '.join(FORMATS)}")


def _from_records(
    records: Iterable[tuple[str, dict[str, Any]]], source: str, format: str | None, split: str | None, options: _Options
) -> Iterator[LabelledProblem]:
    for where, record in records:
        if format is None:
            format = _format_of(record, where)
        options.check(format, source)
        if split is not None and not _is_in_split(record, format, split, source):
            continue
        yield _problem(record, where, format, options)


def _problem(record: dict[str, Any], where: str, format: str, options: _Options) -> LabelledProblem:
    match format:
        case "apps":
            return apps.problem(record, where, example_rules=options.example_rules)
        case "mbpp":
            return mbpp.problem(record, where, num_shown_tests=options.num_shown_tests)
        case "humaneval":
            return humaneval.problem(record, where)
    return jsonl.problem(record, where)


def _is_in_split(record: dict[str, Any], format: str, split: str, source: str) -> bool:
    if format == "mbpp":
        return mbpp.split_of(record) == _known(split, mbpp.SPLITS, "split", f"{source}: ")
    if format == "humaneval":
        return bool(_known(split, ("test",), "split", f"{source}: "))
    raise InputError(f"{source}: one file has no splits; drop split='{split}'")


def _generated(source: str, split: str | None) -> Iterator[LabelledProblem]:
    from pydantic import ValidationError

    from coderl.problems.miniapps import data as miniapps

    config_type = miniapps.MiniAppsConfig
    options: dict[str, str] = {}
    for item in filter(None, source.partition(":")[2].split(",")):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise InputError(f"{source}: expected miniapps:name=value,..., found '{item}'")
        options[_known(name, config_type.model_fields, "option", f"{source}: ")] = value
    try:
        config = config_type.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{source}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    splits = _generate_once(config.model_dump_json())
    names = splits if split is None else [_known(split, splits, "split", f"{source}: ")]
    for name in names:
        yield from splits[name]


@functools.lru_cache(maxsize=1)
def _generate_once(config_json: str) -> dict[str, list[LabelledProblem]]:
    """A run loads three splits of the same benchmark."""
    from coderl.problems.miniapps import data as miniapps

    return miniapps.generate(miniapps.MiniAppsConfig.model_validate_json(config_json))


def _from_hub(source: str, format: str | None, split: str | None, options: _Options) -> Iterator[LabelledProblem]:
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(f"{source}: needs the `datasets` library: pip install 'coderl[datasets]'") from None
    name, _, config = source.removeprefix("hub:").partition(":")
    is_apps = name.endswith("/apps")
    if is_apps:  # its loading script no longer runs; its files are plain JSON lines
        names = ("train", "test") if split is None else (_known(split, ("train", "test"), "split", f"{source}: "),)
        files = {part: f"hf://datasets/{name}/{part}.jsonl" for part in names}
        found = datasets.load_dataset("json", data_files=files, split=split, streaming=True)
    else:
        found = datasets.load_dataset(name, config or None, split=split, streaming=True)
    for part, rows in ({split: found} if split is not None else found).items():
        numbered = ((f"{source} {part}[{index}]", dict(row)) for index, row in enumerate(rows))
        for labelled in _from_records(numbered, source, format, None, options):
            yield apps.with_id_prefix(labelled, f"{part}-") if is_apps else labelled  # numbered anew in each split
