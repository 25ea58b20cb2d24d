"""The brain bundle: a folder that transformers can load, with `brain.json` saying what it is."""

from __future__ import annotations

import json
import math
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aios.errors import UserError

BRAIN_FILE = "brain.json"


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
    """Run id, start and end (unix seconds), final losses and learning rate of the latest run."""


def checkpoint_dir(brain_dir: Path) -> Path:
    """The folder that holds the brain's checkpoints."""
    return brain_dir / "checkpoints"


def list_checkpoints(brain_dir: Path) -> list[Path]:
    """Checkpoint folders of the brain, newest (highest step) first, valid or not."""
    found = [path for path in checkpoint_dir(brain_dir).glob("step-*") if path.name[5:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def holds_brain(brain_dir: Path) -> bool:
    """Whether there is something in the folder that a fresh run would overwrite."""
    return bool(list_checkpoints(brain_dir)) or (brain_dir / "model.safetensors").exists()


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


def check_writable(folder: Path, flag: str) -> None:
    """Refuse, before anything is made, a folder named by `flag` that nothing can be saved in.

    Raises:
        UserError: when the folder, or the nearest parent that exists, is a file or cannot be written in.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"{existing} is a file, so nothing can be saved in {folder}; choose another {flag}.")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"Nothing can be saved in {folder} ({error.strerror}); choose another {flag} or free it."
        ) from error
