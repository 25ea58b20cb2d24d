"""The manifest of a checkpoint: size and SHA-256 hash of each of its files, written when all of them are on the disk.

It is read as if a stranger had written it: it names files inside its own folder only, plain ones, and no manifest
makes reading raise or hang.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aios.errors import shown
from aios.file_names import CONFIG_FILE
from aios.files import fsync

MANIFEST_FILE = "manifest.json"
STATE_FILE = "state.pt"
_MAX_BYTES = 1 << 24  # of a manifest: enough for a hundred thousand files
_MAX_NAME = 1024
_HEX_DIGITS = frozenset("0123456789abcdef")

Stamp = tuple[tuple[str, int, int, int], ...]
"""Name, inode, size and time of the last change (ns) of each file: as long as it is the same, so are the files."""


class Entry(NamedTuple):
    """What a manifest says of a file."""

    size: int
    """Bytes."""
    sha256: str
    """Of the contents, in lower-case hex."""


def write_manifest(folder: Path, format_version: int) -> int:
    """Fsync every file in `folder`, then write the manifest that vouches for them; returns the bytes of the files."""
    entries: dict[str, dict[str, int | str]] = {}
    total = 0
    for file in _files(folder):
        fsync(file)
        size = file.stat().st_size
        total += size
        entries[file.relative_to(folder).as_posix()] = {"size": size, "sha256": _sha256(file)}
    manifest = folder / MANIFEST_FILE
    manifest.write_text(json.dumps({"format_version": format_version, "files": entries}, indent=1), encoding="utf-8")
    fsync(manifest)
    fsync(folder)
    return total


def find_file_damage(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint folder, or None when all are as its manifest says.

    Sizes are compared before anything is hashed.
    """
    try:
        return _find_damage(folder)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


def stamp(folder: Path) -> Stamp | None:
    """What changes when the manifest or a file it lists does; None where there is no manifest that can be read."""
    try:
        names = [MANIFEST_FILE, *_read(folder)]
        found = [(name, _inside(folder, name)) for name in names]
    except (OSError, ValueError, RecursionError):
        return None
    return tuple((name, f.st_ino, f.st_size, f.st_mtime_ns) for name, f in found if f is not None)


def _find_damage(folder: Path) -> str | None:
    if folder.is_symlink() or not folder.is_dir():
        return "it is no folder"
    try:
        files = _read(folder)
    except FileNotFoundError:
        return "it has no manifest"
    except (ValueError, RecursionError):
        return "its manifest is damaged"
    for required in (STATE_FILE, CONFIG_FILE):
        if required not in files:
            return f"its manifest lists no {required}"
    if not any(name.startswith("model") and name.endswith(".safetensors") for name in files):
        return "its manifest lists no weights"
    unnamed = (path.relative_to(folder).as_posix() for path in _files(folder) if not path.name.startswith("."))
    for name in unnamed:
        if name not in files and name != MANIFEST_FILE:
            return f"{shown(name)} is not in its manifest"
    for name, entry in files.items():
        found = _inside(folder, name)
        if found is None:
            return f"{shown(name)} is missing"
        if found.st_size != entry.size:
            return f"{shown(name)} has {found.st_size} bytes instead of {entry.size}"
    wrong = (name for name, entry in files.items() if _sha256(folder / name) != entry.sha256)
    return next((f"the contents of {shown(name)} do not match their checksum" for name in wrong), None)


def _read(folder: Path) -> dict[str, Entry]:
    """The manifest's entries by name; ValueError or RecursionError where it is not one, OSError where there is none."""
    found = _inside(folder, MANIFEST_FILE)
    if found is None:
        if (folder / MANIFEST_FILE).exists():
            raise ValueError("the manifest is no plain file")
        raise FileNotFoundError
    if found.st_size > _MAX_BYTES:
        raise ValueError("the manifest is too long")
    manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict):
        raise ValueError("the manifest lists no files")
    return {name: _entry(said) for name, said in files.items()}


def _entry(said: object) -> Entry:
    size, digest = (said.get("size"), said.get("sha256")) if isinstance(said, dict) else (None, None)
    if type(size) is not int or size < 0 or size >= 2**63:
        raise ValueError("a size is no whole number")
    if not isinstance(digest, str) or len(digest) != 64 or not _HEX_DIGITS.issuperset(digest):
        raise ValueError("a hash is none")
    return Entry(size, digest)


def _inside(folder: Path, name: str) -> os.stat_result | None:
    """The plain file `name` below `folder`; None where there is none, or the name or a link leads elsewhere."""
    root = os.path.realpath(folder)
    place = f"{root}/{name}"
    if len(name) > _MAX_NAME:
        return None
    try:
        found = os.lstat(place) if os.path.realpath(place) == place else None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name that no file can have
        return None
    return found if found is not None and stat.S_ISREG(found.st_mode) else None


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
