"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685) beside the frozen weights of an HRM, through `peft`.

A checkpoint of an adapted model holds three things: `model.safetensors`, the adapters merged into the weights, which
loads with plain transformers; `base.safetensors`, the frozen weights, since merging cannot be undone to the last bit;
and `adapter/`, in the format of peft. A resumed run reads the last two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from aios.core.exact_tensors import read_exactly
from aios.core.foreign_json import read_foreign_json
from aios.core.hrm_models import HRMForCausalLM
from aios.errors import UserError, shown
from aios.settings.config import TrainingConfig
from aios.settings.flag_values import flag_name

ADAPTED = ("qkv", "out", "gate_up", "down")
"""Projections that get adapters: those of attention and MLPs; router, heads and embedding stay as they are."""
BASE_FILE = "base.safetensors"
ADAPTER_DIR = "adapter"
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_PEFT_PREFIX = "base_model.model."
"""Of the names in an adapter file, so that peft's `PeftModel.from_pretrained` reads it."""
_NEVER_ASKED = ("alpha_pattern", "base_model_name_or_path", "fan_in_fan_out", "use_dora", "use_rslora")
"""Settings of peft that would change what adapters of the same shape compute, or load something else."""
_OF_BASE, _OF_ADAPTER = ".base_layer", ".lora_"
"""Parts of parameter names that peft makes."""


def add_adapters(model: HRMForCausalLM, config: TrainingConfig) -> None:
    """Freeze `model` and put adapters, which change nothing yet, beside its projections."""
    from peft import LoraConfig, inject_adapter_in_model  # takes a second, and only --use-peft needs it

    inject_adapter_in_model(
        LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=list(ADAPTED)), model
    )


def holds_adapters(folder: Path) -> bool:
    """Whether `folder` is a checkpoint of an adapted model."""
    return (folder / BASE_FILE).is_file()


def restore_adapters(model: HRMForCausalLM, folder: Path, config: TrainingConfig) -> None:
    """Bring `model`, loaded from the checkpoint `folder`, back to frozen weights and adapters.

    Raises:
        UserError: when `config` wants adapters of another shape, or the files are not those of such a model.
    """
    saved = _read_adapter_config(folder / ADAPTER_DIR / _ADAPTER_FILES[0])
    for name, there in (("lora_rank", saved["r"]), ("lora_alpha", saved["lora_alpha"])):
        if getattr(config, name) != there:
            raise UserError(
                f"{folder} holds adapters with {flag_name(name)} {there}, not {getattr(config, name)}; leave the flag "
                "out, or start anew from the brain with --student-init."
            )
    model.load_state_dict(read_exactly(folder / BASE_FILE, model.state_dict()))
    add_adapters(model, config)
    load_adapters(model, folder)


def load_adapters(model: HRMForCausalLM, folder: Path) -> None:
    """Put the adapters in the checkpoint `folder` into `model`, which has such, beside the same frozen weights.

    Raises:
        UserError: when the file holds others.
    """
    own = _adapters(model)
    with torch.no_grad():
        for name, tensor in read_exactly(folder / ADAPTER_DIR / _ADAPTER_FILES[1], own).items():
            own[name].copy_(tensor)


def _read_adapter_config(path: Path) -> dict[str, Any]:
    """peft's settings of the adapters, which must be such as `add_adapters` makes."""
    saved = read_foreign_json(path)
    targets = saved.get("target_modules")
    asked = next((name for name in _NEVER_ASKED if saved.get(name)), None)
    if asked is not None:
        raise UserError(f"{path} asks for {asked} {shown(saved[asked])}, which is not done here; choose others.")
    if (
        saved.get("peft_type") != "LORA"
        or not isinstance(targets, list)
        or sorted(map(str, targets)) != sorted(ADAPTED)
    ):
        raise UserError(f"{path} does not describe LoRA adapters of an HRM; choose others.")
    for name in ("r", "lora_alpha"):
        if type(saved.get(name)) is not int:
            raise UserError(f"{path} has the {name} {shown(saved.get(name))}, not a whole number; choose others.")
    return saved


def _adapters(model: HRMForCausalLM) -> dict[str, Tensor]:
    """The adapters' parameters under the names they have in an adapter file."""
    return {_file_name(name): param for name, param in model.named_parameters() if _OF_ADAPTER in name}


def base_weights(model: HRMForCausalLM) -> dict[str, Tensor]:
    """The frozen weights and buffers, under the names they have without adapters."""
    return {
        name.replace(_OF_BASE, ""): tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if _OF_ADAPTER not in name
    }


def merged_weights(model: HRMForCausalLM) -> dict[str, Tensor]:
    """`base_weights` with what the adapters add: W + alpha / rank x B A. The model stays as it is."""
    from peft.tuners.lora import Linear

    merged = base_weights(model)
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            key = f"{name}.weight"
            merged[key] = merged[key] + module.get_delta_weight("default").to(merged[key].dtype)
    return merged


def save_weights(model: HRMForCausalLM, folder: Path) -> None:
    """Write the model's files into a checkpoint folder, which then loads with transformers; adapters are merged, and
    lie beside it with the weights that they were added to."""
    if not any(_OF_ADAPTER in name for name, _ in model.named_parameters()):
        model.save_pretrained(folder)
        return
    model.save_pretrained(folder, state_dict=merged_weights(model))
    save_file(base_weights(model), folder / BASE_FILE)
    adapter_dir = folder / ADAPTER_DIR
    adapter_dir.mkdir()
    model.peft_config["default"].save_pretrained(adapter_dir)
    adapters = {name: param.detach().contiguous() for name, param in _adapters(model).items()}
    save_file(adapters, adapter_dir / _ADAPTER_FILES[1])


def _file_name(parameter: str) -> str:
    return _PEFT_PREFIX + parameter.replace(".default.", ".")
