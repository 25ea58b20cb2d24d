"""What a brain's folder shows: copies of its newest checkpoint's files, so that transformers loads them from there.

They are derived. A resume never reads them, and puts right what is damaged.
"""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Collection
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from aios.file_names import BRAIN_FILE, WEIGHTS_FILE, WEIGHTS_INDEX_FILE
from aios.files import fsync, replace_file
from aios.runs.manifest import MANIFEST_FILE, STATE_FILE

TOKENIZER_MARK = "tokenizer_config.json"
"""Every tokenizer that transformers saves has it."""
_OF_WEIGHTS = (WEIGHTS_FILE, "model-*-of-*.safetensors", WEIGHTS_INDEX_FILE)
_OF_MODEL = (*_OF_WEIGHTS, "generation_config.json")
_OF_TOKENIZER = (
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt"),
)


class Published(NamedTuple):
    """What had to be done for the folder to show a checkpoint; names of files."""

    replaced: list[str]
    """Files that were missing or had other contents."""
    removed: list[str]
    """Files of a model or tokenizer that the checkpoint does not have."""


def holds_tokenizer(folder: Path) -> bool:
    """Whether a checkpoint has a tokenizer of its own; those of the first form left it to the brain's folder."""
    return (folder / TOKENIZER_MARK).is_file()


def publish(brain_dir: Path, checkpoint: Path, private: Collection[str] = ()) -> Published:
    """Show the files of a valid checkpoint in the brain's folder, all but what only a resume needs.

    That is the checkpoint dict and the files or folders in `private`. Each file is replaced whole and on the disk
    before the next is; one with the right contents is left alone. Weights come after all that is needed to load them,
    so that a power cut in a first publication leaves no model that cannot be loaded; the card is the last.
    """
    names = _public_names(checkpoint, {STATE_FILE, MANIFEST_FILE, *private})
    stale = [name for name in names if not _same(brain_dir / name, checkpoint / name)]
    for name in stale:
        (brain_dir / name).parent.mkdir(parents=True, exist_ok=True)
        with (checkpoint / name).open("rb") as source:
            replace_file(brain_dir / name, partial(shutil.copyfileobj, source, length=1 << 20), over_folder=True)
    surplus = _surplus(brain_dir, checkpoint, names)
    for path in surplus:
        path.unlink()
    if surplus:
        fsync(brain_dir)
    return Published(sorted(stale), [path.name for path in surplus])


def _public_names(checkpoint: Path, private: Collection[str]) -> list[str]:
    """Names, with `/`, of the checkpoint's files under its manifest that are to be shown, in order."""
    manifest = json.loads((checkpoint / MANIFEST_FILE).read_text(encoding="utf-8"))
    names = [PurePosixPath(name) for name in manifest["files"]]
    inside = [name for name in names if not name.is_absolute() and ".." not in name.parts]
    shown = [str(name) for name in inside if name.parts[0] not in private]
    return sorted(shown, key=lambda name: (name == BRAIN_FILE, _is_any(name, _OF_WEIGHTS), name))


def _is_any(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _same(shown: Path, own: Path) -> bool:
    return shown.is_file() and not shown.is_symlink() and filecmp.cmp(shown, own, shallow=False)


def _surplus(brain_dir: Path, checkpoint: Path, names: Collection[str]) -> list[Path]:
    """Files that transformers would take for a part of the brain, left by another tokenizer or model."""
    patterns = (*_OF_MODEL, *(_OF_TOKENIZER if holds_tokenizer(checkpoint) else ()))
    found = {path for pattern in patterns for path in brain_dir.glob(pattern) if path.name not in names}
    return sorted(path for path in found if path.is_file() or path.is_symlink())
