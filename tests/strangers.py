"""What a stranger can do to a brain: edit its JSON, add modules, change tensors, and vouch for it all in a manifest."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from aios.runs.manifest import MANIFEST_FILE
from training_process import run_aios

CODE = "stranger"
"""Name of the module that `plant_code` leaves in a folder."""
AUTO_MAP = {
    "AutoConfig": f"{CODE}.StrangerConfig",
    "AutoModelForCausalLM": f"{CODE}.StrangerModel",
    "AutoTokenizer": [f"{CODE}.StrangerTokenizer", None],
}


def plant_code(folder: Path, marker: Path) -> None:
    """Put a module into `folder` that writes `marker` when it is imported."""
    (folder / f"{CODE}.py").write_text(f"open({str(marker)!r}, 'w').write('ran')\n", encoding="utf-8")


def edit_json(path: Path, changes: Mapping[str, Any]) -> None:
    """Set keys of a JSON file, which is made where there is none."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**before, **changes}), encoding="utf-8")


def edit_tensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Let `change` work on the tensors of a safetensors file."""
    tensors = load_file(path)
    change(tensors)
    path.unlink()  # the tensors may be mapped from it
    save_file(tensors, path, metadata={"format": "pt"})


def vouch_for(checkpoint: Path) -> None:
    """Write the manifest anew, so that the checkpoint is whole whatever was done to it."""
    manifest = checkpoint / MANIFEST_FILE
    manifest.unlink()
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    entries = {
        file.relative_to(checkpoint).as_posix(): {
            "size": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in files
    }
    manifest.write_text(json.dumps({"format_version": 1, "files": entries}), encoding="utf-8")


def refusal(args: list[str], terminal: str | None = None) -> str:
    """The one sentence with which `aios ARGS` is refused, though it is told `y` whatever it asks."""
    with tempfile.NamedTemporaryFile("w") as yes:
        yes.write("y\n" * 9)
        yes.flush()
        done = run_aios(*args, stdin=terminal or yes.name)
    assert done.returncode == 2, done.stderr + done.stdout
    assert done.stderr.startswith("Error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "[y/N]" not in done.stdout
    sentence: str = done.stderr
    return sentence


@contextmanager
def terminal_that_says_yes() -> Iterator[str]:
    """The path of a terminal, to be a child's stdin, at which `y` has been typed already."""
    ours, theirs = os.openpty()
    os.write(ours, b"y\n" * 9)
    yield os.ttyname(theirs)
    os.close(theirs)
    os.close(ours)
