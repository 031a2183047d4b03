"""The run directory: manifests with content hashes, atomic writes, locks.

A run is a folder; a stage is a folder in it. A stage folder is complete when it holds `manifest.json`, which names what
the stage was asked to do (its settings and the content hashes of its inputs) and the hash of each file it wrote. While
a stage is under way the folder holds `started.json` with the same request, so that the same command continues it and
another one is refused, and `.lock`, which names the process that works there.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from coderl.types import InputError

MANIFEST = "manifest.json"
STARTED = "started.json"
LOCK = ".lock"


# ---------------------------------------------------------------------------------------------------- atomic files


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on an error it disappears.

    Raises:
        OSError: it cannot be written; where the disk is full, whatever the writer of the file made of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        with _full_disk_named(path):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it replaces the folder `path`, on an error it disappears.

    Raises:
        OSError: as `atomic_path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        with _full_disk_named(path):
            yield temporary
        temporary.chmod(0o755)
        for file in temporary.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Turn whatever a writer raises on a full disk (torch: `unexpected pos`) into the error that says so."""
    try:
        yield
    except Exception as error:
        if shutil.disk_usage(path.parent).free < 1 << 16 or getattr(error, "errno", None) == errno.ENOSPC:
            raise OSError(errno.ENOSPC, "no space left on the disk; the same command continues", str(path)) from error
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; the lock falls with the process that holds it, however it ends.

    Raises:
        InputError: another process has it.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(f"{folder}: in use by {holder}; wait for its end, or give another folder") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            if is_new and folder.exists() and not any(folder.iterdir()):
                folder.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, all of it or nothing."""
    content = text.encode()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
        remember_hash(temporary, hashlib.sha256(content).hexdigest())


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


_KNOWN: dict[tuple[int, int, int, int], str] = {}
"""The hashes of files that this process has read or written, by what tells that a file is the same and unchanged."""


def file_state(path: Path) -> tuple[int, int, int, int]:
    """Return what stays the same as long as a file is the same and unchanged, wherever it is moved."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def remember_hash(path: Path, digest: str) -> None:
    """Note the hash of a file that was just written, so that it need not be read to be known."""
    _KNOWN[file_state(path)] = digest


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, which are read only if this process has not written or hashed them."""
    known = _KNOWN.get(file_state(path))
    if known is None:
        known = _read_hash(path)
        remember_hash(path, known)
    return known


def _read_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_path(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, or of the names and bytes of all files under a folder.

    Raises:
        InputError: nothing is at `path`.
    """
    if path.is_file():
        return hash_file(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    digest = hashlib.sha256()
    for file in visible_files(path):
        digest.update(f"{file.relative_to(path)}\0{hash_file(file)}\n".encode())
    return digest.hexdigest()


def hash_stage(path: Path) -> str:
    """Return the content hash of a file or folder; of a finished stage that of what its manifest names."""
    manifest = path / MANIFEST
    return hash_value(read_json(manifest).get("outputs")) if manifest.exists() else hash_path(path)


def visible_files(folder: Path) -> list[Path]:
    """Return the files under a folder, without what is hidden (checkpoints, files being written)."""
    found = (p for p in folder.rglob("*") if p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


# ------------------------------------------------------------------------------------------------------------ stages


class StageFolder:
    """One stage's folder in a run directory. Open one, write files under `path`, then `finish()`.

    `request` is what the stage is asked to do.
    """

    def __init__(self, path: Path, request: dict[str, Any]):
        self.path = path
        self.request = request

    @classmethod
    def open(cls, path: Path, *, config: Any, inputs: Any) -> StageFolder:
        """Return the stage's folder at `path`, new, half done or complete.

        `config` is any JSON value; `inputs` maps a name to the content hash, or hashes, of what the stage reads.

        Raises:
            InputError: the folder holds the work of another request (a stale input or a changed setting).
        """
        request = json.loads(json.dumps({"config": config, "inputs": inputs}))
        found = request_in(path)
        if found is not None:
            _refuse_stale(path, found, request)
        else:
            path.mkdir(parents=True, exist_ok=True)
            write_json(path / STARTED, request)
        return cls(path, request)

    @property
    def is_complete(self) -> bool:
        """True when the stage has finished and nothing of it is missing."""
        if not (self.path / MANIFEST).exists():
            return False
        return all((self.path / name).exists() for name in read_json(self.path / MANIFEST)["outputs"])

    def finish(self, facts: dict[str, Any]) -> None:
        """Write the manifest: the request, the hash of every file under the folder, and `facts` for people.

        What is hidden (checkpoints) was only needed to continue, and is removed.
        """
        files = [p for p in visible_files(self.path) if p.name not in (MANIFEST, STARTED)]
        outputs = {str(p.relative_to(self.path)): hash_file(p) for p in files}
        write_json(self.path / MANIFEST, {**self.request, "outputs": outputs, "facts": plain(facts)})
        (self.path / STARTED).unlink(missing_ok=True)
        for hidden in self.path.glob(".*"):
            shutil.rmtree(hidden, ignore_errors=True)

    def discard_if_empty(self) -> None:
        """Remove the folder, and an empty one around it, if it holds only the note of the start."""
        if {p.name for p in self.path.iterdir()} <= {STARTED, LOCK}:
            shutil.rmtree(self.path)
            if not any(self.path.parent.iterdir()):
                self.path.parent.rmdir()


def request_in(path: Path) -> dict[str, Any] | None:
    """Return the manifest of a finished stage, or the request of one under way; None where there is neither.

    Raises:
        InputError: the file is not one that a stage writes.
    """
    for name in (MANIFEST, STARTED):
        if (path / name).exists():
            found = read_json(path / name)
            if not isinstance(found, dict) or (name == MANIFEST and not isinstance(found.get("outputs"), dict)):
                raise InputError(f"{path / name}: not what a stage writes; delete the folder to redo it")
            return found
    return None


def facts_of(path: Path) -> dict[str, Any]:
    """Return what a finished stage recorded about its cost and counts."""
    return read_json(path / MANIFEST)["facts"]


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


# ------------------------------------------------------------------------------------------------------- JSON lines


_APPENDED: dict[Path, Any] = {}
"""The running hash of each file that this process appends to."""


def append_jsonl(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line (training metrics; a torn last line is ignored by `read_jsonl`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(plain(record), default=float) + "\n").encode()
    with path.open("ab") as file:
        if path not in _APPENDED or file_state(path) not in _KNOWN:  # new here, or changed by someone else
            _APPENDED[path] = hashlib.sha256(path.read_bytes())
        _KNOWN.pop(file_state(path), None)
        file.write(line)
    _APPENDED[path].update(line)
    remember_hash(path, _APPENDED[path].hexdigest())


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
