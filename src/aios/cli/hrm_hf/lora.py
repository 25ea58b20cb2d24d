"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685) beside the frozen weights of an HRM, through `peft`.

A checkpoint of an adapted model holds three things: `model.safetensors`, the adapters merged into the weights, which
loads with plain transformers; `base.safetensors`, the frozen weights, since merging cannot be undone to the last bit;
and `adapter/`, in the format of peft. A resumed run reads the last two.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from aios.core.hrm_models import HRMForCausalLM
from aios.errors import UserError
from aios.settings.config import TrainingConfig, flag_name

ADAPTED = ("qkv", "out", "gate_up", "down")
"""Projections that get adapters: those of attention and MLPs; router, heads and embedding stay as they are."""
BASE_FILE = "base.safetensors"
ADAPTER_DIR = "adapter"
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_PEFT_PREFIX = "base_model.model."
"""Of the names in an adapter file, so that peft's `PeftModel.from_pretrained` reads it."""
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
        UserError: when `config` wants adapters of another shape.
    """
    saved = json.loads((folder / ADAPTER_DIR / _ADAPTER_FILES[0]).read_text(encoding="utf-8"))
    for name, there in (("lora_rank", saved["r"]), ("lora_alpha", saved["lora_alpha"])):
        if getattr(config, name) != there:
            raise UserError(
                f"{folder} holds adapters with {flag_name(name)} {there}, not {getattr(config, name)}; leave the flag "
                "out, or start anew from the brain with --student-init."
            )
    model.load_state_dict(load_file(folder / BASE_FILE))
    add_adapters(model, config)
    adapters = load_file(folder / ADAPTER_DIR / _ADAPTER_FILES[1])
    own = {name: param for name, param in model.named_parameters() if _OF_ADAPTER in name}
    with torch.no_grad():
        for name, param in own.items():
            param.copy_(adapters[_file_name(name)])


def weights_saver(model: HRMForCausalLM) -> Callable[[Path], None]:
    """What writes the model's files into a checkpoint folder; after it the folder loads with transformers."""
    if not any(_OF_ADAPTER in name for name, _ in model.named_parameters()):
        save: Callable[[Path], None] = model.save_pretrained
        return save
    return lambda folder: _save_adapted(model, folder)


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


def _save_adapted(model: HRMForCausalLM, folder: Path) -> None:
    model.save_pretrained(folder, state_dict=merged_weights(model))
    save_file(base_weights(model), folder / BASE_FILE)
    adapter_dir = folder / ADAPTER_DIR
    adapter_dir.mkdir()
    model.peft_config["default"].save_pretrained(adapter_dir)
    adapters = {
        _file_name(name): p.detach().contiguous() for name, p in model.named_parameters() if _OF_ADAPTER in name
    }
    save_file(adapters, adapter_dir / _ADAPTER_FILES[1])


def _file_name(parameter: str) -> str:
    return _PEFT_PREFIX + parameter.replace(".default.", ".")
