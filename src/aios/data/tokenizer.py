"""Tokenizers: the bundled one, a folder, or a name in the local cache of transformers. Never downloads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from aios.core.foreign_json import refuse_code
from aios.errors import UserError, one_line
from aios.places import expanded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DATA_DIR = Path(__file__).resolve().parent
_REASON_CHARS = 200


def bundled_tokenizer_dir() -> Path:
    """Folder of the bundled byte-level BPE tokenizer (2048 tokens), loadable by `AutoTokenizer`."""
    return _DATA_DIR / "tokenizer"


def bundled_corpus_path() -> Path:
    """The bundled text: about 1 MB of the King James Version; origin and licence lie beside it."""
    return _DATA_DIR / "corpus" / "kjv.txt"


def load_tokenizer(name_or_path: str | None = None) -> PreTrainedTokenizerBase:
    """Load the bundled tokenizer (None), one in a folder, or a named one out of the local transformers cache.

    Never downloads and never runs code that comes with a tokenizer. Raises UserError when it cannot be read.
    """
    name = str(bundled_tokenizer_dir()) if name_or_path is None else name_or_path
    folder = expanded(name)
    if not name.strip():
        raise UserError("The tokenizer name (--model) is empty; give a folder or a name, or leave it out.")
    if folder.is_file():
        raise UserError(f"The tokenizer {name} is a file; give the folder that holds its tokenizer.json.")
    asked = folder if folder.is_dir() else _cached_folder(name)
    if asked is not None:
        refuse_code(asked)
    return _load_local(str(folder) if folder.is_dir() else name, is_folder=folder.is_dir())


def _cached_folder(name: str) -> Path | None:
    """Where the local cache of transformers keeps a named tokenizer, None when it does not."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, "tokenizer_config.json")
    except HFValidationError:
        return None  # nothing of such a name can be in the cache
    return Path(config).parent if isinstance(config, str) else None


def _load_local(name: str, is_folder: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    remedy = (
        "check that the folder holds an undamaged tokenizer.json and tokenizer_config.json"
        if is_folder
        else f"nothing is downloaded here: give a folder or fetch it once with `hf download {name}`"
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # broad, because the Rust tokenizers raise plain Exception; it always re-raises
        reason = one_line(error, _REASON_CHARS).rstrip(".") or type(error).__name__
        raise UserError(f"The tokenizer {name} cannot be read ({reason}); {remedy}.") from error
    if len(tokenizer) == 0:
        raise UserError(f"The tokenizer {name} has an empty vocabulary; {remedy}.")
    loaded: PreTrainedTokenizerBase = tokenizer
    return loaded


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hex sha256 of what decides which ids a text becomes: the serialised backend, or else the vocabulary.

    Truncation and padding are left out: `tokenizer(...)` sets them on the fly and the token cache uses
    neither.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content: dict[str, object] = {"class": type(tokenizer).__qualname__, "vocab": tokenizer.get_vocab()}
    else:
        content = json.loads(backend.to_str())
        content["truncation"] = content["padding"] = None
    content["end_of_document"] = end_of_document_id(tokenizer)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()


def end_of_document_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the token after each document: eos, or sep without eos (BERT); UserError without either."""
    for token_id in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if isinstance(token_id, int):
            return token_id
    raise UserError(
        f"The tokenizer {tokenizer.name_or_path} has no token that ends a text; "
        "set its eos_token and save it again, or choose another."
    )
