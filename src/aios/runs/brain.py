"""The brain bundle: a folder that transformers can load, with `brain.json` saying what it is."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aios.file_names import BEST_FOLDER, BRAIN_FILE, CHECKPOINTS_FOLDER, WEIGHTS_FILE

SET_ASIDE = ".partial-replaced-"
"""How the folder of a checkpoint is called, before its name, while another of the same step takes its place."""
_NAME = re.compile(rf"({re.escape(SET_ASIDE)})?step-(0|[1-9][0-9]{{0,17}})")  # 18 digits fit into 64 bits


@dataclass
class BrainCard:
    """What `brain.json` tells about a brain."""

    name: str
    """The brain's name: its folder's."""
    dataset: str
    """What it was last trained on."""
    tokenizer: str
    """Where its tokenizer came from; the files themselves lie in the bundle."""
    architecture: dict[str, Any]
    """The model's configuration."""
    trained_steps: int = 0
    """Optimizer steps behind the published weights."""
    created: float = field(default_factory=time.time)
    """Unix seconds of the first save."""
    last_session: dict[str, Any] = field(default_factory=dict)
    """Run id, start and end (unix seconds), and final losses of the latest run."""


def checkpoint_dir(brain_dir: Path) -> Path:
    """The folder that holds the brain's checkpoints."""
    return brain_dir / CHECKPOINTS_FOLDER


def best_dir(brain_dir: Path) -> Path:
    """The folder that shows the brain of the best evaluation."""
    return brain_dir / BEST_FOLDER


def list_checkpoints(brain_dir: Path) -> list[Path]:
    """Checkpoint folders of the brain, newest (highest step) first, valid or not.

    One that was being replaced when the run died, and is still set aside, is among them, behind its successor.
    """
    folder = checkpoint_dir(brain_dir)
    found = [
        path for path in (*folder.glob("step-*"), *folder.glob(f"{SET_ASIDE}step-*")) if _NAME.fullmatch(path.name)
    ]
    return sorted(found, key=lambda path: (checkpoint_step(path), not is_set_aside(path)), reverse=True)


def checkpoint_step(checkpoint: Path) -> int:
    """The optimizer step that the name of a checkpoint folder tells."""
    return int(checkpoint.name.rpartition("-")[2])


def is_set_aside(checkpoint: Path) -> bool:
    """Whether this is the checkpoint that another of the same step is to replace."""
    return checkpoint.name.startswith(SET_ASIDE)


def holds_brain(brain_dir: Path) -> bool:
    """Whether there is something in the folder that a fresh run would overwrite."""
    return bool(list_checkpoints(brain_dir)) or (brain_dir / WEIGHTS_FILE).exists()


def read_card(folder: Path) -> BrainCard | None:
    """The card in a brain's or checkpoint's folder; None where there is none, or one that is damaged: it is derived."""
    said = _read_json(folder / BRAIN_FILE)
    try:
        card = BrainCard(**said)
    except TypeError:
        return None
    texts = isinstance(card.name, str) and isinstance(card.dataset, str) and isinstance(card.tokenizer, str)
    tables = isinstance(card.architecture, dict) and isinstance(card.last_session, dict)
    numbers = isinstance(card.trained_steps, int) and isinstance(card.created, (int, float))
    return card if texts and tables and numbers else None


def creation_time(folder: Path) -> float | None:
    """When the brain in a folder was first saved, in unix seconds: the one thing that a damaged card may still tell."""
    created = _read_json(folder / BRAIN_FILE).get("created")
    return float(created) if isinstance(created, (int, float)) and math.isfinite(created) else None


def card_bytes(card: BrainCard) -> bytes:
    """What `brain.json` holds."""
    return json.dumps(asdict(card), indent=2).encode()


def _read_json(path: Path) -> dict[str, Any]:
    """What the file says; nothing where it is missing or damaged in any way."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
