"""What docs/data.md shows: its examples are read, its complaints are given."""

import json
import re
from pathlib import Path

import pytest

from coderl import problems
from coderl.problems import jsonl
from coderl.types import InputError

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
BLOCKS = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_three_problems_are_read(tmp_path):
    (tmp_path / "mine.jsonl").write_text(BLOCKS[0])
    assert [p.problem.problem_id for p in problems.load(tmp_path / "mine.jsonl")] == ["add", "twice", "half"]


def test_every_field_of_the_format_has_a_row():
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE.partition("A test is one of")[0], flags=re.MULTILINE))
    assert rows == jsonl._FIELDS


def test_samples_are_json():
    assert [set(json.loads(line)) for line in BLOCKS[1].splitlines()] == [
        {"task_id", "completion"},
        {"task_id", "solution"},
    ]


NEEDED = {"problem_id": "a", "description": "b"}
GOOD = {"stdin": "", "stdout": ""}


@pytest.mark.parametrize(
    "record", [{**NEEDED, "hiden_tests": []}, {**NEEDED, "hidden_tests": [GOOD, GOOD, {"stdin": ""}]}]
)
def test_complaints_are_worded_as_shown(record):
    with pytest.raises(InputError) as caught:
        jsonl.problem(record, "mine.jsonl:")
    assert str(caught.value).partition("field")[2] in PAGE
