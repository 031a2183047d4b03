"""A corpus holds what it should, whole projects on one side of the split, however often its making was interrupted."""

import ast
from collections import Counter

import pytest

from coderl import records, tables
from coderl.corpus import DroppedFile
from coderl.corpus import build as corpus
from coderl.corpus.build import CorpusConfig, build_corpus, held_out_projects
from coderl.stages.console import Reporter
from coderl.training.packed import CorpusFile
from coderl.types import InputError

QUIET = Reporter(quiet=True)


def code(seed, num_lines=12):
    """A file that is like no other."""
    return "".join(f"name_{seed}_{i} = function_{seed}({i}, 'word {seed} {i}')\n" for i in range(num_lines))


@pytest.fixture
def folder(tmp_path):
    """Eight permissive projects of three files, and one file for every reason to be dropped."""
    root = tmp_path / "packages"

    def write(path, content):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    for project in range(8):
        write(f"p{project}/pyproject.toml", '[project]\nlicense = "MIT"\n')
        for number in range(3):
            write(f"p{project}/src/m{number}.py", code(10 * project + number))
    write("p0/gpl.py", "# SPDX-License-Identifier: GPL-3.0-only\n" + code(100))
    write("strange/a.py", code(101))
    write("strange/free.py", "# SPDX-License-Identifier: 0BSD\n" + code(102))
    write("p1/secret.py", code(103) + "KEY = 'AKIA" + "ABCDEFGHIJKLMNOP'\n")
    write("p1/x_pb2.py", code(104))
    write("p1/_vendor/v.py", code(105))
    write("p2/small.py", "x = 1\n")
    write("p2/large.py", code(106, 400))
    write("p2/latin.py", code(107).encode() + "# \xe9\n".encode("latin-1"))
    write("p2/old.py", code(108) + "print 'x'\n")
    write("p3/long.py", code(109) + f"x = '{'a' * 2000}'\n")
    write("p3/data.py", "TABLE = [\n" + "    'word',\n" * 60 + "]\n")
    write("p4/copy.py", code(50).replace("\n", "  \r\n\r\n"))
    write("p5/near.py", code(70, 40))
    write("p6/near.py", code(70, 40) + "last = 1\n")
    return root


CONFIG = CorpusConfig(max_bytes=15_000, validation_share=0.3, shard_bytes=2_000)


def made(out, folder, config=CONFIG):
    build_corpus(out, folders=[folder], config=config, reporter=QUIET)
    splits = {s: list(tables.read_table(out / s, CorpusFile)) for s in ("train", "validation")}
    return splits, list(tables.read_table(out / "dropped", DroppedFile))


def test_what_is_kept_and_why_the_rest_is_not(folder, tmp_path):
    splits, dropped = made(tmp_path / "out", folder)
    reasons = {f.path.removeprefix("packages/"): f.reason for f in dropped}
    assert reasons == {
        "p0/gpl.py": "licence not permissive",
        "strange/a.py": "unknown licence",
        "p1/secret.py": "secret",
        "p1/x_pb2.py": "generated",
        "p1/_vendor/v.py": "vendored",
        "p2/small.py": "too small",
        "p2/large.py": "too large",
        "p2/latin.py": "not UTF-8",
        "p2/old.py": "not parsable",
        "p3/long.py": "long lines or few letters",
        "p3/data.py": "mostly data",
        "p5/src/m0.py": "duplicate",
        "p6/near.py": "near duplicate",
    }
    twins = {f.path: f.twin for f in dropped if f.twin}
    assert twins == {"packages/p5/src/m0.py": "packages/p4/copy.py", "packages/p6/near.py": "packages/p5/near.py"}
    kept = [f for files in splits.values() for f in files]
    assert len(kept) + len(dropped) == len(list(folder.rglob("*.py")))
    assert {f.licence for f in kept} == {"MIT", "0BSD"}
    assert {f.project for f in kept if f.licence == "0BSD"} == {"strange"}
    for file in kept:
        assert file.text == (folder.parent / file.path).read_bytes().decode().replace("\r\n", "\n")
        ast.parse(file.text)
    facts = records.facts_of(tmp_path / "out")
    assert {reason: n["num_files"] for reason, n in facts["dropped"].items()} == Counter(reasons.values())
    assert facts["kept"]["train"]["num_files"] == len(splits["train"])
    assert facts["kept"]["validation"]["num_bytes"] == sum(len(f.text.encode()) for f in splits["validation"])


