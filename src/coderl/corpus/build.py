"""The stage that makes a corpus of folders of Python files: Parquet shards of text, and what was left out and why."""

from __future__ import annotations

import hashlib
import resource
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from coderl import records, tables
from coderl.corpus import DroppedFile, filters, licences, near_duplicates, sources
from coderl.corpus.sources import Source
from coderl.settings import Config, Count
from coderl.stages.console import Reporter
from coderl.stages.stage import Facts, Input, Work, chunks, stage
from coderl.training.packed import CorpusFile
from coderl.types import InputError

Split = Literal["train", "validation"]
EXAMINED_AT_ONCE = 500
"""Files a part: what a killed run may have to read again."""


class CorpusConfig(Config):
    """Which files are kept, and how they are split and written."""

    any_licence: bool = False
    """Keep files of unknown licence and of licences that are not permissive."""
    min_bytes: Count = 128
    max_bytes: Count = 1_000_000
    max_line_chars: Count = 1_000
    """Files with a longer line are dropped."""
    similarity: Annotated[float, Field(gt=0.5, le=1)] = 0.85
    """Files that share so much of their runs of five words (Jaccard) with a file kept before are dropped."""
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Whole projects are held out, of at most this share of the bytes together."""
    shard_bytes: Count = 16_000_000
    """Text of a shard, at least: it ends with the file that reaches it."""
    seed: int = 0
    """Decides which projects are held out, and the order of the files."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What reading one file alone told."""

    number: int
    """In the list of sources."""
    licence: str | None
    reason: str | None
    """Why it is dropped, None if only its twins may be a reason."""
    num_bytes: int
    digest: str
    """Of the text without blank lines and spaces at line ends."""
    signature: tuple[int, ...]


class SourcesInput(Input):
    """Folders of Python files: the names, projects, licences and bytes of the files in them."""

    def digest(self, value: Any) -> Any:
        """Return the hash of all the files.

        Raises:
            InputError: there is no file.
        """
        digest = hashlib.sha256()
        for source in sources.find(value):
            about = f"{source.name}\0{source.project}\0{source.licence}\0{records.hash_path(source.file)}\n"
            digest.update(about.encode())
        return digest.hexdigest()


@stage
def build_corpus(
    work: Work,
    folders: Annotated[
        Sequence[Path],
        SourcesInput("Folders of installed packages (with their `*.dist-info`), of projects, or projects."),
    ],
    *,
    config: CorpusConfig = CorpusConfig(),
) -> Facts:
    r"""Make a pretraining corpus of folders of Python files: permissive licences, no copies, no secrets.

        coderl build-corpus .venv/lib/python3.11/site-packages --out data/corpus
        coderl build-corpus src/projects more/projects --out data/corpus --any-licence \
            --validation-share 0.05

    Files go to OUT/train and OUT/validation, by project, as Parquet shards; OUT/dropped says why the others did not;
    OUT/manifest.json counts both. Files are examined in parts, then compared, then written in shards: a killed command
    goes on at the next part or shard. Memory: the signatures of a part or the texts of a few hundred files, and about
    4 kB a file.

    Raises:
        InputError: there is no file, or none is kept.
    """
    found = sources.find(folders)
    work.reporter.say(f"{len(found)} Python files of {len({s.project for s in found})} projects")
    examined = tables.PartedTable(work.folder / ".examined", Examined)
    for index, part in work.parts(
        examined, chunks(range(len(found)), EXAMINED_AT_ONCE), "reading", "parts of 500 files"
    ):
        examined.write(index, (examine(number, found[number], config) for number in part))
    rows = [replace(row, signature=()) for row in examined.rows()]
    twins = _twins(examined, found, config, work.reporter)
    kept = [row for row in rows if row.reason is None and row.number not in twins]
    if not kept:
        shutil.rmtree(examined.folder)
        raise InputError(f"none of the {len(found)} files is kept: {_reasons(rows, twins)}")
    held_out = held_out_projects(_bytes_by_project(kept, found), config.validation_share, config.seed)
    _write_dropped(work.folder, rows, twins, found)
    for split in ("train", "validation"):
        chosen = [row for row in kept if (found[row.number].project in held_out) == (split == "validation")]
        _write_shards(work, split, chosen, found, config)
    return _facts(work.folder, rows, twins, kept, held_out, found)


# ------------------------------------------------------------------------------------------------- one file at a time


def examine(number: int, source: Source, config: CorpusConfig) -> Examined:
    """Return whether a file is kept as far as it alone tells, and what it takes to find its twins."""
    num_bytes = source.file.stat().st_size
    blank = Examined(number, source.licence, None, num_bytes, "", ())
    if not config.min_bytes <= num_bytes <= config.max_bytes:
        return replace(blank, reason="too small" if num_bytes < config.min_bytes else "too large")
    if filters.is_vendored(source.path):
        return replace(blank, reason="vendored")
    text = filters.decode(source.file.read_bytes())
    if text is None:
        return replace(blank, reason="not UTF-8")
    licence = licences.of_header(text) or source.licence
    blank = replace(blank, licence=licence, num_bytes=len(text.encode()))
    if not config.any_licence and (licence is None or not licences.is_permissive(licence)):
        return replace(blank, reason="unknown licence" if licence is None else "licence not permissive")
    reason = _fault_of(source.path, text, config)
    if reason is not None:
        return replace(blank, reason=reason)
    lines = (line.rstrip() for line in text.split("\n"))
    digest = hashlib.sha256("\n".join(line for line in lines if line).encode()).hexdigest()
    signed = near_duplicates.signature(near_duplicates.shingles(text))
    return replace(blank, digest=digest, signature=tuple(signed.tolist()))


