"""The store of verdicts: keys that tell apart what differs, processes side by side, nothing run twice."""

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl.execution.config import ExecutionConfig, Job
from coderl.execution.store import (
    Keys,
    ResultStore,
    StoredExecutor,
    policy_of,
)
from coderl.types import (
    AssertTest,
    CallTest,
    InputError,
    Outcome,
    StdinTest,
    Verdict,
)

FULL = Verdict(
    Outcome.RUNTIME_ERROR,
    "valueerror",
    "bad \ud800 text",
    3,
    (Outcome.PASSED_TEST, Outcome.RUNTIME_ERROR, None),
    cpu_s=0.25,
    wall_s=0.5,
)
FULL_UNSAFE = Verdict(Outcome.PASSED_TEST, isolation="strong")


def job(code: str = "x", *tests: object, **fields: object) -> Job:
    return Job(code, tests or (StdinTest("", ""),), **fields)  # type: ignore[arg-type]


class Runner:
    """Counts what it runs; the outcome of a job is its code's length, a code of `!` is a fault."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def run(self, jobs: Iterable[Job]) -> Iterator[Verdict]:
        for one in jobs:
            self.ran.append(one.code)
            yield (
                Verdict(None, fault="broken")
                if one.code == "!"
                else Verdict(Outcome(len(one.code) % 4), message=one.code)
            )


def test_verdicts_come_back_as_they_were(tmp_path: Path) -> None:
    """Every field survives the file, after closing and opening it too; unknown keys are absent."""
    with ResultStore(tmp_path / "deep" / "store.sqlite") as store:
        assert store.put_many({b"a": FULL, b"b": FULL_UNSAFE})
    with ResultStore(tmp_path / "deep" / "store.sqlite") as store:
        assert store.get_many([b"a", b"b", b"c"]) == {b"a": FULL, b"b": FULL_UNSAFE}
        assert len(store) == 2


def test_the_first_verdict_stays(tmp_path: Path) -> None:
    """A second verdict for a key changes nothing, so that two processes agree afterwards."""
    with ResultStore(tmp_path / "s") as store:
        store.put_many({b"a": FULL})
        store.put_many({b"a": FULL_UNSAFE, b"b": FULL_UNSAFE})
        assert store.get_many([b"a", b"b"]) == {b"a": FULL, b"b": FULL_UNSAFE}


def test_more_keys_than_sqlite_takes_at_once(tmp_path: Path) -> None:
    """Thousands of keys are looked up in parts."""
    keys = [bytes([n % 256, n // 256]) for n in range(3000)]
    with ResultStore(tmp_path / "s") as store:
        store.put_many(dict.fromkeys(keys[::2], FULL))
        assert set(store.get_many(keys)) == set(keys[::2])


def test_keys_tell_apart_what_differs() -> None:
    """Programs, tests, types of arguments, entry points, checkers and policies that differ have different keys."""
    variants = [
        job("x"),
        job("y"),
        job("x", StdinTest("", "1")),
        job("x", StdinTest("1", "")),
        job("x", StdinTest("", ""), StdinTest("", "")),
        job("x", StdinTest("", ""), fn_name="f"),
        job("x", StdinTest("", ""), checker="f"),
        job("x", CallTest((1,), 1)),
        job("x", CallTest((1.0,), 1)),
        job("x", CallTest((True,), 1)),
        job("x", CallTest(("1",), 1)),
        job("x", CallTest(([1],), 1)),
        job("x", CallTest(((1,),), 1)),
        job("x", CallTest((1,), None)),
        job("x", CallTest(({"a": 1, "b": 2},), 1)),
        job("x", CallTest(({"b": 2, "a": 1},), 1)),  # the order of a dict can be seen by a program
        job("x", CallTest((10**5000,), 1)),
        job("x", CallTest((float("nan"),), 1)),
        job("x", AssertTest("", "")),
        job("x", AssertTest("assert f()", "")),
        job("x", AssertTest("", "assert f()")),
        job("\ud800"),
    ]
    keys = Keys("policy")
    assert len({keys.key(variant) for variant in variants}) == len(variants)
    assert [Keys("policy").key(v) for v in variants] == [keys.key(v) for v in variants]
    assert Keys("other").key(variants[0]) != keys.key(variants[0])


def test_the_policy_is_what_decides_verdicts() -> None:
    """Limits and comparator change the policy; the number of workers does not."""
    base = policy_of(ExecutionConfig(num_workers=1))
    assert policy_of(ExecutionConfig(num_workers=2)) == base
    changed = [{"cpu_limit_s": 1.0}, {"comparator": "apps"}, {"stop": "never"}, {"memory_limit_bytes": 1 << 28}]
    assert len({base, *(policy_of(ExecutionConfig(num_workers=1, **change)) for change in changed)}) == 5


def test_nothing_is_run_twice(tmp_path: Path) -> None:
    """Equal jobs run once within a run and not at all in the next; faults are passed on and never kept."""
    codes = ["a", "bb", "a", "!", "ccc", "bb", "!"]
    with ResultStore(tmp_path / "s") as store:
        first, second = Runner(), Runner()
        executor = StoredExecutor(first, store, "p")
        results = list(executor.run(job(code) for code in codes))
        assert [r.fault or r.message for r in results] == ["a", "bb", "a", "broken", "ccc", "bb", "broken"]
        assert first.ran == ["a", "bb", "!", "ccc"]
        assert (executor.num_executed, executor.num_reused) == (4, 3)
        assert len(store) == 3
        again = list(StoredExecutor(second, store, "p").run(job(code) for code in codes))
        assert second.ran == ["!"]
        assert [r for r in again if r.fault is None] == [r for r in results if r.fault is None]


@settings(max_examples=40, deadline=None)
@given(codes=st.lists(st.sampled_from("abcdefgh!"), max_size=60), kept=st.sets(st.sampled_from("abcdefgh")))
def test_order_and_content_do_not_depend_on_what_is_known(
    tmp_path_factory: pytest.TempPathFactory, codes: list[str], kept: set[str]
) -> None:
    """Whatever the store knows, the results are those of the runner alone, in order."""
    with ResultStore(tmp_path_factory.mktemp("store") / "s") as store:
        list(StoredExecutor(Runner(), store, "p").run(job(code) for code in sorted(kept)))
        runner = Runner()
        results = list(StoredExecutor(runner, store, "p").run(job(code) for code in codes))
    assert [r.fault or r.message for r in results] == ["broken" if code == "!" else code for code in codes]
    assert sorted(set(runner.ran)) == sorted(set(codes) - kept)


def test_a_long_known_stretch_is_streamed(tmp_path: Path) -> None:
    """Jobs are taken as results are, not all at once: after a few thousand known ones results flow."""
    with ResultStore(tmp_path / "s") as store:
        list(StoredExecutor(Runner(), store, "p").run([job("a")]))
        taken = itertools.count()
        jobs = (job("new" if next(taken) == 3 else "a") for _ in range(1_000_000))
        results = StoredExecutor(Runner(), store, "p").run(jobs)
        assert [r.message for r in itertools.islice(results, 5)] == ["a", "a", "a", "new", "a"]  # type: ignore[union-attr]
        assert next(taken) < 20_000
        results.close()  # type: ignore[attr-defined]


class ThreadedRunner(Runner):
    """Asks for jobs from another thread, a few ahead, as a pool does."""

    def run(self, jobs: Iterable[Job]) -> Iterator[Verdict]:
        fed: list[Job] = []
        thread = threading.Thread(target=lambda: fed.extend(jobs))
        thread.start()
        thread.join()
        yield from super().run(fed)


def test_a_runner_with_a_thread_of_its_own(tmp_path: Path) -> None:
    """Jobs may be asked for from another thread than the one that takes results."""
    codes = [str(n % 700) for n in range(2000)]
    with ResultStore(tmp_path / "s") as store:
        runner = ThreadedRunner()
        results = list(StoredExecutor(runner, store, "p").run(job(code) for code in codes))
    assert [r.message for r in results] == codes  # type: ignore[union-attr]
    assert len(runner.ran) == 700


WRITER = """
import itertools, os, signal, sys
from pathlib import Path
from coderl.execution.store import ResultStore
from coderl.types import Verdict, Outcome
path, worker, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
verdict = Verdict(Outcome.PASSED_TEST)
with ResultStore(path) as store:
    for n in range(150):
        assert store.put_many({f"{n}".encode(): verdict, f"{worker}/{n}".encode(): verdict})
        assert store.get_many([f"{n}".encode()])
        if n == last:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_side_by_side(tmp_path: Path) -> None:
    """Four processes write the same and other keys at once: no error, nothing lost."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "s")]
    writers = [subprocess.Popen([*command, str(n), "-1"]) for n in range(4)]
    assert [writer.wait(120) for writer in writers] == [0] * 4
    with ResultStore(tmp_path / "s") as store:
        assert len(store) == 150 * 5


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    """After kill -9 all that was put is there, batch by batch, and the store can be used."""
    writer = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path / "s"), "0", "20"], check=False)
    assert writer.returncode == -9
    with ResultStore(tmp_path / "s") as store:
        assert len(store) == 42
        assert store.put_many({b"more": FULL})


def test_a_full_disk_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the file cannot grow, verdicts still flow and a warning says that they are not kept."""
    with ResultStore(tmp_path / "s") as store:
        store._connection.execute("PRAGMA max_page_count=2")
        codes = ["c" * 3000 + str(n) for n in range(100)]
        results = list(StoredExecutor(Runner(), store, "p").run(job(code) for code in codes))
    assert [r.message for r in results] == codes  # type: ignore[union-attr]
    assert "not kept" in caplog.text


