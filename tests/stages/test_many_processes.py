"""A run of several processes is the run of one: the same files, and either goes on where the other was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import coderl
from coderl import records
from coderl.stages.verify import compare, num_steps_of

pytestmark = pytest.mark.slow
RECIPE = Path(coderl.__file__).parent / "verify.toml"
SHARED_TRAINING = [
    f"--{training}.optim.gradient-accumulation-steps={parts}"
    for training, parts in (("warm-start", 2), ("critic.training", 2), ("actor-training", 3), ("repair.training", 4))
]
"""Batches in parts, so that the processes also share the updates."""


def start(run_dir: Path, num_processes: int) -> subprocess.Popen[str]:
    """Start the run as a user does."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={num_processes}"] if num_processes > 1 else []
    command = [sys.executable, *launcher, "-m", "coderl", "run", str(RECIPE), *SHARED_TRAINING, "--run-dir"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    how = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen([*command, str(run_dir)], **how)


def finish(run_dir: Path, num_processes: int) -> Path:
    process = start(run_dir, num_processes)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return run_dir


def differing(one: Path, other: Path) -> list[object]:
    """Return what differs between two runs, folder by folder; nothing where they are equal."""
    found = compare(one, other)
    assert len(found) > 30
    names = [sorted(str(p.relative_to(run)) for p in records.visible_files(run)) for run in (one, other)]
    assert names[0] == names[1]
    for name in ("recipe.json", "selection.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    return [each for each in found if each.differing]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("one") / "run", 1)


def test_two_processes_write_what_one_writes(one: Path, tmp_path: Path):
    """Every table, weight, logged figure and manifest, byte for byte, times left out."""
    assert differing(one, finish(tmp_path / "run", 2)) == []


def test_a_rank_that_is_killed_ends_the_run_and_one_process_goes_on(one: Path, tmp_path: Path):
    """The launcher and the survivor name the rank; then three processes take over, are killed too, and one ends it."""
    for num_processes, share in ((2, 0.3), (3, 0.6)):
        process = start(tmp_path / "run", num_processes)
        while process.poll() is None and num_steps_of(tmp_path / "run") < share * num_steps_of(one):
            time.sleep(0.02)
        victim = children(process.pid)[-1]
        os.kill(victim, signal.SIGKILL)
        killed_at = time.monotonic()
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        assert time.monotonic() - killed_at < 45  # the launcher's own patience is 30 seconds
        assert "SIGKILL" in errors or "was killed" in errors
    assert differing(one, finish(tmp_path / "run", 1)) == []


def children(pid: int) -> list[int]:
    """Return the processes that a launcher has started, in the order of their ranks."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert found
    return [int(each) for each in found]
