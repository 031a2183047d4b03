"""Commands that need no weights never import torch or transformers: each is run in a fresh process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coderl import tables
from coderl.recipe import RunConfig
from coderl.types import Program

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "tokenizers", "accelerate")
PROBE = f"""
import sys
from coderl.cli import main
status = 0
try:
    main(sys.argv[1:])
except SystemExit as stopped:
    status = stopped.code or 0
print(status, *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)
"""


def run(*arguments: str, cwd: Path) -> tuple[int, list[str]]:
    """Run a command in a fresh process; return its status and which heavy packages it imported."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PROBE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=600, check=False)
    status, *heavy = done.stderr.strip().splitlines()[-1].split()
    return int(status), heavy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A problem, two programs of it, and a run directory of which the tests' programs are there."""
    folder = tmp_path_factory.mktemp("imports")
    problem = {
        "problem_id": "p0",
        "description": "Print the sum.",
        "hidden_tests": [{"stdin": "1 2\n", "stdout": "3\n"}],
        "solutions": ["print(sum(map(int, input().split())))"],
    }
    problems = folder / "run" / "problems"
    problems.mkdir(parents=True)
    for name in ("train", "validation", "test"):
        (problems / f"{name}.jsonl").write_text(json.dumps(problem) + "\n")
    config = RunConfig.model_validate({"evaluation": {"temperatures": [0.6], "ks": [1]}, "critic_sampling": None})
    (folder / "run" / "recipe.json").write_text(config.model_dump_json())
    rows = [Program("p0", index, f"print({index})") for index in range(2)]
    for model in ("warm_start", "actor_critic", "ce_control"):
        at = folder / "run" / "evaluate" / model / "t0.6"
        tables.PartedTable(at / "sample" / "programs", Program).write(0, rows)
        asked = ("--programs", f"{at}/sample", "--problems", f"{problems}/test.jsonl", "--out", f"{at}/execute")
        assert run("execute", *asked, cwd=folder) == (0, [])
    return folder


COMMANDS = {
    "--help": 0,
    "--version": 0,
    "exekute": 2,
    "doctor": None,
    "audit-grader --help": 0,
    "serve-execution --help": 0,
    "problems --help": 0,
    "problems check run/problems/train.jsonl": 0,
    "problems convert run/problems/train.jsonl out.jsonl": 0,
    "execute --programs run/evaluate/warm_start/t0.6/sample --problems run/problems/test.jsonl --out judged": 0,
    "evaluate --programs run/evaluate/warm_start/t0.6/sample --verdicts run/evaluate/warm_start/t0.6/execute "
    "--problems run/problems/test.jsonl -k 1": 0,
    "report run": 0,
    f"run {ROOT}/recipes/mbpp_smollm2.toml --dry-run": 0,
}
"""Command -> its status; None for the doctor's, which depends on the machine."""


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.replace(str(ROOT), "").split(" --pr")[0])
def test_no_weights_are_near(command: str, folder: Path):
    status, heavy = run(*command.split(), cwd=folder)
    assert heavy == []
    assert COMMANDS[command] in (None, status)


def test_the_probe_sees_what_is_imported(folder: Path):
    """`sample` draws from a model, so its module imports torch."""
    status, heavy = run("sample", "--help", cwd=folder)
    assert status == 0
    assert "torch" in heavy
