"""The run directory: nothing half-written, nothing stale, every row back as it went in."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from coderl import records, tables
from coderl.types import (
    InputError,
    Outcome,
    Program,
    ProgramKind,
)


@dataclass(frozen=True)
class Row:
    """One row with every kind of column."""

    name: str
    outcome: Outcome
    kind: ProgramKind
    maybe: int | None
    values: tuple[float, ...]
    flags: tuple[Outcome | None, ...]


ROWS = [
    Row("a", Outcome.PASSED_TEST, ProgramKind.SAMPLE, None, (0.5, 1.0), (Outcome.FAILED_TEST, None)),
    Row("b\n\u00e9\0", Outcome.COMPILE_ERROR, ProgramKind.REPAIRED, 7, (), ()),
]


def test_rows_come_back_as_they_went_in(tmp_path: Path):
    tables.write_table(tmp_path / "t.parquet", ROWS, Row)
    assert list(tables.read_table(tmp_path / "t.parquet", Row)) == ROWS


def test_a_lone_surrogate_in_a_program_does_not_break_the_table(tmp_path: Path):
    tables.write_table(tmp_path / "t.parquet", [Program("p", 0, "x = '\ud800'")], Program)
    (row,) = tables.read_table(tmp_path / "t.parquet", Program)
    assert row.code == "x = '?'"


def test_a_table_that_fails_half_way_leaves_nothing(tmp_path: Path):
    def rows():
        yield ROWS[0]
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        tables.write_table(tmp_path / "t.parquet", rows(), Row, group_size=1)
    assert list(tmp_path.iterdir()) == []


def test_parts_are_read_in_order_and_a_missing_one_is_known(tmp_path: Path):
    table = tables.PartedTable(tmp_path / "programs", Row)
    table.write(1, ROWS[1:])
    assert (table.has(0), table.has(1)) == (False, True)
    table.write(0, ROWS[:1])
    assert list(table.rows()) == ROWS


@pytest.mark.parametrize(("content", "word"), [(b"not parquet", "Parquet"), (None, "no such table")])
def test_a_broken_or_missing_table_is_one_line(tmp_path: Path, content: bytes | None, word: str):
    path = tmp_path / "t.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=word):
        list(tables.read_table(path, Row))


def test_a_table_of_other_rows_is_refused_by_name(tmp_path: Path):
    tables.write_table(tmp_path / "t.parquet", [Program("p", 0, "x")], Program)
    with pytest.raises(InputError, match="outcome"):
        list(tables.read_table(tmp_path / "t.parquet", Row))


def test_a_stage_is_complete_only_after_finish_and_as_long_as_its_files_are_there(tmp_path: Path):
    stage = records.StageFolder.open(tmp_path / "sample", config={"n": 1}, inputs={"model": "abc"})
    records.write_text(stage.path / "out.txt", "x")
    assert not stage.is_complete
    stage.finish({"num_programs": 1})
    again = records.StageFolder.open(tmp_path / "sample", config={"n": 1}, inputs={"model": "abc"})
    assert again.is_complete
    assert records.facts_of(again.path) == {"num_programs": 1}
    (stage.path / "out.txt").unlink()
    assert not again.is_complete


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("config", "inputs", "said"),
    [({"n": 2}, {"model": "abc"}, "n: 1 then, 2 now"), ({"n": 1}, {"model": "xyz"}, 'model: "abc" then, "xyz" now')],
)
def test_stale_work_is_refused_with_what_changed(tmp_path: Path, finished: bool, config: dict, inputs: dict, said: str):
    stage = records.StageFolder.open(tmp_path / "s", config={"n": 1}, inputs={"model": "abc"})
    if finished:
        stage.finish({})
    with pytest.raises(InputError, match=said):
        records.StageFolder.open(tmp_path / "s", config=config, inputs=inputs)


def test_a_setting_that_is_new_and_off_refuses_no_work(tmp_path: Path):
    records.StageFolder.open(tmp_path / "s", config={"optim": {"n": 1}}, inputs={}).finish({})
    assert records.StageFolder.open(tmp_path / "s", config={"optim": {"n": 1, "new": None}}, inputs={}).is_complete
    with pytest.raises(InputError, match=r"\(optim.new: null then, 0 now\)"):
        records.StageFolder.open(tmp_path / "s", config={"optim": {"n": 1, "new": 0}}, inputs={})


def test_the_hash_of_a_finished_stage_follows_the_bytes_and_not_the_facts(tmp_path: Path):
    hashes = []
    for name, text, fact in [("a", "x", 1), ("b", "x", 2), ("c", "y", 1)]:
        stage = records.StageFolder.open(tmp_path / name, config={}, inputs={})
        records.write_text(stage.path / "out.txt", text)
        stage.finish({"fact": fact})
        hashes.append(records.hash_stage(stage.path))
    assert hashes[0] == hashes[1] != hashes[2]


def test_hash_path_of_a_folder_sees_names_and_bytes(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    first = records.hash_path(tmp_path / "a")
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert records.hash_path(tmp_path / "a") != first
    with pytest.raises(InputError, match="no such file"):
        records.hash_path(tmp_path / "missing")


def half_written(target: Path) -> None:
    with records.atomic_dir(target) as folder:
        (folder / "w").write_text("new")
        raise RuntimeError


def test_atomic_dir_replaces_whole_or_not_at_all(tmp_path: Path):
    target = tmp_path / "model"
    with records.atomic_dir(target) as folder:
        (folder / "w").write_text("old")
    with pytest.raises(RuntimeError):
        half_written(target)
    assert (target / "w").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_jsonl_forgives_a_torn_last_line_only(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    records.append_jsonl(path, {"step": 1})
    with path.open("a") as file:
        file.write('{"step": ')
    assert records.read_jsonl(path) == [{"step": 1}]
    with path.open("a") as file:
        file.write('\n{"step": 3}\n')
    with pytest.raises(InputError, match=":2: not valid JSON"):
        records.read_jsonl(path)


def test_json_of_endless_nesting_is_one_line(tmp_path: Path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="not valid JSON"):
        records.read_json(path)


def test_what_is_no_number_is_null_in_json(tmp_path: Path):
    records.append_jsonl(tmp_path / "m.jsonl", {"auroc": float("nan"), "outcome": Outcome.FAILED_TEST})
    assert (tmp_path / "m.jsonl").read_text() == '{"auroc": null, "outcome": "failed_test"}\n'


def test_the_hash_of_a_file_that_is_appended_to_is_that_of_its_bytes(tmp_path: Path):
    """Also where another writer put other lines in its place between two appends."""
    path = tmp_path / "m.jsonl"
    for other in (None, '{"step": 7}\n', ""):
        if other is not None:
            path.write_text(other)
        for step in range(2):
            records.append_jsonl(path, {"step": step})
            assert records.hash_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()
