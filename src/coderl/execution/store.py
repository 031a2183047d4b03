"""Verdicts kept by content, so that nothing is executed twice: on resume, across runs, by processes side by side.

The key of a verdict is a hash of all that decides it: the program, the tests, the limits, the comparator, the isolation
asked for, the interpreter, the version of this package. Faults of the sandbox are not verdicts and are never kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import sqlite3
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import coderl
from coderl.execution.config import ExecutionConfig, Job
from coderl.types import (
    AssertTest,
    CallTest,
    InputError,
    Outcome,
    StdinTest,
    UnitTest,
    Verdict,
)

_FORMAT = 2
_SQLITE = b"SQLite format 3\0"
_CHUNK = 256
_FLUSH_RESULTS = 32
_FLUSH_S = 0.5
_MAX_VARIABLES = 500
_log = logging.getLogger(__name__)


@runtime_checkable
class JobRunner(Protocol):
    """Anything that runs jobs and yields their results in order: a pool, a cluster, a client."""

    def run(self, jobs: Iterable[Job]) -> Iterator[Verdict]:
        """Yield one result a job."""
        ...


# ------------------------------------------------------------------------------------------------------------- keys


def policy_of(config: ExecutionConfig) -> str:
    """Return what decides a verdict besides program and tests."""
    interpreter = [platform.python_implementation(), sys.version, platform.machine()]
    return json.dumps([_FORMAT, coderl.__version__, interpreter, config.decisive()], sort_keys=True)


class Keys:
    """Hashes of jobs under one policy; the hash of a problem's tests is computed once for its many programs."""

    def __init__(self, policy: str) -> None:
        self._policy = policy.encode()
        self._tests: dict[int, tuple[tuple[UnitTest, ...], bytes]] = {}

    def key(self, job: Job) -> bytes:
        """Return the 32 bytes under which the job's verdict is kept."""
        digest = hashlib.sha256(self._policy)
        for part in (job.code, job.fn_name, job.checker, job.prelude or None):
            _add(digest, "N" if part is None else "S" + part)
        digest.update(self._tests_hash(job.tests))
        return digest.digest()

    def _tests_hash(self, tests: tuple[UnitTest, ...]) -> bytes:
        held = self._tests.get(id(tests))
        if held is None:
            if len(self._tests) >= 4096:
                self._tests.clear()
            digest = hashlib.sha256()
            for test in tests:
                _add(digest, json.dumps(_plain_test(test)))
            # The tuple is held with its hash, so that its id cannot come to mean another one.
            held = self._tests[id(tests)] = (tests, digest.digest())
        return held[1]


