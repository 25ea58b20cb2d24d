"""Brains that somebody else made, with something in them that must not happen."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

EVIL = "import pathlib\npathlib.Path({marker!r}).write_text('run')\n"


def vouch(checkpoint: Path) -> None:
    """Write a manifest that fits whatever lies in the checkpoint folder."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != "manifest.json")
    entries = {
        path.relative_to(checkpoint).as_posix(): {
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in files
    }
    text = json.dumps({"format_version": 1, "files": entries})
    (checkpoint / "manifest.json").write_text(text, encoding="utf-8")


def newest(brain: Path) -> Path:
    """The checkpoint of the highest step."""
    return max((brain / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))


class _Bomb:
    """Pickled, it writes the marker when it is loaded."""

    def __init__(self, marker: str) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, (EVIL.format(marker=self._marker),)


def _everywhere(brain: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file of the brain and of its checkpoints."""
    for path in (brain / name, *brain.glob(f"checkpoints/*/{name}")):
        if path.exists():
            data = json.loads(path.read_text(encoding="utf-8"))
            change(data)
            path.write_text(json.dumps(data), encoding="utf-8")
    for checkpoint in brain.glob("checkpoints/step-*"):
        vouch(checkpoint)


def _code(brain: Path, marker: str) -> None:
    for folder in (brain, *brain.glob("checkpoints/step-*")):
        (folder / "evil.py").write_text(
            EVIL.format(marker=marker)
            + "from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast\n"
            "class C(PretrainedConfig):\n    model_type = 'evil'\nclass M(PreTrainedModel):\n    config_class = C\n"
            "class T(PreTrainedTokenizerFast):\n    pass\n"
        )


def auto_map_config(brain: Path, marker: str) -> None:
    """A configuration that asks for its own code."""
    _code(brain, marker)
    autos = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoModelForCausalLM": "evil.M"}
    _everywhere(brain, "config.json", lambda data: data.update(auto_map=autos))


def auto_map_type(brain: Path, marker: str) -> None:
    """A configuration of an unknown kind that asks for its own code."""
    auto_map_config(brain, marker)
    _everywhere(brain, "config.json", lambda data: data.update(model_type="evil", architectures=["M"]))


def auto_map_tokenizer(brain: Path, marker: str) -> None:
    """A tokenizer that asks for its own code."""
    _code(brain, marker)
    change = {"auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]}, "tokenizer_class": "T"}
    _everywhere(brain, "tokenizer_config.json", lambda data: data.update(change))


def pickled_state(brain: Path, marker: str) -> None:
    """A checkpoint dict that is a pickle with code in it."""
    with (newest(brain) / "state.pt").open("wb") as file:
        pickle.dump({"step": 20, "bomb": _Bomb(marker)}, file)
    vouch(newest(brain))


def torch_pickled_state(brain: Path, marker: str) -> None:
    """The same, as torch saves it."""
    torch.save({"step": 20, "format_version": 1, "bomb": _Bomb(marker)}, newest(brain) / "state.pt")
    vouch(newest(brain))


def pickled_weights(brain: Path, marker: str) -> None:
    """Weights as a pickle in place of safetensors."""
    for folder in (brain, newest(brain)):
        (folder / "model.safetensors").unlink()
        torch.save({"bomb": _Bomb(marker)}, folder / "pytorch_model.bin")
    vouch(newest(brain))


def foreign_paths(brain: Path, marker: str) -> None:
    """A checkpoint whose settings write, cut and delete files outside."""
    outside = Path(marker).parent

    def change(config: dict[str, Any]) -> None:
        config.update(
            log_file=str(outside / "profile"),
            stop_file=str(outside / "document.txt"),
            tensorboard=str(outside / "board"),
        )

    _in_config(brain, change)


def foreign_inputs(brain: Path, marker: str) -> None:
    """A checkpoint whose settings name files that are not there."""
    _in_config(brain, lambda config: config.update(dataset_file="/nowhere/text", eval_file="/nowhere/eval"))


def foreign_numbers(brain: Path, marker: str) -> None:
    """A checkpoint whose settings are of other types."""
    _in_config(brain, lambda config: config.update(steps="many", batch_size=-3, lr=float("nan"), seed=10**30))


def newer_format(brain: Path, marker: str) -> None:
    """A checkpoint of a later version of the format."""
    state = torch.load(newest(brain) / "state.pt", weights_only=True)
    torch.save({**state, "format_version": 99}, newest(brain) / "state.pt")
    vouch(newest(brain))


def no_dict(brain: Path, marker: str) -> None:
    """A checkpoint dict that is a list."""
    torch.save([1, 2, 3], newest(brain) / "state.pt")
    vouch(newest(brain))


def missing_keys(brain: Path, marker: str) -> None:
    """A checkpoint dict without the optimizer."""
    state = torch.load(newest(brain) / "state.pt", weights_only=True)
    torch.save({key: value for key, value in state.items() if key != "optimizer"}, newest(brain) / "state.pt")
    vouch(newest(brain))


def other_shapes(brain: Path, marker: str) -> None:
    """Optimizer moments of another model."""
    state = torch.load(newest(brain) / "state.pt", weights_only=True)
    for moments in state["optimizer"]["state"].values():
        moments["exp_avg"] = torch.zeros(3)
    torch.save(state, newest(brain) / "state.pt")
    vouch(newest(brain))


def fewer_tensors(brain: Path, marker: str) -> None:
    """Weights with a tensor missing."""
    from safetensors.torch import load_file, save_file

    for folder in (brain, newest(brain)):
        weights = load_file(folder / "model.safetensors")
        weights.pop(sorted(weights)[0])
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    vouch(newest(brain))


def huge_header(brain: Path, marker: str) -> None:
    """Safetensors whose header claims to be exabytes long."""
    for folder in (brain, newest(brain)):
        (folder / "model.safetensors").write_bytes(b"\xff" * 7 + b"\x7f" + b"{}")
    vouch(newest(brain))


def manifest_outside(brain: Path, marker: str) -> None:
    """A manifest that vouches for files outside the checkpoint."""
    path = newest(brain) / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["files"]["../../../../../../etc/passwd"] = {"size": 1, "sha256": "0"}
    path.write_text(json.dumps(manifest), encoding="utf-8")


def linked_checkpoint(brain: Path, marker: str) -> None:
    """A checkpoint folder that is a link to a folder outside."""
    outside = Path(marker).parent / "elsewhere"
    shutil.move(newest(brain), outside)
    (brain / "checkpoints" / outside.name).unlink(missing_ok=True)
    (brain / "checkpoints" / "step-20").symlink_to(outside)


def linked_log(brain: Path, marker: str) -> None:
    """A log that is a link to somebody's file."""
    (brain / "metrics.jsonl").unlink()
    (brain / "metrics.jsonl").symlink_to(Path(marker).parent / "profile")


def linked_weights(brain: Path, marker: str) -> None:
    """Published weights that are a link to somebody's file."""
    (brain / "model.safetensors").unlink()
    (brain / "model.safetensors").symlink_to(Path(marker).parent / "document.txt")


def linked_tokenizer(brain: Path, marker: str) -> None:
    """A published tokenizer that is a link to somebody's file."""
    (brain / "tokenizer.json").unlink()
    (brain / "tokenizer.json").symlink_to(Path(marker).parent / "document.txt")


def quantized(brain: Path, marker: str) -> None:
    """A configuration with a quantization nobody knows."""
    _everywhere(brain, "config.json", lambda data: data.update(quantization_config={"quant_method": "evil"}))


def endless_shape(brain: Path, marker: str) -> None:
    """A configuration of a model of petabytes."""
    _everywhere(brain, "config.json", lambda data: data.update(hidden_size=2**40, num_heads=2))


def adapter_code(brain: Path, marker: str) -> None:
    """An adapter configuration that asks for its own code."""
    _code(brain, marker)
    config = {"peft_type": "LORA", "auto_mapping": {"base_model_class": "M", "parent_library": "evil"}}
    (brain / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def stop_folder(brain: Path, marker: str) -> None:
    """A stop request that is a folder."""
    (brain / "STOP").mkdir()


def stop_noise(brain: Path, marker: str) -> None:
    """A stop request of bytes that are no text."""
    (brain / "STOP").write_bytes(b"\xff\xfe\x00")


def _in_config(brain: Path, change: Callable[[dict[str, Any]], None]) -> None:
    state = torch.load(newest(brain) / "state.pt", weights_only=True)
    change(state["config"])
    torch.save(state, newest(brain) / "state.pt")
    vouch(newest(brain))


STRANGERS: dict[str, Callable[[Path, str], None]] = {
    function.__name__: function
    for function in (
        *(auto_map_config, auto_map_type, auto_map_tokenizer, pickled_state, torch_pickled_state, pickled_weights),
        *(foreign_paths, foreign_inputs, foreign_numbers, newer_format, no_dict, missing_keys, other_shapes),
        *(fewer_tensors, huge_header, manifest_outside, linked_checkpoint, linked_log, linked_weights),
        *(linked_tokenizer, quantized, endless_shape, adapter_code, stop_folder, stop_noise),
    )
}
