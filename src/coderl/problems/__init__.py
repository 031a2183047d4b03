"""Data sets of programming problems, each read into `LabelledProblem`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from coderl.problems import apps, formats, mbpp
from coderl.problems.apps import ExampleRules
from coderl.problems.formats import FORMATS, Options, known
from coderl.problems.json_files import OnBad, read_records, refuse
from coderl.types import InputError, LabelledProblem

__all__ = ["FORMATS", "ExampleRules", "OnBad", "load", "read"]

_DATA_FILE = re.compile(
    r"(?P<split>[^.]*?)(?:-\d{5}-of-\d{5}(?:-[0-9a-f]+)?)?(?:\.jsonl?(?:\.gz|\.zst)?|\.parquet)", re.IGNORECASE
)
"""A file that may hold problems; the hub cuts a split into numbered parts."""


def load(
    source: str | Path,
    *,
    format: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    num_shown_tests: int | None = None,
    example_rules: ExampleRules = "default",
    on_bad: OnBad = refuse,
) -> list[LabelledProblem]:
    """Return the problems of a data set, in its own order; those without tests too, with `hidden_tests` empty.

    Args:
        source: an APPS folder (of one problem, of problems or of splits), a file of records (JSON lines or a JSON list,
            compressed or not, or Parquet), a folder of one such file or of one a split, `hub:OWNER/NAME[:CONFIG]`, or
            `miniapps[:seed=1,...]`.
        format: one of `FORMATS`; None to see it from the data.
        split: None for all.
        limit: keep the first so many.
        num_shown_tests: MBPP's asserts that the prompt shows; see `mbpp.problem`.
        example_rules: how APPS' example tests are found.
        on_bad: is given the complaint about each record that cannot be used, and the others are returned; to collect
            them: `bad = []; load(..., on_bad=bad.append)`. The default stops at the first.

    Raises:
        InputError: the source is missing, empty or unreadable, or a name is not known; or, where `on_bad` raises it, a
            record is malformed or its id stands twice.
    """
    options = Options(num_shown_tests, example_rules)
    return list(_read(str(source), format, split, limit, options, on_bad))


def read(
    source: str | Path, *, split: str | None = None, limit: int | None = None, on_bad: OnBad = refuse
) -> Iterator[LabelledProblem]:
    """Yield the problems of a data set as `load` would return them: for who need not hold their tests.

    Raises:
        InputError: see `load`.
    """
    return _read(str(source), None, split, limit, Options(), on_bad)


def _read(
    source: str, format: str | None, split: str | None, limit: int | None, options: Options, on_bad: OnBad
) -> Iterator[LabelledProblem]:
    _check_arguments(format, limit, options.num_shown_tests)
    bad: list[InputError] = []

    def count(error: InputError) -> None:
        if len(bad) < 2:  # one to name, one to know that there are more
            bad.append(error)
        on_bad(error)

    num_good = 0
    for labelled in islice(_distinct(_problems(source, format, split, options, count), source, count), limit):
        num_good += 1
        yield labelled
    if num_good == 0 and limit != 0:
        if bad:
            raise InputError(f"{bad[0]}" + (" (and so on: no record can be used)" if len(bad) > 1 else ""))
        raise InputError(f"{source}: no problems" + (f" in the split '{split}'" if split else ""))


def _distinct(problems: Iterable[LabelledProblem], source: str, on_bad: OnBad) -> Iterator[LabelledProblem]:
    """The problems whose ids can name a file and are not yet taken."""
    seen: set[str] = set()
    for labelled in problems:
        problem_id = labelled.problem.problem_id
        if problem_id in seen:
            on_bad(InputError(f"{source}: problem '{problem_id}' stands twice; name one split"))
        elif not _can_name_a_file(problem_id):
            on_bad(InputError(f"{source}: problem id {problem_id[:80]!r} cannot name a file"))
        else:
            seen.add(problem_id)
            yield labelled


def _can_name_a_file(problem_id: str) -> bool:
    """True for a printable text of at most 200 bytes without a separator: stages and the original write such files."""
    is_short = problem_id.isprintable() and 0 < len(problem_id.encode()) <= 200
    return is_short and problem_id not in (".", "..") and not re.search(r"[/\\]", problem_id)


def _check_arguments(format: str | None, limit: int | None, num_shown_tests: int | None) -> None:
    if format is not None:
        known(format, FORMATS, "format")
    for name, value in (("limit", limit), ("num_shown_tests", num_shown_tests)):
        if value is not None and value < 0:
            raise InputError(f"{name} must not be negative, found {value}")


def _problems(
    source: str, format: str | None, split: str | None, options: Options, on_bad: OnBad
) -> Iterator[LabelledProblem]:
    if source == "miniapps" or source.startswith("miniapps:") or format == "miniapps":
        options.check("miniapps", source)
        return _generated(source, split)
    if source.startswith("hub:"):
        return _from_hub(source, format, split, options, on_bad)
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if (path / "question.txt").exists():
        return iter([apps.read_folder(path, example_rules=options.example_rules)])
    if path.is_dir() and (format == "apps" or format is None) and apps.is_folder_tree(path):
        options.check("apps", source)
        return _from_folders(path, split, options, on_bad)
    paths, split = _data_files(path, split) if path.is_dir() else ([path], split)
    return _from_records(_numbered(paths, on_bad), source, format, split, options, on_bad)


def _numbered(paths: Iterable[Path], on_bad: OnBad) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The records of some files with their numbers; a line that cannot be read has one too."""
    number = 0

    def count(error: InputError) -> None:
        nonlocal number
        number += 1
        on_bad(error)

    for path in paths:
        for where, record in read_records(path, count):
            yield number, where, record
            number += 1


