"""One door for all formats: detection, refusals, generated problems, the hub."""

import json
import subprocess
import sys
import types

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coderl import problems
from coderl.problems.miniapps import data as miniapps
from coderl.types import InputError

APPS_LINE = {"problem_id": 0, "question": "Add.", "solutions": "", "input_output": "", "difficulty": "interview"}
MBPP_LINE = {"task_id": 601, "text": "Add.", "code": "def f(): pass", "test_list": ["assert f() == 1"]}


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_formats_are_seen_from_the_fields(tmp_path):
    assert problems.load(write_lines(tmp_path / "a.jsonl", APPS_LINE))[0].problem.problem_id == "0000"
    assert problems.load(write_lines(tmp_path / "b.jsonl", MBPP_LINE))[0].problem.problem_id == "mbpp_601"
    (tmp_path / "c.json").write_text(json.dumps([MBPP_LINE, {**MBPP_LINE, "task_id": 602}], indent=1))
    assert [p.problem.problem_id for p in problems.load(tmp_path / "c.json")] == ["mbpp_601", "mbpp_602"]


def test_a_folder_of_one_file_a_split(tmp_path):
    write_lines(tmp_path / "train.jsonl", APPS_LINE)
    assert len(problems.load(tmp_path)) == 1
    write_lines(tmp_path / "test.jsonl", APPS_LINE, {**APPS_LINE, "problem_id": 1})
    assert len(problems.load(tmp_path, split="test")) == 2
    with pytest.raises(InputError, match=r"several data files; name one of test\.jsonl, train\.jsonl"):
        problems.load(tmp_path)


