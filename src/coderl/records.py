"""The run directory: typed Parquet tables, manifests with content hashes, atomic writes.

A run is a folder; a stage is a folder in it. A stage folder is complete when it holds `manifest.json`, which names what
the stage was asked to do (its config and the content hashes of its inputs) and the hash of each file it wrote. While a
stage is under way the folder holds `started.json` with the same request, so that the same command continues it and
another one is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import tempfile
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from coderl.types import InputError

Row = TypeVar("Row")
MANIFEST = "manifest.json"
STARTED = "started.json"


# ---------------------------------------------------------------------------------------------------- atomic files


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on an error it disappears."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it replaces the folder `path`, on an error it disappears."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, all of it or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, all of it or nothing."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")


MAX_JSON_BYTES = 1 << 29
"""No JSON file of a single value, and no line of a file of many, is read that is longer: 512 MiB."""


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`.

    Raises:
        InputError: the file is missing, too long, is not UTF-8 or is not JSON.
    """
    try:
        refuse_long(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # a number of too many digits is a ValueError
        raise InputError(f"{path}: not valid JSON ({error})") from None


def refuse_long(path: Path) -> None:
    """Refuse a JSON file that would fill the memory.

    Raises:
        InputError: it is longer than `MAX_JSON_BYTES`.
        OSError: it is not there.
    """
    if (size := path.stat().st_size) > MAX_JSON_BYTES:
        raise InputError(f"{path}: {size:,} bytes of JSON, at most {MAX_JSON_BYTES:,} are read")


# ------------------------------------------------------------------------------------------------------------ hashes


def plain(value: Any) -> Any:
    """Return dataclasses, enums, mappings and tuples as JSON values; what is not a finite number as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def hash_value(value: Any) -> str:
    """Return the SHA-256 of a JSON value, the same for the same content whatever the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def hash_path(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, or of the names and bytes of all files under a folder.

    Raises:
        InputError: nothing is at `path`.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    digest = hashlib.sha256()
    for file in visible_files(path):
        digest.update(f"{file.relative_to(path)}\0{hash_path(file)}\n".encode())
    return digest.hexdigest()


def visible_files(folder: Path) -> list[Path]:
    """Return the files under a folder, without what is hidden (checkpoints, files being written)."""
    found = (p for p in folder.rglob("*") if p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


# ------------------------------------------------------------------------------------------------------------ stages


class Stage:
    """One stage's folder in a run directory.

    `request` is what the stage is asked to do. Open one with `Stage.open`, write files under `path`, then `finish()`.
    """

    def __init__(self, path: Path, request: dict[str, Any]):
        self.path = path
        self.request = request

    @classmethod
    def open(cls, path: Path, *, config: Any, inputs: dict[str, str] | None = None) -> Stage:
        """Return the stage at `path`, new, half done or complete.

        `config` is any JSON value; `inputs` maps a name to the content hash of what the stage reads.

        Raises:
            InputError: the folder holds the work of another request (a stale input or a changed setting).
        """
        request = json.loads(json.dumps({"config": config, "inputs": inputs or {}}, default=str))
        for name in (MANIFEST, STARTED):
            if (path / name).exists():
                found = read_json(path / name)
                if not isinstance(found, dict) or (name == MANIFEST and not isinstance(found.get("outputs"), dict)):
                    raise InputError(f"{path / name}: not what a stage writes; delete the folder to redo it")
                _refuse_stale(path, found, request)
                return cls(path, request)
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / STARTED, request)
        return cls(path, request)

    @property
    def is_complete(self) -> bool:
        """True when the stage has finished and nothing of it is missing."""
        if not (self.path / MANIFEST).exists():
            return False
        return all((self.path / name).exists() for name in read_json(self.path / MANIFEST)["outputs"])

    @property
    def content_hash(self) -> str:
        """The hash of all the stage wrote: what a later stage records as its input."""
        return hash_value(read_json(self.path / MANIFEST)["outputs"])

    def finish(self, **facts: Any) -> None:
        """Write the manifest: the request, the hash of every file under the folder, and `facts` for people.

        What is hidden (checkpoints) was only needed to continue, and is removed.
        """
        files = [p for p in visible_files(self.path) if p.name not in (MANIFEST, STARTED)]
        outputs = {str(p.relative_to(self.path)): hash_path(p) for p in files}
        write_json(self.path / MANIFEST, {**self.request, "outputs": outputs, "facts": plain(facts)})
        (self.path / STARTED).unlink(missing_ok=True)
        for hidden in self.path.glob(".*"):
            shutil.rmtree(hidden, ignore_errors=True)

    def discard_if_empty(self) -> None:
        """Remove the folder, and an empty one around it, if it holds only the note of the start."""
        if [p.name for p in self.path.iterdir()] == [STARTED]:
            shutil.rmtree(self.path)
            if not any(self.path.parent.iterdir()):
                self.path.parent.rmdir()

    @property
    def facts(self) -> dict[str, Any]:
        """What `finish` was told."""
        return read_json(self.path / MANIFEST)["facts"]


def _refuse_stale(path: Path, found: dict[str, Any], request: dict[str, Any]) -> None:
    for part in ("config", "inputs"):
        changed = sorted(_differences(found.get(part), request[part]))
        if changed:
            raise InputError(
                f"{path} was made with other {part} ({', '.join(changed[:4])}): "
                "give another run directory, or delete that folder to redo it"
            )


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    """What differs, by name; a setting that one side does not know is like one that is None there."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            if old.get(key) != new.get(key):
                yield from _differences(old.get(key), new.get(key), f"{prefix}{key}.")
    elif old != new:
        yield f"{prefix.rstrip('.')}: {_short(old)} then, {_short(new)} now"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else text[:37] + "..."


# ------------------------------------------------------------------------------------------------------------ tables


def _arrow_type(hint: Any) -> pa.DataType:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (inner,) = [a for a in args if a is not type(None)]
        return _arrow_type(inner)
    if origin in (tuple, list):
        return pa.list_(_arrow_type(args[0]))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return pa.int8() if issubclass(hint, int) else pa.string()
    return {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}[hint]


def schema_of(row_type: type) -> pa.Schema:
    """Return the Arrow schema of a frozen dataclass of scalars, enums, optional values and flat tuples."""
    hints = typing.get_type_hints(row_type)
    return pa.schema([(f.name, _arrow_type(hints[f.name])) for f in dataclasses.fields(row_type)])


def _to_arrow(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, tuple | list):
        return [_to_arrow(v) for v in value]
    return value


def _from_arrow(hint: Any) -> Callable[[Any], Any]:
    """Return the function that turns an Arrow value into what the annotation `hint` says."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (inner,) = [a for a in args if a is not type(None)]
        convert = _from_arrow(inner)
        return lambda value: None if value is None else convert(value)
    if origin in (tuple, list):
        convert = _from_arrow(args[0])
        return lambda value: origin(convert(v) for v in value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    return lambda value: value


def write_table(path: Path, rows: Iterable[Any], row_type: type, *, group_size: int = 4096) -> int:
    """Write dataclass rows to a Parquet file, streaming, all of it or nothing; return how many."""
    schema, names = schema_of(row_type), [f.name for f in dataclasses.fields(row_type)]
    count = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for group in grouped(rows, group_size):
            columns = {name: [_to_arrow(getattr(row, name)) for row in group] for name in names}
            writer.write_table(pa.table(columns, schema=schema))
            count += len(group)
    return count


def grouped(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Yield the rows in lists of `size`, the last one shorter; only one list is held at a time."""
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def read_table(
    path: Path, row_type: type[Row], *, without: Collection[str] = (), batch_size: int = 4096
) -> Iterator[Row]:
    """Yield the rows of a Parquet file, or of every part of a folder of parts, in order, streaming.

    The columns of the fields `without` are not read; these keep their defaults.

    Raises:
        InputError: see `read_columns`.
    """
    hints = typing.get_type_hints(row_type)
    names = [f.name for f in dataclasses.fields(row_type) if f.name not in without]  # type: ignore[arg-type]
    converters = {name: _from_arrow(hints[name]) for name in names}
    for batch in read_columns(path, row_type, names, batch_size=batch_size):
        for record in batch.to_pylist():
            try:
                row = row_type(**{name: convert(record[name]) for name, convert in converters.items()})
            except (TypeError, ValueError) as error:
                raise InputError(f"{path}: not a row of a {row_type.__name__} table ({error})") from None
            yield row


def read_columns(
    path: Path, row_type: type, names: Sequence[str], *, batch_size: int = 1 << 16
) -> Iterator[pa.RecordBatch]:
    """Yield some columns of a table of `row_type`, streaming: only these are read and nothing becomes a Python object.

    Raises:
        InputError: nothing is there, it is not Parquet, is cut off, or its columns are not those of `row_type`.
    """
    hints = typing.get_type_hints(row_type)
    schema = pa.schema([(name, _arrow_type(hints[name])) for name in names])
    required = [name for name in names if type(None) not in typing.get_args(hints[name])]
    for part in parts_of(path):
        file = _open_table(part)
        missing = set(names) - set(file.schema_arrow.names)
        if missing:
            raise InputError(f"{part}: lacks the columns {sorted(missing)} of a {row_type.__name__} table")
        batches = file.iter_batches(batch_size=batch_size, columns=list(names))
        while True:
            try:
                batch = next(batches, None)
                batch = None if batch is None else batch.select(names).cast(schema)
            except (pa.ArrowException, OSError) as error:
                reason = " ".join(str(error).split())
                raise InputError(f"{part}: cannot be read as a {row_type.__name__} table ({reason})") from None
            if batch is None:
                break
            for name in required:
                if batch[name].null_count:
                    raise InputError(f"{part}: a row of a {row_type.__name__} table lacks its {name}")
            yield batch


def parts_of(path: Path) -> list[Path]:
    """Return the files of a table, in order.

    Raises:
        InputError: there is no such table.
    """
    if path.is_dir():
        return sorted(p for p in path.glob("part-*.parquet"))
    if not path.exists():
        raise InputError(f"{path}: no such table")
    return [path]


def num_rows(path: Path) -> int:
    """Return how many rows a table has, without reading them."""
    return sum(_open_table(part).metadata.num_rows for part in parts_of(path))


def _open_table(part: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(part)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{part}: not a readable Parquet file ({error})") from None


class PartedTable:
    """A table written part by part, each part whole or absent, so that a killed stage goes on at the next part."""

    def __init__(self, folder: Path, row_type: type):
        self.folder = folder
        self.row_type = row_type

    def _part(self, index: int) -> Path:
        return self.folder / f"part-{index:06d}.parquet"

    def has(self, index: int) -> bool:
        """True when part `index` has been written."""
        return self._part(index).exists()

    def write(self, index: int, rows: Iterable[Any]) -> int:
        """Write part `index`, all of it or nothing; return the number of rows."""
        return write_table(self._part(index), rows, self.row_type)

    def rows(self) -> Iterator[Any]:
        """Yield the rows of all parts in order."""
        return read_table(self.folder, self.row_type)


def append_jsonl(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line (training metrics; a torn last line is ignored by `read_jsonl`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain(record), default=float) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write a file of JSON lines, all of it or nothing; return how many."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="ascii") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            count += 1
    return count


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the JSON lines of a metrics file; a last line cut by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError):
            if number < len(lines):
                raise InputError(f"{path}:{number}: not valid JSON") from None
    return records
