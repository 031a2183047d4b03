"""What every test may ask for."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # many threads on a busy machine make tiny models a hundred times slower


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets (not part of the project); tests that need it skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CODERL_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set CODERL_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level BPE of 400 tokens."""
    from coderl.models import tiny as tiny_models

    return tiny_models.train_tokenizer(["print(int(input()) + 1)\n", "for i in range(3):\n    print(i)\n"], 400)


@pytest.fixture
def tiny(tokenizer):
    """Fresh models with the same random weights every time, a step of which takes milliseconds: `tiny("llama")`."""
    from coderl.models import tiny as tiny_models

    def make(family="t5", **options):
        build, own = {"t5": (tiny_models.tiny_t5, {"dropout": 0.0}), "llama": (tiny_models.tiny_llama, {})}[family]
        return build(tokenizer, **{"d_model": 16, "num_layers": 1, "num_heads": 2, **own, **options})

    return make


@pytest.fixture
def examples():
    """24 programs of 2 to 6 tokens and the end of sequence (2)."""
    from coderl.training.losses import CrossEntropyExample

    return [CrossEntropyExample((10, 11 + i % 3), (*range(20 + i % 4, 22 + i % 4 + i % 5), 2)) for i in range(24)]


@pytest.fixture
def launched():
    """Start a command as a launcher does, in so many processes; return what each prints: `launched(command, 2)`."""

    def launch(command: list[str], num_processes: int, statuses: tuple[int, ...] | None = None) -> list[str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        shared = {"WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes, "MASTER_PORT": port}
        workers = []
        for rank in range(num_processes):
            own = {**shared, "MASTER_ADDR": "127.0.0.1", "RANK": rank, "LOCAL_RANK": rank}
            environment = os.environ | {name: str(value) for name, value in own.items()}
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
            how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            workers.append(subprocess.Popen(command, env=environment, **how))
        outputs = [worker.communicate(timeout=240)[0] for worker in workers]
        ended = tuple(worker.returncode for worker in workers)
        assert ended == (statuses or (0,) * num_processes), outputs
        return outputs

    return launch