def test_another_file_is_refused(tmp_path: Path) -> None:
    """A file that is no sqlite store is an input error that names it, and it is not touched."""
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes " * 100)
    with pytest.raises(InputError, match=r"notes\.txt"):
        ResultStore(path)
    assert path.read_text().startswith("these are my notes")


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"outcome":9}', '{"outcome":3,"test_outcomes":[3],"message":5}', '{"outcome":null}']
)
def test_a_damaged_row_is_computed_anew(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    with ResultStore(tmp_path / "s") as store:
        runner = Runner()
        (first,) = StoredExecutor(runner, store, "p").run([job("a")])
        with store._connection:
            store._connection.execute("UPDATE results SET result = ?", [text])
        (again,) = StoredExecutor(runner, store, "p").run([job("a")])
        assert again == first
        assert "1 verdicts are damaged" in caplog.text
        (third,) = StoredExecutor(Runner(), store, "p").run([job("a")])
        assert third == first
    assert runner.ran == ["a", "a"]


def test_a_damaged_file_is_set_aside_and_the_verdicts_are_computed_anew(tmp_path: Path) -> None:
    path = tmp_path / "s"
    codes = [f"{n}" for n in range(400)]
    with ResultStore(path) as store:
        list(StoredExecutor(Runner(), store, "p").run(job(code) for code in codes))
    data = bytearray(path.read_bytes())
    for page in range(4096, len(data), 4096):
        data[page : page + 64] = b"\xff" * 64
    path.write_bytes(bytes(data))
    with ResultStore(path) as store:
        runner = Runner()
        results = list(StoredExecutor(runner, store, "p").run(job(code) for code in codes))
        assert [result.message for result in results] == codes
        assert sorted(runner.ran) == sorted(codes)
        assert len(store) == 400
    assert len(list(tmp_path.glob("s.damaged-*"))) == 1
