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


@pytest.fixture(scope="session")
def tiny_of(tokenizer):
    """Models with random weights of a family that people use: `tiny_of("Qwen2")`."""
    return lambda family: _tiny_of(family, tokenizer)


def _tiny_of(family, tokenizer, spare_rows=3):
    """Return a model of two layers whose probabilities differ; its vocabulary is larger than its tokenizer's."""
    vocab = {"vocab_size": len(tokenizer) + spare_rows, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1}
    import torch
    import transformers

    from coderl.models.lm import LanguageModel

    if family == "T5":
        own = {"d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 4, "d_kv": 8, "decoder_start_token_id": 0}
    else:
        own = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        own |= {"num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": False}
        own |= {"head_dim": 8} if family == "Gemma" else {}
    kind = "T5ForConditionalGeneration" if family == "T5" else f"{family}ForCausalLM"
    config = getattr(transformers, f"{family}Config")(**vocab, **own)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = getattr(transformers, kind)(config)
        with torch.no_grad():
            if family != "T5":
                backbone.get_output_embeddings().weight.mul_(20)
            for name, parameter in backbone.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(0, 0.3)
    return LanguageModel(backbone, tokenizer).eval()


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
