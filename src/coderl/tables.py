"""Typed Parquet tables: the columns of a noun, written and read as streams of its values."""

from __future__ import annotations

import dataclasses
import hashlib
import types
import typing
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coderl.records import atomic_path, file_state, remember_hash
from coderl.types import InputError

Row = TypeVar("Row")


class Column(NamedTuple):
    """One column of a table, and where its values are in a row."""

    name: str
    hint: Any
    path: tuple[str | int, ...]


def columns_of(row_type: Any, without: Collection[str] = ()) -> list[Column]:
    """Return the columns of a table whose rows are of a type: a dataclass, or `tuple[A, B]` for those of both.

    A field that is a dataclass itself gives its columns; one that may be None gives them with its name before theirs.
    """
    return [column for column in _columns(row_type, "", (), is_optional=False) if column.name not in without]


def _columns(row_type: Any, prefix: str, path: tuple[str | int, ...], *, is_optional: bool) -> Iterator[Column]:
    for name, hint, at in _parts(row_type):
        inner = _without_none(hint)
        if _is_record(inner):
            is_nullable = is_optional or inner is not hint
            below = f"{prefix}{name}_" if is_nullable else prefix
            yield from _columns(inner, below, (*path, at), is_optional=is_nullable)
        else:
            yield Column(f"{prefix}{name}", hint | None if is_optional else hint, (*path, at))


def _parts(row_type: Any) -> Iterator[tuple[str, Any, str | int]]:
    """Yield name, type and place of each part of a row."""
    if typing.get_origin(row_type) is tuple:
        yield from ((str(at), hint, at) for at, hint in enumerate(typing.get_args(row_type)))
    else:
        hints = typing.get_type_hints(row_type)
        yield from ((field.name, hints[field.name], field.name) for field in dataclasses.fields(row_type))