def _from_folders(path: Path, split: str | None, options: Options, on_bad: OnBad) -> Iterator[LabelledProblem]:
    splits = apps.splits(path)
    if splits:
        names = list(splits) if split is None else [known(split, splits, "split", f"{path}: ")]
        return apps.read_splits(path, names, example_rules=options.example_rules, on_bad=on_bad)
    if split is not None:
        raise InputError(f"{path}: holds problems, not splits; drop split='{split}' or name the folder above")
    return apps.read_folders(path, example_rules=options.example_rules, on_bad=on_bad)


def _data_files(folder: Path, split: str | None) -> tuple[list[Path], str | None]:
    """The files of the only split of a folder, or of the one asked for; and the split still to be picked from them."""
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if match := _DATA_FILE.fullmatch(file.name):
            files.setdefault(match["split"], []).append(file)
    if not files:
        raise InputError(
            f"{folder}: no problem folders (with question.txt) and no .jsonl, .json or .parquet file in it"
        )
    if split in files:
        return files[split], None
    if len(files) == 1:
        return next(iter(files.values())), split
    names = [file.name for parts in files.values() for file in parts]
    raise InputError(f"{folder}: several data files; name one of {', '.join(names)}")


def _from_records(
    records: Iterable[tuple[int, str, dict[str, Any]]],
    source: str,
    format: str | None,
    split: str | None,
    options: Options,
    on_bad: OnBad,
) -> Iterator[LabelledProblem]:
    for number, where, record in records:
        try:
            kind = format or formats.format_of(record, where)
        except InputError as error:
            on_bad(error)
            continue
        if format is None:  # the first record that is of any format tells the format of them all
            format = kind
            options.check(format, source)
        if split is not None and not _is_in_split(record, format, split, source):
            continue
        try:
            labelled = formats.problem(record, where, number, format, options)
        except InputError as error:
            on_bad(error)
            continue
        yield labelled


def _is_in_split(record: dict[str, Any], format: str, split: str, source: str) -> bool:
    if format == "mbpp":
        return mbpp.split_of(record) == known(split, mbpp.SPLITS, "split", f"{source}: ")
    if format in ("humaneval", "evalplus", "livecodebench"):
        return bool(known(split, ("test",), "split", f"{source}: "))
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
        options[known(name, config_type.model_fields, "option", f"{source}: ")] = value
    try:
        config = config_type.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{source}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    splits = _generate_once(config.model_dump_json())
    names = splits if split is None else [known(split, splits, "split", f"{source}: ")]
    for name in names:
        yield from splits[name]


@functools.lru_cache(maxsize=1)
def _generate_once(config_json: str) -> dict[str, list[LabelledProblem]]:
    """A run loads three splits of the same benchmark."""
    from coderl.problems.miniapps import data as miniapps

    return miniapps.generate(miniapps.MiniAppsConfig.model_validate_json(config_json))


def _from_hub(
    source: str, format: str | None, split: str | None, options: Options, on_bad: OnBad
) -> Iterator[LabelledProblem]:
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(f"{source}: needs the `datasets` library: pip install 'coderl[datasets]'") from None
    name, _, config = source.removeprefix("hub:").partition(":")
    is_apps = name.endswith("/apps")
    if is_apps:  # its loading script no longer runs; its files are plain JSON lines
        names = ("train", "test") if split is None else (known(split, ("train", "test"), "split", f"{source}: "),)
        files = {part: f"hf://datasets/{name}/{part}.jsonl" for part in names}
        found = datasets.load_dataset("json", data_files=files, split=split, streaming=True)
    else:
        found = datasets.load_dataset(name, config or None, split=split, streaming=True)
    is_numbered_anew = is_apps or name.endswith("/TACO")  # in each split
    for part, rows in ({split: found} if split is not None else found).items():
        numbered = ((index, f"{source} {part}[{index}]", dict(row)) for index, row in enumerate(rows))
        for labelled in _from_records(numbered, source, format, None, options, on_bad):
            yield apps.with_id_prefix(labelled, f"{part}-") if is_numbered_anew else labelled
