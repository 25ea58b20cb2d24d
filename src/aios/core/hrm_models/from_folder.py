"""An HRM out of a folder that anybody may have made: its config checked, its weights complete, none of its code run.

Neither the Auto classes nor `from_pretrained` are asked: they look for code, pickles and adapters, and fill gaps in
the weights with random numbers. `generation_config.json` is not used: the model's own follows from its config.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from aios.core.exact_tensors import check_exact, read_tensors
from aios.core.foreign_json import read_foreign_json, refuse_code
from aios.core.hrm_models.configuration_hrm import HRMConfig
from aios.core.hrm_models.modeling_hrm import HRMForCausalLM
from aios.errors import UserError, shown
from aios.file_names import CONFIG_FILE, WEIGHTS_FILE, WEIGHTS_INDEX_FILE

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_WEIGHT_TYPES = ("float32", "bfloat16", "float16")


def read_config(folder: Path) -> HRMConfig:
    """The config of the HRM in `folder`.

    Raises:
        UserError: when it describes no HRM, or asks for code or quantised weights.
    """
    refuse_code(folder)
    path = folder / CONFIG_FILE
    saved = read_foreign_json(path)
    _check_kind(saved, path)
    try:
        return HRMConfig(**{name: value for name, value in saved.items() if name in HRMConfig.__annotations__})
    except ValueError as error:
        raise UserError(f"{path} does not describe an HRM ({error}); choose another folder.") from error


def _check_kind(saved: dict[str, Any], path: Path) -> None:
    """Refuse what is no HRM with plain weights."""
    kind, classes = saved.get("model_type"), saved.get("architectures")
    if kind != HRMConfig.model_type:
        raise UserError(f"{path} describes a model of type {shown(kind)}, not an HRM; choose another folder.")
    if classes is not None and classes != [HRMForCausalLM.__name__]:
        raise UserError(f"{path} names the architectures {shown(classes)}, not an HRM; choose another folder.")
    if saved.get("quantization_config") is not None:
        asked = f"quantization_config {shown(saved['quantization_config'])}"
        raise UserError(f"{path} asks for quantised weights ({asked}), which cannot be trained; choose another folder.")
    for name in ("dtype", "torch_dtype"):
        if saved.get(name) is not None and saved[name] not in _WEIGHT_TYPES:
            raise UserError(
                f"{path} has the {name} {shown(saved[name])}, not one of {', '.join(_WEIGHT_TYPES)}; choose "
                "another folder."
            )


def load_model(folder: Path, config: HRMConfig) -> HRMForCausalLM:
    """The model of `config`, which `read_config` gave, with the weights in `folder`; on the CPU, in their type.

    Raises:
        UserError: when the weights cannot be read, or are not exactly those of such a model.
    """
    files = _weight_files(folder)
    weights = {name: tensor for file in files for name, tensor in read_tensors(file).items()}
    with torch.device("meta"):  # no numbers are drawn for what is replaced anyway
        model = HRMForCausalLM(config)
    check_exact(weights, model.state_dict(), files[0] if len(files) == 1 else folder / WEIGHTS_INDEX_FILE)
    model.load_state_dict({name: tensor.clone() for name, tensor in weights.items()}, assign=True)
    return model.eval()


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors file of a model, or those its index names."""
    if os.path.lexists(folder / WEIGHTS_FILE):
        return [folder / WEIGHTS_FILE]
    index = folder / WEIGHTS_INDEX_FILE
    if os.path.lexists(index):
        places = read_foreign_json(index).get("weight_map")
        names = list(places.values()) if isinstance(places, dict) else []
        if not names or not all(isinstance(name, str) and os.path.basename(name) == name for name in names):
            raise UserError(f"{index} does not name files of its own folder for the weights; choose another folder.")
        return [folder / name for name in sorted(set(names))]
    pickled = next((name for name in _PICKLES if os.path.lexists(folder / name)), None)
    if pickled is not None:
        raise UserError(
            f"{folder} keeps its weights as a pickle ({pickled}), which may run code and is never opened here; save "
            f"them as {WEIGHTS_FILE}."
        )
    raise UserError(f"{folder} holds no weights: there is no {WEIGHTS_FILE}; choose another folder.")
