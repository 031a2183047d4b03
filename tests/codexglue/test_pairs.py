"""The files of CodeXGLUE, as its authors lay them out."""

import gzip
import json
from pathlib import Path

import pytest

from coderl.codexglue.pairs import Pair, files_of, read_pairs
from coderl.types import InputError


def write(folder: Path, name: str, *lines: object) -> Path:
    path = folder / name
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")
    return path


def test_code_to_text_joins_tokens_as_codet5_does(tmp_path):
    records = [
        {"code_tokens": ["def", "f", "(", ")", ":", "x\ny"], "docstring_tokens": ["Adds", "\n", "one", "."]},
        {"idx": 7, "code_tokens": ["a"], "docstring_tokens": []},
    ]
    write(tmp_path, "train.jsonl", *records)
    wanted = [Pair("0", "def f ( ) : x y", "Adds one ."), Pair("7", "a", "")]
    assert read_pairs("code-to-text", tmp_path, "train") == wanted
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress((tmp_path / "train.jsonl").read_bytes()))
    assert read_pairs("code-to-text", tmp_path, "test") == wanted


def test_text_to_code_is_concode(tmp_path):
    write(tmp_path, "dev.json", {"nl": "Adds . con_elem_sep int x", "code": "int f ( ) { }  "})
    assert read_pairs("text-to-code", tmp_path, "valid") == [Pair("0", "Adds . con_elem_sep int x", "int f ( ) { }")]


def test_code_to_code_goes_either_way(tmp_path):
    write(tmp_path, "valid.java-cs.txt.java", " int j ( ) ;", "b")
    write(tmp_path, "valid.java-cs.txt.cs", "int J ( ) ;", "B")
    found = {to: read_pairs("code-to-code", tmp_path, "valid", language=to) for to in ("c_sharp", "java")}
    assert found["c_sharp"] == [Pair("0", "int j ( ) ;", "int J ( ) ;"), Pair("1", "b", "B")]
    assert found["java"] == [Pair("0", "int J ( ) ;", "int j ( ) ;"), Pair("1", "B", "b")]
    assert files_of("code-to-code", tmp_path, "valid", language="c_sharp")[1].name == "valid.java-cs.txt.cs"


def test_refinement_is_from_buggy_to_fixed(tmp_path):
    write(tmp_path, "test.buggy-fixed.buggy", "wrong")
    write(tmp_path, "test.buggy-fixed.fixed", "right")
    assert read_pairs("refinement", tmp_path, "test") == [Pair("0", "wrong", "right")]


@pytest.mark.parametrize(
    ("task", "files", "line"),
    [
        ("refinement", {}, r"no train split of refinement in it, expected train.buggy-fixed.buggy, train.buggy-fixed"),
        ("refinement", {"train.buggy-fixed.buggy": "a\n"}, "no train split"),
        ("refinement", {"train.buggy-fixed.buggy": "a\nb\n", "train.buggy-fixed.fixed": "a\n"}, "2 lines, but 1 in"),
        ("refinement", {"train.buggy-fixed.buggy": "", "train.buggy-fixed.fixed": ""}, "no pair in it"),
        ("refinement", {"train.buggy-fixed.buggy": "a\n\nb\n", "train.buggy-fixed.fixed": "a\nb\nc\n"}, "in pair 1"),
        ("code-to-text", {"train.jsonl": '{"docstring_tokens": ["a"]}\n'}, "nothing to read in pair 0"),
        ("code-to-text", {"train.jsonl": '{"code_tokens": "text", "docstring_tokens": []}\n'}, "train.jsonl:1: field"),
        ("code-to-text", {"train.jsonl.gz": "no gzip"}, "gzip"),
        ("text-to-code", {"train.json": '{"nl": "x"}\n'}, "field 'code'"),
        ("text-to-code", {"train.json": '{"nl": ["x"], "code": ""}\n'}, "field 'nl'"),
        ("text-to-code", {"train.json": '{"nl": "x", "co'}, "not valid JSON"),
        ("text-to-code", {"train.json": "[" * 100_000}, "nested too deeply"),
    ],
)
def test_what_is_malformed_is_one_line(tmp_path, task, files, line):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=line) as error:
        read_pairs(task, tmp_path, "train")
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_code_to_code_writes_no_python(tmp_path):
    with pytest.raises(InputError, match="java or c_sharp"):
        files_of("code-to-code", tmp_path, "train", language="python")