def _fault_of(path: str, text: str, config: CorpusConfig) -> str | None:
    if filters.is_generated(path, text):
        return "generated"
    if filters.has_secret(text):
        return "secret"
    if filters.has_long_lines(text, config.max_line_chars):
        return "long lines or few letters"
    tree = filters.parse(text)
    if tree is None:
        return "not parsable"
    return "mostly data" if filters.is_data(tree, text.count("\n") + 1) else None


def _text(source: Source) -> str:
    text = filters.decode(source.file.read_bytes())
    if text is None:
        raise InputError(f"{source.file}: changed while the corpus was being built")
    return text


# ----------------------------------------------------------------------------------------------- all files together


def _twins(
    examined: tables.PartedTable, found: Sequence[Source], config: CorpusConfig, reporter: Reporter
) -> dict[int, tuple[str, int]]:
    """Return why each repeated file is dropped, and which file it repeats."""
    import numpy as np

    twins: dict[int, tuple[str, int]] = {}
    first_of: dict[bytes, int] = {}
    seen = near_duplicates.NearDuplicates(config.similarity, lambda number: _text(found[number]))
    for row in reporter.track(examined.rows(), "comparing", total=len(found), unit="files"):
        if row.reason is not None:
            continue
        first = first_of.setdefault(bytes.fromhex(row.digest), row.number)
        if first != row.number:
            twins[row.number] = ("duplicate", first)
        elif (twin := seen.twin_of(row.number, np.array(row.signature, np.uint32))) is not None:
            twins[row.number] = ("near duplicate", twin)
    return twins


def held_out_projects(num_bytes: dict[str, int], share: float, seed: int) -> set[str]:
    """Return the projects for validation: in an order that only their names and the seed decide, those that fit.

    They have at most `share` of the bytes together. Where none fits, the smallest is held out, if there is another.
    """
    if not share or len(num_bytes) < 2:
        return set()
    room = share * sum(num_bytes.values())
    chosen: set[str] = set()
    for project in sorted(num_bytes, key=lambda name: _place(seed, name)):
        if num_bytes[project] <= room:
            chosen.add(project)
            room -= num_bytes[project]
    return chosen or {min(num_bytes, key=lambda name: (num_bytes[name], name))}


def _place(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}|{name}".encode("utf-8", "replace")).hexdigest()


def _bytes_by_project(kept: Sequence[Examined], found: Sequence[Source]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for row in kept:
        totals[found[row.number].project] += row.num_bytes
    return dict(totals)


def _write_shards(
    work: Work, split: Split, chosen: Sequence[Examined], found: Sequence[Source], config: CorpusConfig
) -> None:
    """Write the files in an order that mixes projects, so that each shard is a sample of them all."""
    ordered = sorted(chosen, key=lambda row: _place(config.seed, found[row.number].name))
    shards: list[list[Examined]] = []
    size = config.shard_bytes
    for row in ordered:
        if size >= config.shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(row)
        size += row.num_bytes
    table = tables.PartedTable(work.folder / split, CorpusFile)
    table.folder.mkdir(exist_ok=True)
    for index, shard in work.parts(table, shards, f"writing {split}", "shards"):
        pairs = ((row, found[row.number]) for row in shard)
        table.write(index, (CorpusFile(s.name, s.project, row.licence, _text(s)) for row, s in pairs))


def _write_dropped(
    folder: Path, rows: Sequence[Examined], twins: dict[int, tuple[str, int]], found: Sequence[Source]
) -> None:
    def dropped() -> Iterator[DroppedFile]:
        for row in rows:
            source = found[row.number]
            reason, twin = twins.get(row.number, (row.reason, None))
            if reason is not None:
                twin_name = None if twin is None else found[twin].name
                yield DroppedFile(source.name, source.project, row.licence, reason, twin_name)

    tables.PartedTable(folder / "dropped", DroppedFile).write(0, dropped())


def _reasons(rows: Sequence[Examined], twins: dict[int, tuple[str, int]]) -> dict[str, dict[str, int]]:
    """Return the number of files, and their bytes, dropped for each reason, the largest first."""
    files: Counter[str] = Counter()
    num_bytes: Counter[str] = Counter()
    for row in rows:
        reason = twins[row.number][0] if row.number in twins else row.reason
        if reason is not None:
            files[reason] += 1
            num_bytes[reason] += row.num_bytes
    return {reason: {"num_files": n, "num_bytes": num_bytes[reason]} for reason, n in files.most_common()}


def _facts(
    folder: Path,
    rows: Sequence[Examined],
    twins: dict[int, tuple[str, int]],
    kept: Sequence[Examined],
    held_out: set[str],
    found: Sequence[Source],
) -> dict[str, Any]:
    by_project: dict[str, dict[str, Any]] = {}
    for row in kept:
        name = found[row.number].project
        split = "validation" if name in held_out else "train"
        entry = by_project.setdefault(name, {"split": split, "licences": {}, "num_files": 0, "num_bytes": 0})
        entry["num_files"] += 1
        entry["num_bytes"] += row.num_bytes
        licence = row.licence or "unknown"
        entry["licences"][licence] = entry["licences"].get(licence, 0) + 1
    records.write_json(folder / "projects.json", dict(sorted(by_project.items(), key=lambda kv: -kv[1]["num_bytes"])))
    splits = {
        split: {
            "num_projects": sum(e["split"] == split for e in by_project.values()),
            "num_files": sum(e["num_files"] for e in by_project.values() if e["split"] == split),
            "num_bytes": sum(e["num_bytes"] for e in by_project.values() if e["split"] == split),
        }
        for split in ("train", "validation")
    }
    return {
        "num_files": len(rows),
        "num_bytes": sum(row.num_bytes for row in rows),
        "kept": splits,
        "dropped": _reasons(rows, twins),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