def _is_record(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _without_none(hint: Any) -> Any:
    """Return the type without None, where it may be None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (inner,) = [a for a in typing.get_args(hint) if a is not type(None)]
        return inner
    return hint


_SMALL = tuple(range(1 << 18))
"""Integers that rows share, such as the tokens of a vocabulary: each is then 8 bytes in a row and not 40."""


def _arrow_type(hint: Any) -> pa.DataType:
    hint = _without_none(hint)
    if typing.get_origin(hint) in (tuple, list):
        return pa.list_(_arrow_type(typing.get_args(hint)[0]))
    if issubclass(hint, Enum):
        return pa.int8() if issubclass(hint, int) else pa.string()
    return {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}[hint]


def schema_of(row_type: Any) -> pa.Schema:
    """Return the Arrow schema of a table whose rows are of a type."""
    return _schema(columns_of(row_type))


def _schema(columns: Sequence[Column]) -> pa.Schema:
    return pa.schema([(column.name, _arrow_type(column.hint)) for column in columns])


def _value(row: Any, path: Sequence[str | int]) -> Any:
    """Return what stands at a place in a row, as an Arrow value; None below what is None."""
    for at in path:
        if row is None:
            return None
        row = row[at] if isinstance(at, int) else getattr(row, at)
    return _to_arrow(row)


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
    if (inner := _without_none(hint)) is not hint:
        convert = _from_arrow(inner)
        return lambda value: None if value is None else convert(value)
    origin = typing.get_origin(hint)
    if hint == tuple[int, ...]:
        return lambda values: tuple([_SMALL[v] if 0 <= v < len(_SMALL) else v for v in values])
    if origin in (tuple, list):
        convert = _from_arrow(typing.get_args(hint)[0])
        return lambda value: origin(convert(v) for v in value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    return lambda value: value


def _builder(row_type: Any, prefix: str, known: Collection[str]) -> Callable[[dict[str, Any]], Any]:
    """Return the function that makes a row of a record; fields without a column keep their defaults."""
    made: list[tuple[str, Callable[[dict[str, Any]], Any]]] = []
    for name, hint, _ in _parts(row_type):
        inner = _without_none(hint)
        if _is_record(inner):
            below = prefix if inner is hint else f"{prefix}{name}_"
            build = _builder(inner, below, known)
            made.append((name, build if inner is hint else _optional(build, below)))
        elif (column := f"{prefix}{name}") in known:
            made.append((name, _picker(column, _from_arrow(hint))))
    if typing.get_origin(row_type) is tuple:
        return lambda record: tuple(build(record) for _, build in made)
    return lambda record: row_type(**{name: build(record) for name, build in made})


def _picker(column: str, convert: Callable[[Any], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda record: convert(record[column])


def _optional(build: Callable[[dict[str, Any]], Any], prefix: str) -> Callable[[dict[str, Any]], Any]:
    def made(record: dict[str, Any]) -> Any:
        is_there = any(value is not None for name, value in record.items() if name.startswith(prefix))
        return build(record) if is_there else None

    return made


# What a process has written or read it need not read again: the next stage finds short tables in memory.

MAX_HELD_BYTES = 256 << 20
"""Of all tables in memory together."""
MAX_TABLE_BYTES = 32 << 20
"""A longer table is streamed from its file each time."""
_HELD: OrderedDict[tuple[int, ...], pa.Table] = OrderedDict()


def _with(held: list[pa.Table], more: pa.Table) -> list[pa.Table]:
    """Return the groups of a table so far; none once it is too long to be held."""
    is_short = sum(table.nbytes for table in held) + more.nbytes <= MAX_TABLE_BYTES
    return [*held, more] if is_short else []


def _hold(part: Path, table: pa.Table) -> None:
    _HELD[file_state(part)] = table
    while sum(held.nbytes for held in _HELD.values()) > MAX_HELD_BYTES:
        _HELD.popitem(last=False)


class _HashingFile:
    """A file that is written from beginning to end, and hashed as it is."""

    def __init__(self, path: Path):
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self.closed = False

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> str:
        self._file.close()
        self.closed = True
        return self._digest.hexdigest()


def write_table(
    path: Path, rows: Iterable[Any], row_type: Any, *, without: Collection[str] = (), group_size: int = 4096
) -> int:
    """Write rows to a Parquet file, streaming, all of it or nothing; return how many."""
    columns = columns_of(row_type, without)
    schema, count, held = _schema(columns), 0, list[pa.Table]()
    with atomic_path(path) as temporary:
        file = _HashingFile(temporary)
        try:
            with pq.ParquetWriter(pa.PythonFile(file, mode="w"), schema, compression="zstd") as writer:
                for group in grouped(rows, group_size):
                    values = {c.name: [_value(row, c.path) for row in group] for c in columns}
                    table = pa.table(values, schema=schema)
                    writer.write_table(table)
                    held, count = _with(held, table), count + len(group)
        finally:
            digest = file.close()
        remember_hash(temporary, digest)
    if held or not count:
        _hold(path, pa.concat_tables(held) if held else schema.empty_table())
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


def read_table(path: Path, row_type: Any, *, without: Collection[str] = (), batch_size: int = 4096) -> Iterator[Any]:
    """Yield the rows of a Parquet file, or of every part of a folder of parts, in order, streaming.

    The columns `without` are not read; their fields keep their defaults.

    Raises:
        InputError: see `read_columns`.
    """
    names = [column.name for column in columns_of(row_type, without)]
    build = _builder(row_type, "", names)
    for batch in read_columns(path, row_type, names, batch_size=batch_size):
        for record in batch.to_pylist():
            try:
                row = build(record)
            except (TypeError, ValueError) as error:
                raise InputError(f"{path}: not a row of {_name(row_type)} ({error})") from None
            yield row


def _name(row_type: Any) -> str:
    parts = typing.get_args(row_type) if typing.get_origin(row_type) is tuple else (row_type,)
    return " and ".join(f"a {part.__name__}" for part in parts) + " table"


def read_columns(
    path: Path, row_type: Any, names: Sequence[str], *, batch_size: int = 1 << 16
) -> Iterator[pa.RecordBatch]:
    """Yield some columns of a table of `row_type`, streaming: only these are read and nothing becomes a Python object.

    Raises:
        InputError: nothing is there, it is not Parquet, is cut off, or its columns are not those of `row_type`.
    """
    columns = [column for column in columns_of(row_type) if column.name in names]
    schema = _schema(columns)
    required = [c.name for c in columns if type(None) not in typing.get_args(c.hint)]
    for part in parts_of(path):
        for batch in _batches(part, schema, row_type, batch_size):
            for name in required:
                if batch[name].null_count:
                    raise InputError(f"{part}: a row of {_name(row_type)} lacks its {name}")
            yield batch


def _batches(part: Path, schema: pa.Schema, row_type: Any, batch_size: int) -> Iterator[pa.RecordBatch]:
    """Yield the columns of a schema, from memory where the table is held there."""
    source = _open_table(part)
    names = source.schema.names if isinstance(source, pa.Table) else source.schema_arrow.names
    missing = set(schema.names) - set(names)
    if missing:
        raise InputError(f"{part}: lacks the columns {sorted(missing)} of {_name(row_type)}")
    try:
        if isinstance(source, pa.Table):
            yield from source.select(schema.names).cast(schema).to_batches(max_chunksize=batch_size)
        else:
            for batch in source.iter_batches(batch_size=batch_size, columns=schema.names):
                yield batch.select(schema.names).cast(schema)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{part}: cannot be read as {_name(row_type)} ({' '.join(str(error).split())})") from None


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
    return sum(s.num_rows if isinstance(s := _open_table(p), pa.Table) else s.metadata.num_rows for p in parts_of(path))


def _open_table(part: Path) -> Any:
    """Return a table that is held in memory, or a short one that is now; of a longer one its file."""
    held = _HELD.get(file_state(part))
    if held is not None:
        return held
    return _read(part)


def _read(part: Path) -> Any:
    try:
        file = pq.ParquetFile(part)
        groups = (file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        if sum(groups) > MAX_TABLE_BYTES:
            return file
        table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{part}: not a readable Parquet file ({' '.join(str(error).split())})") from None
    _hold(part, table)
    return table


class RowsByKey:
    """The rows of a long table by the text of one column, such as the problem: only those asked for are in memory.

    What is held is where they are: a few bytes for each text and group of rows in which it stands.

    Raises:
        InputError: see `read_columns`.
    """

    def __init__(self, path: Path, row_type: Any, column: str = "problem_id", *, without: Collection[str] = ()):
        self.row_type, self.column = row_type, column
        self.names = [c.name for c in columns_of(row_type, without)]
        self._places: dict[str, list[tuple[Path, int]]] = {}
        for part in parts_of(path):
            for group in range(_file(part).num_row_groups):
                for text in self._read(part, group, [column])[column].unique().to_pylist():
                    self._places.setdefault(text, []).append((part, group))

    def rows(self, texts: Iterable[str]) -> Iterator[Any]:
        """Yield the rows of some texts, in the order of the table."""
        wanted = sorted(set(texts))
        build = _builder(self.row_type, "", self.names)
        for part, group in sorted({place for text in wanted for place in self._places.get(text, [])}):
            table = self._read(part, group, self.names)
            chosen = table.filter(pc.field(self.column).isin(wanted))
            yield from map(build, chosen.to_pylist())

    def texts(self) -> list[str]:
        """Return the texts that the column has, in the order in which they come."""
        return list(self._places)

    def _read(self, part: Path, group: int, names: Sequence[str]) -> pa.Table:
        try:
            return _file(part).read_row_group(group, columns=list(names)).select(list(names))
        except (pa.ArrowException, OSError, KeyError) as error:
            text = " ".join(str(error).split())
            raise InputError(f"{part}: cannot be read as {_name(self.row_type)} ({text})") from None


def _file(part: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(part)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{part}: not a readable Parquet file ({' '.join(str(error).split())})") from None


class PartedTable:
    """A table written part by part, each part whole or absent, so that a killed stage goes on at the next part."""

    def __init__(self, folder: Path, row_type: Any, *, without: Collection[str] = ()):
        self.folder, self.row_type, self.without = folder, row_type, without

    def part(self, index: int) -> Path:
        """Return the file of part `index`."""
        return self.folder / f"part-{index:06d}.parquet"

    def has(self, index: int) -> bool:
        """True when part `index` has been written."""
        return self.part(index).exists()

    def write(self, index: int, rows: Iterable[Any]) -> int:
        """Write part `index`, all of it or nothing; return the number of rows."""
        return write_table(self.part(index), rows, self.row_type, without=self.without)

    def rows(self) -> Iterator[Any]:
        """Yield the rows of all parts in order."""
        return read_table(self.folder, self.row_type, without=self.without)
