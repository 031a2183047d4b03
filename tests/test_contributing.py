"""The diffs of CONTRIBUTING.md apply to a copy of the tree, and what they add works there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DIFFS = dict(
    zip(re.findall(r"^### (.+)$", PAGE, re.M), re.findall(r"^```diff\n(.*?)^```", PAGE, re.M | re.S), strict=True)
)
MAX_LINES = 60


def apply(diff: str, root: Path) -> None:
    """Apply a diff without line numbers: what is taken away and what stands around it must be there, once."""
    for name, hunks in re.findall(r"^--- \S+\n\+\+\+ b/(\S+)\n(.*?)(?=^--- |\Z)", diff, re.M | re.S):
        path = root / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for hunk in re.split(r"^@@\n", hunks, flags=re.M)[1:]:
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if not line.startswith("+"))
            after = "".join(line[1:] for line in lines if not line.startswith("-"))
            assert not before or text.count(before) == 1, f"{name}: not there once: {before}"
            text = text.replace(before, after) if before else after
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def use(tmp_path: Path):
    """Apply the diff under a heading to a copy of the sources; the returned function runs a command there."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))

    def make(heading: str):
        apply(DIFFS[heading], tmp_path)

        def run(*command: str, status: int = 0) -> str:
            environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
            how = {"capture_output": True, "text": True, "cwd": tmp_path, "env": environment, "timeout": 600}
            done = subprocess.run([sys.executable, *command], check=False, **how)
            assert done.returncode == status, done.stdout + done.stderr
            return done.stdout + done.stderr

        return run

    return make


def test_the_diffs_are_short():
    assert len(DIFFS) == 4
    assert not [name for name, diff in DIFFS.items() if len(diff.splitlines()) > MAX_LINES]


def test_a_stage(use, tmp_path: Path):
    from coderl import tables
    from coderl.types import Program

    run = use("A stage")
    tables.PartedTable(tmp_path / "s" / "programs", Program).write(
        0, [Program("p", 0, "a\n\nb\n"), Program("p", 1, "")]
    )
    asked = ("-m", "coderl", "lengths", "--programs", "s", "--out", "l")
    assert "coderl lengths --programs" in run(*asked[:3], "--help")
    run(*asked)
    assert json.loads((tmp_path / "l" / "manifest.json").read_text())["facts"]["mean_lines"] == 1.0
    assert "done before" in run(*asked)
    assert "skips_blank" in run(*asked, "--no-skips-blank", status=2)


def test_a_data_format(use, tmp_path: Path):
    run = use("A data format")
    rows = [{"name": "sum", "statement": "Add.", "pairs": [["1 2", "3"], ["4 5", "9"]]}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "1 problems in out.jsonl" in run("-m", "coderl", "problems", "convert", "p.jsonl", "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["hidden_tests"][1] == {"stdin": "4 5", "stdout": "9"}
    (tmp_path / "p.jsonl").write_text(json.dumps({**rows[0], "pairs": [[1, 2]]}) + "\n")
    assert "'pairs' must be" in run("-c", "from coderl.problems import load; load('p.jsonl')", status=1)


def test_a_baseline(use):
    run = use("A baseline or another algorithm")
    call = "from coderl.rl.returns import relative_returns as r; print(r([-1.0, -0.5, 1.0], baseline='group_median'))"
    assert run("-c", call).strip() == "[-0.5, 0.0, 1.5]"
    dry = ("-m", "coderl", "run", str(ROOT / "src/coderl/verify.toml"), "--dry-run")
    assert '"baseline": "group_median"' in run(*dry, "--returns.baseline", "group_median")


def test_an_engine(use, tiny, tmp_path: Path):
    run = use("An engine")
    for family in ("t5", "llama"):
        tiny(family).save(tmp_path / family)
        call = f"""
from coderl.engines.actor import Actor
from coderl.engines.settings import SamplingConfig
from coderl.prompts import PromptConfig
from coderl.types import Problem
drawing = SamplingConfig(engine="generate", max_new_tokens=5, temperature=1.0)
actor = Actor.load("{family}", PromptConfig(max_prompt_tokens=16), drawing)
drawn = [actor.sample([Problem("a", "x"), Problem("b", "yy yy")], num_samples=3, seed=1) for _ in range(2)]
print([[len(p.tokens) <= 5 and p.tokens != () for p in row] for row in drawn[0]], drawn[0] == drawn[1])
"""
        assert run("-c", call).strip().splitlines()[-1] == f"{[[True] * 3] * 2} True"