def test_limit(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", *({**APPS_LINE, "problem_id": i} for i in range(5)))
    assert [p.problem.problem_id for p in problems.load(path, limit=2)] == ["0000", "0001"]
    assert problems.load(path, limit=0) == []
    with pytest.raises(InputError, match="limit must not be negative, found -1"):
        problems.load(path, limit=-1)


def test_limit_does_not_read_on(tmp_path):
    """A malformed line behind the limit is not met."""
    path = write_lines(tmp_path / "a.jsonl", APPS_LINE)
    path.write_text(path.read_text() + "{")
    assert len(problems.load(path, limit=1)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "a"\n', r"a.jsonl:1: not valid JSON \(Expecting ',' delimiter"),
        ("3\n", "a.jsonl:1: expected a JSON object, found int"),
        ('[{"question": 1}, 4]', r"a.jsonl\[0\]: field 'question' must be text, found int"),
        (
            '{"x": 1}\n',
            r"a.jsonl:1: not a problem of a known format \(its fields: x\); the nearest is jsonl, which needs prob",
        ),
        ('{"problem_id": "x", "text": "y"}', "the nearest is jsonl, which needs description too; formats: evalplus, "),
        ("\n\n", "a.jsonl: no problems"),
        (json.dumps({**APPS_LINE, "question": ""}), "a.jsonl:1: the question is empty"),
        ((json.dumps(APPS_LINE) + "\n") * 2, "problem '0000' stands twice"),
        ('{"problem_id": "a/b", "description": "x"}', "problem id 'a/b' cannot name a file"),
        (b"\xff{}", "a.jsonl:1: not UTF-8"),
    ],
)
def test_unusable_files_give_one_line(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        problems.load(path)
    assert "\n" not in str(caught.value)


BAD_MBPP = {**MBPP_LINE, "task_id": 602, "test_list": ["assert f() == = 1"]}


def test_one_bad_record_is_named_and_counted_and_the_others_are_returned(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", MBPP_LINE, BAD_MBPP, {"x": 1}, {**MBPP_LINE, "task_id": 603}, MBPP_LINE)
    path.write_bytes(path.read_bytes() + b"{\n\xff\n7\n" + json.dumps({**MBPP_LINE, "task_id": 604}).encode())
    bad = []
    found = problems.load(path, on_bad=bad.append)
    assert [p.problem.problem_id for p in found] == ["mbpp_601", "mbpp_603", "mbpp_604"]
    assert [str(error).removeprefix(str(path))[:30] for error in bad] == [
        ":2: field 'test_list[0]': not ",
        ":3: field 'task_id' must be a ",
        ": problem 'mbpp_601' stands tw",
        ":6: not valid JSON (Expecting ",
        ":7: not UTF-8 (byte 0xff at 0:",
        ":8: expected a JSON object, fo",
    ]
    with pytest.raises(InputError, match=r"a.jsonl:2: field 'test_list\[0\]': not Python"):
        problems.load(path)


def test_a_first_record_of_no_format_does_not_stop_the_others(tmp_path):
    bad = []
    path = write_lines(tmp_path / "a.jsonl", {"x": 1}, MBPP_LINE)
    assert [p.problem.problem_id for p in problems.load(path, on_bad=bad.append)] == ["mbpp_601"]
    assert len(bad) == 1


def test_a_file_of_bad_records_only_has_no_problems(tmp_path):
    bad = []
    with pytest.raises(InputError, match=r"a\.jsonl:1: .*not Python.*and so on: no record can be used"):
        problems.load(write_lines(tmp_path / "a.jsonl", BAD_MBPP, {"x": 1}), on_bad=bad.append)
    assert len(bad) == 2


def test_bad_folders_of_apps_are_named_and_the_others_are_read(tmp_path):
    for name, question in (("0000", "Add."), ("0001", ""), ("0002", "Sub.")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "question.txt").write_text(question)
    bad = []
    assert [p.problem.problem_id for p in problems.load(tmp_path, on_bad=bad.append)] == ["0000", "0002"]
    assert [str(error) for error in bad] == [f"{tmp_path}/0001/question.txt: the question is empty"]


def test_parquet_and_zstd_files_are_read(tmp_path):
    rows = [MBPP_LINE, {**MBPP_LINE, "task_id": 602}, {**MBPP_LINE, "task_id": 603, "test_list": ["=="]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    bad = []
    for name in ("a.parquet", "a.jsonl.zst"):
        if name.endswith("zst"):
            with pa.output_stream(tmp_path / name, compression="zstd") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
        assert [p.problem.problem_id for p in problems.load(tmp_path / name, on_bad=bad.append)] == [
            "mbpp_601",
            "mbpp_602",
        ]
    assert [str(error).removeprefix(str(tmp_path))[:16] for error in bad] == ["/a.parquet[2]: f", "/a.jsonl.zst:3: "]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.zst", "a.jsonl.gz"])
def test_files_that_are_not_what_their_name_says(tmp_path, name):
    (tmp_path / name).write_text(json.dumps(MBPP_LINE))
    with pytest.raises(InputError, match=rf"{name}: (not a whole|cannot be read)") as caught:
        problems.load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_split_that_the_hub_cut_into_parts(tmp_path):
    for number in range(2):
        rows = [{**MBPP_LINE, "task_id": 601 + number}]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"train-0000{number}-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist([{**MBPP_LINE, "task_id": 11}]), tmp_path / "test-00000-of-00001.parquet")
    assert [p.problem.problem_id for p in problems.load(tmp_path, split="train")] == ["mbpp_601", "mbpp_602"]


def test_unusable_sources(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        problems.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="unknown format 'apsp'"):
        problems.load(tmp_path, format="apsp")
    with pytest.raises(InputError, match="no problem folders"):
        problems.load(tmp_path)
    path = write_lines(tmp_path / "a.jsonl", APPS_LINE)
    with pytest.raises(InputError, match="unknown format 'human-eval'; did you mean 'humaneval'"):
        problems.load(path, format="human-eval")
    with pytest.raises(InputError, match="one file has no splits; drop split='train'"):
        problems.load(path, split="train")
    with pytest.raises(InputError, match="num_shown_tests is for MBPP, this is apps"):
        problems.load(path, num_shown_tests=1)
    path = write_lines(tmp_path / "b.jsonl", MBPP_LINE)
    with pytest.raises(InputError, match="unknown split 'tests'; did you mean 'test'"):
        problems.load(path, split="tests")
    with pytest.raises(InputError, match="no problems in the split 'test'"):
        problems.load(path, split="test")
    with pytest.raises(InputError, match="example_rules is for APPS, this is mbpp"):
        problems.load(path, example_rules="legacy")


def test_generated_problems_and_their_options():
    found = problems.load("miniapps:seed=3,num_solved=2,num_unsolved=1,num_validation=1,num_test=2", split="test")
    assert len(found) == 2
    with pytest.raises(InputError, match="unknown option 'num_tests'; did you mean 'num_test'"):
        problems.load("miniapps:num_tests=2")
    with pytest.raises(InputError, match=r"miniapps:seed=x: seed: Input should be a valid integer"):
        problems.load("miniapps:seed=x")
    with pytest.raises(InputError, match="expected miniapps:name=value"):
        problems.load("miniapps:seed")
    small = "miniapps:num_solved=1,num_unsolved=0,num_validation=1,num_test=1"
    with pytest.raises(InputError, match="unknown split 'dev'; known: train, validation, test"):
        problems.load(small, split="dev")


def test_written_problems_are_read_back_as_they_were_generated(tmp_path):
    """Example tests too, which the reader must find in the descriptions."""
    config = miniapps.MiniAppsConfig(num_solved=30, num_unsolved=30, num_validation=5, num_test=30)
    miniapps.write(tmp_path / "out", config)
    for split, generated in miniapps.generate(config).items():
        assert problems.load(tmp_path / "out", split=split) == generated


def fake_datasets(monkeypatch, splits):
    """Put a library in the place of `datasets` that knows one data set; return the calls made to it."""
    calls = []

    def load_dataset(*args, split=None, **options):
        calls.append((args, split, options))
        return splits[split] if split is not None else splits

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return calls


def test_hub_names_go_through_the_same_readers(monkeypatch):
    calls = fake_datasets(monkeypatch, {"train": [MBPP_LINE], "test": [{**MBPP_LINE, "task_id": 11}]})
    name = "hub:google-research-datasets/mbpp:full"
    assert [p.problem.problem_id for p in problems.load(name)] == ["mbpp_601", "mbpp_11"]
    assert [p.problem.problem_id for p in problems.load(name, split="test", num_shown_tests=0)] == ["mbpp_11"]
    assert [call[0] for call in calls] == [("google-research-datasets/mbpp", "full")] * 2


def test_apps_on_the_hub_is_read_from_its_files(monkeypatch):
    calls = fake_datasets(monkeypatch, {"train": [APPS_LINE], "test": [{**APPS_LINE, "problem_id": 1}]})
    assert [p.problem.problem_id for p in problems.load("hub:codeparrot/apps", split="test")] == ["test-0001"]
    assert [p.problem.problem_id for p in problems.load("hub:codeparrot/apps")] == ["train-0000", "test-0001"]
    assert calls[0][2]["data_files"] == {"test": "hf://datasets/codeparrot/apps/test.jsonl"}


def test_the_hub_needs_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"needs the `datasets` library: pip install 'coderl\[datasets\]'"):
        problems.load("hub:codeparrot/apps")


def test_no_model_library_is_imported():
    code = "import sys; import coderl.problems, coderl.prompts; print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