def _add(digest: Any, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    digest.update(len(data).to_bytes(8, "big") + data)


def _plain_test(test: UnitTest) -> list[Any]:
    match test:
        case StdinTest():
            return ["stdin", test.stdin, test.stdout]
        case CallTest():
            return ["call", _typed(test.args), _typed(test.expected), *([True] if test.is_wrapped else [])]
        case AssertTest():
            return ["assert", test.code, test.setup]


def _typed(value: Any) -> Any:
    """Return the value as JSON in which 1, 1.0, True, '1', a list and a tuple all differ, and no int is too long."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return {"int": hex(value)}
        case float():
            return {"float": value.hex()}
        case list() | tuple():
            return {type(value).__name__: [_typed(inner) for inner in value]}
        case dict():
            return {"dict": [[_typed(key), _typed(inner)] for key, inner in value.items()]}
    return {type(value).__name__: repr(value)}


# ------------------------------------------------------------------------------------------------------------ store


class ResultStore:
    """Verdicts in an sqlite file that any number of processes and threads may share.

    It must be on a local disk: sqlite's write-ahead log does not work over a network file system.

    Raises:
        InputError: the file is not such a store or cannot be opened.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float = 60.0) -> None:
        self.path, self._busy_timeout_s = path, busy_timeout_s
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._connection = self._open()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error) or path.read_bytes()[:16] != _SQLITE:
                    raise
                self._set_aside(error)
        except (sqlite3.Error, OSError) as error:
            raise InputError(f"{path}: not usable as a store of verdicts ({error})") from None

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=self._busy_timeout_s, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            with connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, result TEXT NOT NULL) WITHOUT ROWID"
                )
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _set_aside(self, error: Exception) -> None:
        """Put a damaged file beside a fresh one: what it held is computed anew."""
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        self.path.rename(aside)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        _log.warning("%s is damaged (%s): kept as %s, and verdicts are computed anew", self.path, error, aside.name)
        self._connection = self._open()

    def __enter__(self) -> ResultStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was put is already in it."""
        with self._lock:
            self._connection.close()

    def __len__(self) -> int:
        with self._lock:
            return self._connection.execute("SELECT count(*) FROM results").fetchone()[0]

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Verdict]:
        """Return the verdicts that are there; what cannot be read is not."""
        found: dict[bytes, Verdict] = {}
        damaged: list[bytes] = []
        for start in range(0, len(keys), _MAX_VARIABLES):
            for key, text in self._rows(list(keys[start : start + _MAX_VARIABLES])):
                try:
                    found[bytes(key)] = _result_of(text)
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    damaged.append(key)
        if damaged:
            _log.warning("%s: %d verdicts are damaged and are computed anew", self.path, len(damaged))
            self._write("DELETE FROM results WHERE key = ?", [(key,) for key in damaged])
        return found

    def _rows(self, keys: list[bytes]) -> list[tuple[bytes, Any]]:
        marks = ",".join("?" * len(keys))
        with self._lock:
            try:
                select = f"SELECT key, result FROM results WHERE key IN ({marks})"
                return self._connection.execute(select, keys).fetchall()
            except sqlite3.DatabaseError as error:
                if _is_damage(error):
                    self._set_aside(error)
                elif isinstance(error, sqlite3.OperationalError):
                    _log.warning("%s: %d verdicts not looked up (%s)", self.path, len(keys), error)
                else:
                    raise
        return []

    def put_many(self, results: Mapping[bytes, Verdict]) -> bool:
        """Keep verdicts, all of them or none; a key that is there keeps its first. False where the disk refused.

        A store that cannot be written to makes work be done again and no verdict wrong, so it stops nothing.
        """
        rows = [(key, _text_of(result)) for key, result in results.items()]
        return self._write("INSERT OR IGNORE INTO results VALUES (?, ?)", rows)

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> bool:
        with self._lock:
            try:
                with self._connection:
                    self._connection.executemany(statement, rows)
                return True
            except sqlite3.DatabaseError as error:
                if _is_damage(error):
                    self._set_aside(error)
                elif isinstance(error, sqlite3.OperationalError):
                    _log.warning("%s: %d verdicts not kept (%s)", self.path, len(rows), error)
                else:
                    raise
        return False


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _text_of(result: Verdict) -> str:
    assert result.outcome is not None
    fields = {name: getattr(result, name) for name in Verdict.__slots__ if name != "fault"}
    return json.dumps(fields, separators=(",", ":"))


def _result_of(text: str) -> Verdict:
    """The verdict that a row holds.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it holds none.
    """
    fields = json.loads(text)
    fields["outcome"] = Outcome(fields["outcome"])
    fields["test_outcomes"] = tuple(None if o is None else Outcome(o) for o in fields["test_outcomes"])
    verdict = Verdict(**fields)
    texts = (verdict.message, verdict.isolation, verdict.error_subtype or "")
    numbers = (verdict.error_line or 0, verdict.cpu_s, verdict.wall_s)
    if not all(type(t) is str for t in texts) or not all(type(n) in (int, float) for n in numbers):
        raise TypeError("a field is of another type")
    return verdict


# --------------------------------------------------------------------------------------------------------- executor


class StoredExecutor:
    """A runner of jobs before which stands a store: what is known is not run, and the same job is run once.

    Results come in the order of the jobs, as from the runner itself. New verdicts are written every half second.
    """

    def __init__(self, runner: JobRunner, store: ResultStore, policy: str) -> None:
        self._runner, self._store, self._policy = runner, store, policy
        self.num_executed = 0
        """Jobs handed to the runner so far."""
        self.num_reused = 0
        """Jobs answered without it."""

    def run(self, jobs: Iterable[Job]) -> Iterator[Verdict]:
        """Yield one result a job, in order."""
        flow = _Flow(self._store, Keys(self._policy), iter(jobs))
        try:
            while flow.has_more():
                yield from flow.take_known()
                for result in self._runner.run(flow.unknown_jobs()):
                    flow.learn(result)
                    yield from flow.take_known()
                yield from flow.take_known()
        finally:
            flow.flush()
            self.num_executed += flow.num_executed
            self.num_reused += flow.num_taken - flow.num_executed


class _Flow:
    """The jobs of one run on their way: waiting in order, some known, some with the runner.

    The runner may ask for jobs from a thread of its own, so every step holds the lock.
    """

    _MAX_WAITING = 16 * _CHUNK

    def __init__(self, store: ResultStore, keys: Keys, jobs: Iterator[Job]) -> None:
        self._store, self._keys, self._jobs = store, keys, jobs
        self._lock = threading.RLock()
        self._waiting: deque[bytes] = deque()
        self._uses: Counter[bytes] = Counter()
        self._known: dict[bytes, Verdict] = {}
        self._with_runner: deque[bytes] = deque()
        self._to_run: deque[tuple[bytes, Job]] = deque()
        self._unwritten: dict[bytes, Verdict] = {}
        self._written_at = time.monotonic()
        self.num_executed = self.num_taken = 0

    def has_more(self) -> bool:
        """Look the next jobs up unless some wait; False when there are none."""
        with self._lock:
            return bool(self._waiting) or self._look_up()

    def _look_up(self) -> bool:
        self.flush()  # else a verdict already taken but not yet written would be run again
        jobs = list(islice(self._jobs, _CHUNK))
        keyed = [(self._keys.key(job), job) for job in jobs]
        new = {key: job for key, job in keyed if key not in self._uses}
        self._known.update(self._store.get_many(list(new)))
        for key, _ in keyed:
            self._waiting.append(key)
            self._uses[key] += 1
        self._to_run.extend((key, job) for key, job in new.items() if key not in self._known)
        return bool(jobs)

    def unknown_jobs(self) -> Iterator[Job]:
        """Yield the jobs to run; end early where thousands of results wait to be taken behind them."""
        while (job := self._next_unknown()) is not None:
            yield job

    def _next_unknown(self) -> Job | None:
        with self._lock:
            while not self._to_run:
                if len(self._waiting) >= self._MAX_WAITING or not self._look_up():
                    return None
            key, job = self._to_run.popleft()
            self._with_runner.append(key)
            self.num_executed += 1
            return job

    def learn(self, result: Verdict) -> None:
        """Take the runner's next result."""
        with self._lock:
            key = self._with_runner.popleft()
            self._known[key] = result
            if result.outcome is not None:
                self._unwritten[key] = result
            if len(self._unwritten) >= _FLUSH_RESULTS or time.monotonic() - self._written_at > _FLUSH_S:
                self.flush()

    def flush(self) -> None:
        """Write what has been learnt."""
        with self._lock:
            if self._unwritten:
                self._store.put_many(self._unwritten)
                self._unwritten = {}
            self._written_at = time.monotonic()

    def take_known(self) -> Iterator[Verdict]:
        """Yield the results at the head of the queue that are known."""
        while (result := self._next_known()) is not None:
            yield result

    def _next_known(self) -> Verdict | None:
        with self._lock:
            if not self._waiting or self._waiting[0] not in self._known:
                return None
            key = self._waiting.popleft()
            result = self._known[key]
            self._uses[key] -= 1
            if not self._uses[key]:
                del self._uses[key], self._known[key]
            self.num_taken += 1
            return result
