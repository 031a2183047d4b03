"""Tables of many rows: counted as arrays like one by one, in bounded memory, cut-off ones refused."""

import random
import tracemalloc
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coderl import tables
from coderl.evaluation.counts import CLOCKS, JUDGED, numbered, outcome_counts
from coderl.stages.evaluate import problem_counts
from coderl.types import (
    InputError,
    LabelledProblem,
    Outcome,
    Problem,
    Program,
    ProgramKind,
    StdinTest,
    Verdict,
)

TEST = StdinTest("", "1")
PROBLEMS = [LabelledProblem(Problem(f"p{i}", "x", f"d{i % 2}"), (TEST,) if i != 3 else ()) for i in range(6)]
KINDS = (ProgramKind.SAMPLE, ProgramKind.REPAIRED, ProgramKind.BASELINE)


def verdict(program: Program, outcome: Outcome | None) -> JUDGED:
    return program.key, Verdict(None, fault="no fork") if outcome is None else Verdict(outcome)


def write(folder: Path, name: str, rows: list, row_type: Any, num_parts: int) -> None:
    table = tables.PartedTable(folder / name, row_type, without=CLOCKS if row_type is JUDGED else ())
    for part in range(num_parts):
        table.write(part, rows[part::num_parts])


def test_counts_are_those_of_going_through_the_rows_one_by_one(tmp_path: Path):
    """Rows in no order, in other parts, without verdict, with faults, of problems nobody asked for."""
    rng = random.Random(0)
    programs = [Program(f"p{p}", i, "x", kind) for p in range(8) for kind in KINDS for i in range(20)]
    rng.shuffle(programs)
    choices = [None, *Outcome]
    hidden = {p: rng.choice(choices) for p in programs if p.problem_id != "p3" and rng.random() < 0.9}
    shown = {p: rng.choice(choices) for p in programs if rng.random() < 0.9}
    write(tmp_path / "sample", "programs", programs, Program, 3)
    write(tmp_path / "execute", "verdicts", [verdict(p, u) for p, u in hidden.items()], JUDGED, 2)
    write(tmp_path / "examples", "verdicts", [verdict(p, u) for p, u in reversed(shown.items())], JUDGED, 4)
    stages = (tmp_path / "sample", tmp_path / "execute", PROBLEMS)
    for kinds, examples in ((KINDS[:2], None), (KINDS[2:], None), (KINDS[:2], tmp_path / "examples")):
        found = problem_counts(*stages, kinds=kinds, examples=examples)
        assert [c.problem_id for c in found] == [p.problem.problem_id for p in PROBLEMS]
        assert [c.difficulty for c in found] == ["d0", "d1"] * 3
        for counts in found:
            own = [p for p in programs if p.problem_id == counts.problem_id and p.kind in kinds]
            judged = [p for p in own if hidden.get(p) is not None]
            right = [p for p in judged if hidden[p] is Outcome.PASSED_TEST]
            assert counts.is_tested == (counts.problem_id != "p3")
            assert (counts.num_samples, counts.num_correct) == (len(judged), len(right))
            assert counts.num_masked == (len(own) - len(judged) if counts.is_tested else 0)
            passing = {p for p in judged if shown.get(p) is Outcome.PASSED_TEST}
            wanted = (None, None) if examples is None else (len(passing), len(passing & set(right)))
            assert (counts.num_passing_examples, counts.num_correct_passing_examples) == wanted
    totals = Counter("sandbox_fault" if u is None else u.name.lower() for u in hidden.values())
    assert outcome_counts(tmp_path / "execute" / "verdicts") == totals


def test_the_last_of_two_verdicts_counts(tmp_path: Path):
    program = Program("p0", 0, "x")
    rows = [verdict(program, Outcome.FAILED_TEST), verdict(program, Outcome.PASSED_TEST)]
    write(tmp_path / "execute", "verdicts", rows, JUDGED, 1)
    write(tmp_path / "sample", "programs", [program], Program, 1)
    assert problem_counts(tmp_path / "sample", tmp_path / "execute", PROBLEMS)[0].num_correct == 1


def test_counting_makes_no_objects_of_rows(tmp_path: Path):
    """100,000 rows: a Python object each would be more than 10 MB, the numbers and outcomes are 1.2 MB."""
    num = 100_000
    columns = {name: [None] * num for name in ("error_subtype", "error_line", "fault")}
    columns |= {name: [""] * num for name in ("message", "isolation")} | {"test_outcomes": [[3]] * num}
    columns |= {"problem_id": ["p1"] * num, "kind": ["sample"] * num, "index": list(range(num)), "outcome": [3] * num}
    names = [column.name for column in tables.columns_of(JUDGED, CLOCKS)]
    (tmp_path / "verdicts").mkdir()
    write(tmp_path, "one", [verdict(Program("p1", 0, "x"), Outcome.PASSED_TEST)], JUDGED, 1)
    schema = pq.read_schema(tmp_path / "one" / "part-000000.parquet")
    pq.write_table(pa.table(columns).select(names).cast(schema), tmp_path / "verdicts" / "part-000000.parquet")
    del columns
    tracemalloc.start()
    found = numbered(tmp_path / "verdicts", JUDGED, ["p0", "p1"], outcome="outcome")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.numbers) == num
    assert set(found.problems) == {1}
    assert peak < 6e6


@dataclass(frozen=True)
class Other:
    """A row that is no verdict."""

    name: str


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"index": [-1]}, "impossible index"),
        ({"index": [1 << 32]}, "impossible index"),
        ({"kind": ["guessed"]}, "unknown kind"),
        ({"outcome": [4]}, "from 0 to 3"),
        ({"outcome": ["passed"]}, "cannot be read as a"),
        ({"index": [None]}, "lacks its index"),
    ],
)
def test_rows_that_name_no_program_or_outcome_are_refused(tmp_path: Path, change: dict, said: str):
    write(tmp_path, "verdicts", [verdict(Program("p0", 0, "x"), Outcome.PASSED_TEST)], JUDGED, 1)
    part = tmp_path / "verdicts" / "part-000000.parquet"
    pq.write_table(pa.table(pq.read_table(part).to_pydict() | change), part)
    with pytest.raises(InputError, match=said):
        numbered(tmp_path / "verdicts", JUDGED, ["p0"], outcome="outcome")


def test_a_part_that_is_cut_off_or_of_other_rows_is_named(tmp_path: Path):
    rows = [verdict(Program("p0", i, "x"), Outcome.PASSED_TEST) for i in range(5000)]
    write(tmp_path, "verdicts", rows, JUDGED, 2)
    part = tmp_path / "verdicts" / "part-000001.parquet"
    whole = part.read_bytes()
    spoilt = bytearray(whole)
    spoilt[20:400] = bytes(380)
    for content in (whole[: len(whole) // 2], whole[:-1], b"", bytes(spoilt)):
        part.write_bytes(content)
        with pytest.raises(InputError, match="part-000001") as error:
            list(tables.read_table(tmp_path / "verdicts", JUDGED, without=CLOCKS))
        assert "\n" not in str(error.value)
    tables.write_table(part, [Other("a")], Other)
    with pytest.raises(InputError, match=r"part-000001.*lacks the columns"):
        outcome_counts(tmp_path / "verdicts")
