"""JSON that came with somebody else's model, tokenizer or adapter: read without trust, refused where it names code.

transformers and peft would import modules that such files name. Every loader of this project looks here first, so
that a folder which asks for that is refused by name; imports no torch, so that it is refused at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aios.errors import UserError, shown
from aios.file_names import CONFIG_FILE
from aios.files import NotPlainError, read_at_most

CODE_KEYS = ("auto_map", "auto_mapping", "custom_generate", "custom_pipelines", "trust_remote_code")
"""Keys by which transformers and peft find code that comes with a folder, or allow it to run."""
_MAY_ASK = (
    CONFIG_FILE,
    "generation_config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "adapter_config.json",
    "adapter/adapter_config.json",
)
_MOST_BYTES = 1 << 24
"""Far more than any of them needs."""


def refuse_code(folder: Path) -> None:
    """Check that nothing in `folder` asks for code of its own.

    Raises:
        UserError: naming the file and the key that does, or a file that cannot be read.
    """
    for name in _MAY_ASK:
        if os.path.lexists(folder / name):
            read_foreign_json(folder / name)


def read_foreign_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, which asks for no code.

    Raises:
        UserError: when it does, or when this is no file that holds one JSON object.
    """
    found = _parse(path, _read(path))
    if not isinstance(found, dict):
        raise UserError(f"{path} holds {shown(found)} where settings by name belong; choose another folder.")
    key = _code_key(found)
    if key is not None:
        raise UserError(
            f"{path} asks for code of its own to be run ({key}), and code that comes with a model, a tokenizer or an "
            "adapter is never run here; choose a folder that needs none."
        )
    return found


def _read(path: Path) -> str:
    try:
        content = read_at_most(path, _MOST_BYTES)
    except (NotPlainError, FileNotFoundError) as error:
        raise UserError(f"{path} is no file that can be read; choose another folder.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); choose another folder.") from error
    if len(content) > _MOST_BYTES:
        raise UserError(f"{path} is larger than {_MOST_BYTES >> 20} MiB; choose another folder.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); choose another folder.") from error


def _parse(path: Path, text: str) -> Any:
    try:
        return parse_json(text)
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply to be read; choose another folder.") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); choose another folder.") from error


def parse_json(text: str) -> Any:
    """JSON in which no object has a key twice.

    Raises:
        ValueError: for a key that is there twice, and what `json.loads` raises.
    """
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    refuse_duplicates(key for key, _ in pairs)
    return dict(pairs)


def refuse_duplicates(keys: Iterable[str]) -> None:
    """Raise ValueError, naming it, for a key that is there twice."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"the key {shown(key)} is there twice")
        seen.add(key)


def _code_key(value: Any) -> str | None:
    """The first key anywhere in `value` that asks for code; one set to nothing (null, false, {}) asks for none."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            asking = next((key for key in CODE_KEYS if part.get(key)), None)
            if asking is not None:
                return asking
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return None
