"""JSON and JSON-lines files of data sets: UTF-8, optionally gzipped, integers of any length, one-line complaints."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coderl import records
from coderl.types import InputError

_MAX_DIGITS = 500_000
"""Of an integer. Reading one takes time with the square of its length: a second for these, a day for a hostile file."""


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


def _not_utf8(path: Path, error: UnicodeDecodeError) -> InputError:
    return InputError(f"{path}: not UTF-8 (byte {error.object[error.start]:#04x} at {error.start}: {error.reason})")


@contextmanager
def _opened(path: Path) -> Iterator[io.TextIOWrapper]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as raw:
        yield io.TextIOWrapper(raw, encoding="utf-8-sig")


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where it stands, object) for each object of a JSON-lines file, or of a file that is one JSON list.

    Raises:
        InputError: the file is missing, not UTF-8, not gzip though named so, or a line is too long or no JSON object.
    """
    try:
        with _opened(path) as file:
            for where, value in _values(path, file):
                if not isinstance(value, dict):
                    raise InputError(f"{where}: expected a JSON object, found {type(value).__name__}")
                yield where, value
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: not a whole gzip file ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _values(path: Path, file: io.TextIOWrapper) -> Iterator[tuple[str, Any]]:
    limit = records.MAX_JSON_BYTES
    for number, line in enumerate(iter(lambda: file.readline(limit + 1), ""), start=1):
        is_list = line.lstrip().startswith("[")
        text = line + file.read(limit + 1 - len(line)) if is_list else line
        if len(text) > limit:
            raise InputError(f"{path}:{number}: more than {limit:,} characters of JSON")
        if not line.strip():
            continue
        if is_list:
            whole = parse_json("\n" * (number - 1) + text, str(path))
            yield from ((f"{path}[{index}]", value) for index, value in enumerate(whole))
            return
        yield f"{path}:{number}", parse_json(line, f"{path}:{number}")


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
