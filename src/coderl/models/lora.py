"""Low-rank adapters (LoRA) by `peft`: a large backbone learns through a few small matrices beside its own.

Source: Hu et al. 2022. Not in CodeRL. The adapters are put into the backbone in place, so that it stays what it was to
everything else; `peft` is an extra and is imported here only, when it is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from coderl.models.settings import LoraConfig
from coderl.records import read_json, write_json
from coderl.types import InputError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def peft_module() -> Any:
    """Return the `peft` package.

    Raises:
        InputError: it is not installed.
    """
    try:
        import peft
    except ImportError:
        raise InputError("LoRA needs the package peft: pip install 'coderl[lora]'") from None
    return peft


def add_adapters(backbone: nn.Module, config: LoraConfig) -> None:
    """Put adapters that change nothing yet into the backbone, and leave only them to be trained.

    Raises:
        InputError: `peft` is missing, or the backbone has no such layers.
    """
    peft = peft_module()
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.target_modules) or "all-linear",
    )
    try:
        peft.inject_adapter_in_model(settings, backbone)
    except ValueError as error:
        raise InputError(f"LoRA: {' '.join(str(error).split())}") from None


def merged_state(backbone: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a backbone without adapters that computes the same; nothing is changed in place."""
    peft_module()
    from peft.tuners.lora import Linear as AdaptedLinear

    state = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in backbone.state_dict().items()
        if ".lora_" not in name
    }
    for name, module in backbone.named_modules():
        if isinstance(module, AdaptedLinear):
            for adapter in module.active_adapters:
                state[f"{name}.weight"] = state[f"{name}.weight"] + module.get_delta_weight(adapter)
    return state


def save_adapter(backbone: nn.Module, config: LoraConfig, base: str, folder: Path) -> None:
    """Write the adapters alone, and which base model they belong to, as `peft` names the files."""
    peft = peft_module()
    from safetensors.torch import save_file

    state = {name: t.detach().cpu().contiguous() for name, t in peft.get_peft_model_state_dict(backbone).items()}
    save_file(state, folder / ADAPTER_WEIGHTS)
    write_json(folder / ADAPTER_CONFIG, {"base_model_name_or_path": base, "coderl": config.model_dump(mode="json")})


def read_adapter_config(folder: Path) -> tuple[str, LoraConfig] | None:
    """Return the base model and the settings of the adapter in a folder; None where there is none.

    Raises:
        InputError: the file there is not one that `save_adapter` wrote.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    record = read_json(folder / ADAPTER_CONFIG)
    if not isinstance(record, dict) or "coderl" not in record or not record.get("base_model_name_or_path"):
        raise InputError(f"{folder / ADAPTER_CONFIG}: not an adapter that coderl wrote")
    return record["base_model_name_or_path"], LoraConfig.model_validate(record["coderl"])


def load_adapter(backbone: nn.Module, config: LoraConfig, folder: Path) -> None:
    """Put the adapters of a folder into their base model.

    Raises:
        InputError: the weights are missing or of another model.
    """
    peft = peft_module()
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    add_adapters(backbone, config)
    try:
        state = load_file(folder / ADAPTER_WEIGHTS)
        outcome = peft.set_peft_model_state_dict(backbone, state)
    except (OSError, SafetensorError, RuntimeError) as error:
        message = " ".join(str(error).split())
        raise InputError(f"{folder / ADAPTER_WEIGHTS}: not an adapter of this base model ({message})") from None
    if outcome.unexpected_keys:
        raise InputError(f"{folder / ADAPTER_WEIGHTS}: not an adapter of this base model")
