"""Corrupt, cut off and hostile files: each is one line that names it, and nothing in it is run.

Pickles are in `interop/test_pickles.py` and `interop/test_original_files.py`, original checkpoints in
`interop/test_original_checkpoint.py`, single problems in `problems/`, tables in `evaluation/test_counts.py`.
"""

import gzip
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from coderl import records, tables
from coderl.cli import main
from coderl.evaluation.counts import JUDGED
from coderl.models.tiny import tiny_t5, train_tokenizer
from coderl.types import (
    InputError,
    Outcome,
    Program,
    StdinTest,
    Verdict,
)

DEEP = "[" * 1_000_000
QUERY = "decoder.block.0.layer.0.SelfAttention.q.weight"

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must fail; return all that it says: one line."""

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        assert stopped.value.code == 2
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("coderl: ")]
        assert len(told) == 1
        return told[0]

    return run


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    """A folder of one APPS problem, 0007."""
    folder = tmp_path / "apps" / "0007"
    folder.mkdir(parents=True)
    (folder / "question.txt").write_text("Print 1.")
    (folder / "input_output.json").write_text('{"inputs": [""], "outputs": ["1"]}')
    (folder / "solutions.json").write_text('["print(1)"]')
    return tmp_path / "apps"


# ------------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (DEEP, "nested too deeply"),
        ('{"a":' * 300_000, "nested too deeply"),
        ('{"inputs": [' + "9" * 500_001 + "]}", "an integer of more than 500,000 digits"),
        ('{"inputs": {"a": 1}, "outputs": 3}', "must be lists"),
        ('{"inputs": ["1"', "not valid JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (bytes(1000), "not valid JSON"),
    ],
    ids=["arrays", "objects", "integer", "types", "cut", "bytes", "zeros"],
)
def test_json_that_cannot_be_tests(content: str | bytes, said: str, problems: Path, refused: Refused):
    file = problems / "0007" / "input_output.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refused("problems", "check", problems)
    assert str(file) in line
    assert said in line


def test_json_of_a_hundred_megabytes_of_nesting(problems: Path, refused: Refused):
    with (problems / "0007" / "solutions.json").open("w") as file:
        for _ in range(100):
            file.write(DEEP)
    assert "nested too deeply" in refused("problems", "check", problems)


def test_json_beyond_the_limit_is_not_read(problems: Path, tmp_path: Path, refused: Refused):
    """A sparse file of a terabyte: reading it would end the process; a line and a list are not read on either."""
    with (problems / "0007" / "solutions.json").open("w") as file:
        file.truncate(1 << 40)
    line = refused("problems", "check", problems)
    assert "at most 536,870,912 are read" in line
    (tmp_path / "vocab.json").touch()
    os.truncate(tmp_path / "vocab.json", 1 << 40)
    with pytest.raises(InputError, match=r"at most 536,870,912 are read"):
        records.read_json(tmp_path / "vocab.json")


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz"])
@pytest.mark.parametrize("start", ['{"problem_id": "a", "description": "', "[ "])
def test_a_line_beyond_the_limit_is_not_read(
    name: str, start: str, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(records, "MAX_JSON_BYTES", 1000)
    content = ('{"problem_id": "b", "description": "d"}\n' + start + "x" * 2000).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert f"{name}:2: more than 1,000 bytes of JSON" in refused("problems", "check", tmp_path / name)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "-Infinity"])
def test_numbers_that_are_none_in_the_originals_results(value: str, problems: Path, tmp_path: Path, refused: Refused):
    shutil.copytree(problems, tmp_path / "theirs")
    (tmp_path / "theirs" / "0007" / "gen_solutions.json").write_text('[{"code": "a", "result": %s}]' % value)  # noqa: UP031
    line = refused("import-original", tmp_path / "theirs", "--problems", problems, "--out", tmp_path / "out")
    assert "a result is -2, -1, false or true" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["[]", "3", DEEP, '{"outputs": 3}', "9" * 5000, "{"])
def test_a_spoilt_manifest(text: str, problems: Path, tmp_path: Path, refused: Refused):
    tables.PartedTable(tmp_path / "s" / "programs", Program).write(0, [Program("0007", 0, "print(1)")])
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "manifest.json").write_text(text)
    line = refused("execute", "--programs", tmp_path / "s", "--problems", problems, "--out", tmp_path / "v")
    assert "manifest.json" in line


# ------------------------------------------------------------------------------------------------- paths and links


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "..", "a\\b", "a\0b", "a\nb", "\ud800", "a" * 5000, ""])
def test_a_problem_id_that_cannot_name_a_file(name: str, tmp_path: Path, refused: Refused):
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"problem_id": name, "description": "d"}) + "\n")
    for command in (["problems", "check", file], ["problems", "convert", file, tmp_path / "out.jsonl"]):
        said = refused(*command)
    assert "cannot name a file" in said or "is empty" in said
    assert not (tmp_path / "out.jsonl").exists()


def test_a_program_of_another_folders_problem(problems: Path, tmp_path: Path, refused: Refused):
    stage = tmp_path / "s"
    tables.PartedTable(stage / "programs", Program).write(0, [Program("../../x", 0, "open('canary', 'w')")])
    for command in (["execute", "--out", tmp_path / "v"], ["export-original", tmp_path / "inner" / "out"]):
        line = refused(*command, "--programs", stage, "--problems", problems)
        assert "problem '../../x', which is not among" in line
    assert {p.name for p in tmp_path.iterdir()} <= {"apps", "s", "v", "inner"}


@pytest.mark.parametrize("command", [["problems", "check"], ["extract-examples", "--write"]])
def test_a_link_out_of_the_problems(
    command: list[str], problems: Path, tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
):
    """It is not followed; where others can be read, `problems check` names it and serves them."""
    shutil.copytree(problems / "0007", tmp_path / "outside")
    before = sorted(p.name for p in (tmp_path / "outside").iterdir())
    (problems / "0001").symlink_to(tmp_path / "outside")
    with pytest.raises(SystemExit) as stopped:
        main([*command, str(problems)])
    assert stopped.value.code in (1, 2)
    assert f"0001: leads out of {problems}" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "outside").iterdir()) == before
    (problems / "0001").unlink()
    (problems / "0007" / "question.txt").unlink()
    (problems / "0007" / "question.txt").symlink_to(tmp_path / "outside" / "question.txt")
    assert "question.txt: leads out of" in refused(*command, problems)


def test_links_within_the_problems_are_read(problems: Path, capsys: pytest.CaptureFixture[str]):
    (problems / "0008").symlink_to("0007")
    main(["extract-examples", str(problems)])
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_pipe_in_place_of_a_file_is_not_waited_for(problems: Path, refused: Refused):
    (problems / "0007" / "solutions.json").unlink()
    os.mkfifo(problems / "0007" / "solutions.json")
    assert "solutions.json: not a file" in refused("problems", "check", problems)


# ----------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("spoilt", ["cut", "empty", "other"])
@pytest.mark.parametrize("table", ["programs", "verdicts"])
def test_a_spoilt_part_of_a_table(spoilt: str, table: str, problems: Path, tmp_path: Path, refused: Refused):
    program = Program("0007", 0, "print(1)")
    tables.PartedTable(tmp_path / "s" / "programs", Program).write(0, [program])
    judged = (program.key, Verdict(Outcome.PASSED_TEST))
    tables.PartedTable(tmp_path / "s" / "verdicts", JUDGED).write(0, [judged])
    part = tmp_path / "s" / table / "part-000000.parquet"
    if spoilt == "other":
        tables.write_table(part, [], StdinTest)
    else:
        part.write_bytes(part.read_bytes()[:300] if spoilt == "cut" else b"")
    both = ["--programs", tmp_path / "s", "--problems", problems]
    commands = [["evaluate", "-k", "1", "--verdicts", tmp_path / "s", *both]]
    commands += [["export-original", tmp_path / "e", "--verdicts", tmp_path / "s", *both]]
    commands += [["execute", "--out", tmp_path / "v", *both]] if table == "programs" else []
    for command in commands:
        line = refused(*command)
        assert "part-000000.parquet" in line
        assert ("lacks the columns" if spoilt == "other" else "not a readable Parquet file") in line


# ----------------------------------------------------------------------------------------------------------- models


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model."""
    tokenizer = train_tokenizer(["QUESTION ANSWER print assert def return"] * 3, 300, num_sentinels=10)
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny_t5(tokenizer, d_model=8, num_layers=1, num_heads=1).save(folder)
    return folder