def test_no_project_is_on_both_sides(folder, tmp_path):
    splits, _ = made(tmp_path / "out", folder)
    train, validation = ({f.project for f in splits[s]} for s in ("train", "validation"))
    assert train
    assert validation
    assert not train & validation
    sizes = {s: sum(len(f.text) for f in files) for s, files in splits.items()}
    assert sizes["validation"] <= 0.3 * sum(sizes.values())


def test_shards_are_of_bounded_size_and_mix_projects(folder, tmp_path):
    made(tmp_path / "out", folder)
    parts = tables.parts_of(tmp_path / "out" / "train")
    sizes = [[len(f.text.encode()) for f in tables.read_table(part, CorpusFile)] for part in parts]
    assert len(parts) > 3
    assert all(sum(rows[:-1]) < 2_000 for rows in sizes)
    assert all(sum(rows) >= 2_000 for rows in sizes[:-1])
    order = [f.project for f in tables.read_table(tmp_path / "out" / "train", CorpusFile)]
    assert order != sorted(order)


def test_any_licence_keeps_what_is_unknown(folder, tmp_path):
    _, dropped = made(tmp_path / "out", folder, CONFIG.model_copy(update={"any_licence": True}))
    assert not {"unknown licence", "licence not permissive"} & {f.reason for f in dropped}
    assert "secret" in {f.reason for f in dropped}


@pytest.mark.parametrize("victim", ["reading", "writing"])
def test_an_interrupted_build_goes_on_to_the_same_corpus(folder, tmp_path, monkeypatch, victim):
    made(tmp_path / "whole", folder)
    monkeypatch.setattr(corpus, "EXAMINED_AT_ONCE", 5)
    name = {"reading": "examine", "writing": "_text"}[victim]
    original, calls = getattr(corpus, name), []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 18:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(corpus, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "out", folder)
    assert not (tmp_path / "out" / records.MANIFEST).exists()
    made(tmp_path / "out", folder)
    outputs = [records.read_json(tmp_path / n / records.MANIFEST)["outputs"] for n in ("whole", "out")]
    assert outputs[0] == outputs[1]
    if victim == "reading":
        num_files = len(list(folder.rglob("*.py")))
        assert len(calls) == 18 + num_files - 15, "three whole parts of five were not read again"


def test_changed_sources_are_refused(folder, tmp_path):
    made(tmp_path / "out", folder)
    (folder / "p0/src/m0.py").write_text(code(200))
    with pytest.raises(InputError, match="made with other inputs"):
        made(tmp_path / "out", folder)


def test_nothing_kept_is_one_clear_line(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.py").write_text(code(1))
    with pytest.raises(InputError, match=r"none of the 1 files is kept: .*unknown licence"):
        made(tmp_path / "out", tmp_path / "x")
    assert not (tmp_path / "out").exists()


def test_held_out_projects_by_hand():
    """Those that fit into the share, else the smallest; none without a share, or of one project."""
    sizes = {"a": 50, "b": 30, "c": 15, "d": 5}
    chosen = held_out_projects(sizes, 0.2, seed=0)
    assert chosen == {"c", "d"}, "both fit together, the others do not"
    assert held_out_projects(sizes, 0.01, seed=0) == {"d"}
    assert held_out_projects(sizes, 0.0, seed=0) == set()
    assert held_out_projects({"a": 1}, 0.5, seed=0) == set()
    many = {f"p{i}": 10 for i in range(100)}
    assert len(held_out_projects(many, 0.1, seed=0)) == 10
    assert held_out_projects(many, 0.1, seed=0) == held_out_projects(dict(reversed(many.items())), 0.1, seed=0)
    assert held_out_projects(many, 0.1, seed=0) != held_out_projects(many, 0.1, seed=1)
