"""Files of records (JSON lines, JSON lists, Parquet; gzip and zstd), and one-line complaints about one record."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coderl import records
from coderl.types import InputError

OnBad = Callable[[InputError], None]
"""Is given the complaint about each record that cannot be used; the reader goes on with the next one."""

_MAX_DIGITS = 500_000
"""Of an integer. Reading one takes time with the square of its length: a second for these, a day for a hostile file."""


def refuse(error: InputError) -> None:
    """Stop at the first record that cannot be used: what `on_bad` is unless the caller says otherwise.

    Raises:
        InputError: always.
    """
    raise error


@contextmanager
def _long_integers() -> Iterator[None]:
    """Raise the interpreter's limit on decimal digits: tests of APPS hold integers of more than 4300."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(_MAX_DIGITS)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


def parse_json(text: str, where: str) -> Any:
    """Return the value that a JSON text writes.

    Raises:
        InputError: it is not JSON; the line names `where`.
    """
    try:
        with _long_integers():
            return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error})") from None
    except ValueError:
        raise InputError(f"{where}: not usable JSON (an integer of more than {_MAX_DIGITS:,} digits)") from None
    except RecursionError:
        raise InputError(f"{where}: not usable JSON (nested too deeply)") from None


def write_json(value: Any) -> str:
    """Return one line of JSON, in ASCII, so that every Python string and integer comes back as it was."""
    with _long_integers():
        return json.dumps(value)


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file (a byte-order mark is dropped, line ends become newlines).

    Raises:
        InputError: the file is missing, unreadable, too long or not UTF-8.
    """
    try:
        records.refuse_long(path)
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _not_utf8(where: Path | str, error: UnicodeDecodeError) -> InputError:
    return InputError(f"{where}: not UTF-8 (byte {error.object[error.start]:#04x} at {error.start}: {error.reason})")


def read_records(path: Path, on_bad: OnBad = refuse) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where it stands, fields) for each record of a file.

    The file is JSON lines or one JSON list, as it is or compressed (`.gz`, `.zst`), or Parquet (`.parquet`). Lines that
    are blank or begin with `#` are no records.

    Raises:
        InputError: the file is missing or not of the kind that its name says; or, where `on_bad` raises it, a line is
            not UTF-8, too long or no JSON object.
    """
    values = _parquet_rows(path) if path.suffix == ".parquet" else _json_values(path, on_bad)
    for where, value in values:
        if isinstance(value, dict):
            yield where, value
        else:
            on_bad(InputError(f"{where}: expected a JSON object, found {type(value).__name__}"))


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a Parquet file; it is read in parts, for one row may hold megabytes of tests."""
    try:
        with pq.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(batch_size=16) for row in batch.to_pylist())
            yield from ((f"{path}[{index}]", row) for index, row in enumerate(rows))
    except pa.ArrowException as error:
        raise InputError(f"{path}: not a whole Parquet file ({_first_line(error)})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or _first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """The bytes of a file, decompressed as its name says; the codec of `pyarrow` spares a dependency on one more."""
    if path.suffix == ".zst":
        with path.open("rb") as packed, pa.CompressedInputStream(packed, "zstd") as stream:
            yield io.BufferedReader(stream)
    else:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield file


def _json_values(path: Path, on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    try:
        with _opened(path) as file:
            yield from _lines(path, file, on_bad)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: not a whole gzip file ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or _first_line(error)})") from None


def _lines(path: Path, file: io.BufferedIOBase, on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    limit = records.MAX_JSON_BYTES
    for number, line in enumerate(iter(lambda: file.readline(limit + 1), b""), start=1):
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        is_list = line.lstrip().startswith(b"[")
        content = line + file.read(limit + 1 - len(line)) if is_list else line
        where = str(path) if is_list else f"{path}:{number}"
        if len(content) > limit:
            raise InputError(f"{path}:{number}: more than {limit:,} bytes of JSON")
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        try:
            value = parse_json("\n" * (number - 1) * is_list + _decoded(content, where), where)
        except InputError as error:
            on_bad(error)
            continue
        if is_list:
            yield from ((f"{path}[{index}]", item) for index, item in enumerate(value))
            return
        yield where, value


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(where, error) from None


def text_field(record: dict[str, Any], name: str, where: str, *, default: str | None = None) -> str:
    """Return a field that must be text; an absent or null one is `default`, where that is given.

    Raises:
        InputError: the field is absent without a default, or not text.
    """
    value = record.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        found = "nothing" if name not in record else type(value).__name__
        raise InputError(f"{where}: field '{name}' must be text, found {found}")
    return value


def texts_field(record: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    """Return a field that must be a list of texts; an absent or null one is empty.

    Raises:
        InputError: the field is something else.
    """
    value = record.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{where}: field '{name}' must be a list of texts")
    return tuple(value)
