"""Checkpoints of a few kilobytes, as the trainer writes them, without a training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from aios.auto_lr.loop.random_state import rng_state
from aios.runs.checkpoints import save_checkpoint


def small_state(step: int) -> dict[str, Any]:
    """A checkpoint dict of one parameter and a fixed learning rate."""
    moments = {"step": torch.tensor(float(step)), "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}
    anneal = {"start": step, "end": step, "scale": 1.0}
    parts = ("scheduler", "recovery")
    plan = {"base_lr": 1e-3, "bounds": None, "warmup_steps": 0, "first_step": 0}
    return {
        "step": step,
        "optimizer": {"state": {0: moments}, "param_groups": [{"params": [0], "names": ["weight"], "lr": 1e-3}]},
        "zero_stage": 0,
        "scaler": {},
        "rng": rng_state(),
        "data": {"id": "none", "samples": step},
        "config": {},
        "adaptive_lr": {
            "version": 2,
            "step_count": step,
            "search_steps": 0,
            "batch": step,
            "found": None,
            "climb": None,
            "control": {**plan, "anneal": anneal, "finishing": False, **dict.fromkeys(parts)},
        },
    }


def write_model(folder: Path) -> None:
    """Files with the names of a model's."""
    (folder / "model.safetensors").write_bytes(bytes(1000))
    (folder / "config.json").write_text("{}")


def save_small(brain: Path, step: int, keep: int = 3, **entries: Any) -> Path:
    """Save the checkpoint of `step`, `entries` in place of some of its state's; returns its folder."""
    return save_checkpoint(brain, {**small_state(step), **entries}, write_model, keep).path


def reseal(path: Path) -> None:
    """Make the manifest agree with the files, as somebody would who wants to be believed."""
    manifest = json.loads((path / "manifest.json").read_text())
    for name in manifest["files"]:
        data = (path / name).read_bytes()
        manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))