class _Gadget:
    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def _cut(file: Path, share: float) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


def _weights(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _pickled(folder: Path, *, zipped: bool) -> None:
    (folder / "model.safetensors").unlink()
    gadget = _Gadget(folder / "canary")
    if zipped:
        torch.save({"shared.weight": gadget}, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(gadget))


def _cut_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"shared.weight": torch.zeros(300, 8)}, folder / "pytorch_model.bin")
    _cut(folder / "pytorch_model.bin", 0.5)


def _set(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _no_merges(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    del tokenizer["model"]["merges"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: _cut(f / "model.safetensors", 0.5), "deserializing header"),
        (lambda f: _cut(f / "model.safetensors", 0), "header too small"),
        (lambda f: _weights(f, lambda w: w.update({QUERY: np.zeros((3, 5))})), "is (3, 5), expected (8, 8)"),
        (lambda f: _weights(f, lambda w: w.pop(QUERY)), f"the weights lack {QUERY}"),
        (lambda f: _weights(f, lambda w: w[QUERY].__setitem__((3, 5), np.nan)), f"{QUERY} is not finite"),
        (lambda f: _pickled(f, zipped=False), "Weights only load failed"),
        (lambda f: _pickled(f, zipped=True), "Weights only load failed"),
        (_cut_pickle, "cannot be loaded"),
        (lambda f: _set(f / "config.json", d_model="wide"), "d_model"),
        (lambda f: _set(f / "config.json", d_model=16), "expected (8, 16)"),
        (lambda f: _set(f / "config.json", num_layers=10**7), "num_layers = 10000000, at most 1000"),
        (lambda f: _set(f / "config.json", model_type="nosuch"), "nosuch"),
        (lambda f: (f / "config.json").write_text(DEEP), "recursion"),
        (lambda f: (f / "config.json").write_text("{"), "config.json"),
        (_no_merges, "Missing vocab/merges"),
        (lambda f: (f / "tokenizer.json").write_text(DEEP), "recursion"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer"),
        (lambda f: (f / "tokenizer_config.json").write_text("[1]"), "cannot be loaded"),
    ],
    ids=["cut", "empty", "shape", "lacking", "nan", "pickle", "zip", "cut-pickle", "type", "width", "depth", "family",
         "deep", "half", "merges", "tokenizer-deep", "no-tokenizer", "tokenizer-list"],
)  # fmt: skip
def test_a_spoilt_model_is_not_sampled_from(
    spoil: Callable[[Path], Any], said: str, tiny: Path, problems: Path, tmp_path: Path, refused: Refused
):
    folder = tmp_path / "m"
    shutil.copytree(tiny, folder)
    spoil(folder)
    line = refused("sample", "--actor", folder, "--problems", problems, "--num-samples", "1", "--out", tmp_path / "s")
    assert f"{folder}: cannot be loaded as a language model" in line
    assert said in line
    assert not (folder / "canary").exists()
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("merges", "vocab", "said"),
    [
        (None, None, "expected one *vocab.json and one *merges.txt"),
        ("x y\n", None, "out of vocabulary"),
        ("a b c\n", None, "not the merges of"),
        ("a b\n", DEEP, "not valid JSON"),
        ("a b\n", '{"a": NaN}', "expected token -> id"),
        ("a b\n", '{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ("a b\n", '{"a": 0}', "<pad>"),
    ],
    ids=["missing", "unknown", "three", "deep", "nan", "digits", "small"],
)
def test_a_spoilt_tokenizer_of_codet5(
    merges: str | None, vocab: str | None, said: str, problems: Path, tmp_path: Path, refused: Refused
):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "a", "b", "ab"]
    (folder / "vocab.json").write_text(vocab or json.dumps({token: i for i, token in enumerate(tokens)}))
    if merges is not None:
        (folder / "merges.txt").write_text(merges)
    (tmp_path / "outputs" / "codes").mkdir(parents=True)
    (tmp_path / "outputs" / "codes" / "7.json").write_text('{"7": {"code": ["print(1)"], "prompt": "p"}}')
    where = ["import-original", tmp_path / "outputs", "--problems", problems, "--out", tmp_path / "out"]
    assert said in refused(*where, "--tokenizer", folder)


# ---------------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = 3", "name = 3"),
        ("problems = 3", "problems = 3"),
        ('[warm_start.optim]\nlearning_rate = "fast"', "learning_rate = 'fast'"),
        ("[warm_start.optim]\nlearning_rate = nan", "learning_rate = nan"),
        ('[evaluation]\nks = "1"', "evaluation.ks"),
        ("[evaluation]\nks = [-1]", "evaluation.ks.0 = -1"),
        ("seed = " + "9" * 5000, "not a TOML recipe"),
        ("x = " + DEEP[:100_000], "not a TOML recipe"),
        (b"\xff\xfe", "not a TOML recipe"),
    ],
    ids=["name", "table", "text", "nan", "list", "negative", "digits", "deep", "bytes"],
)
def test_a_recipe_of_wrong_types(text: str | bytes, said: str, tmp_path: Path, refused: Refused):
    recipe = tmp_path / "r.toml"
    recipe.write_bytes(text if isinstance(text, bytes) else text.encode())
    line = refused("run", recipe, "--run-dir", tmp_path / "run")
    assert said in line
    assert not (tmp_path / "run").exists()
