"""About how many tokens a text will be, from its first pages: without torch, and without reading all of it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from aios.data.text_source import TextSource, iter_pieces
from aios.data.tokenizer import bundled_tokenizer_dir

_PAGES = 64 * 1024
"""Characters from which it may stop."""


@lru_cache(maxsize=16)
def estimated_tokens(source: TextSource, tokenizer: str | None) -> tuple[int, int] | None:
    """(tokens of the source, tokens that the tokenizer knows); `tokenizer` is a folder, None the bundled one.

    None for a tokenizer that is no folder with a `tokenizer.json`. Asked again for the same files it is at hand.

    Raises:
        UserError: as `iter_pieces`.
    """
    file = (Path(tokenizer) if tokenizer is not None else bundled_tokenizer_dir()) / "tokenizer.json"
    if not file.is_file():
        return None
    from tokenizers import Tokenizer

    known = Tokenizer.from_file(str(file))
    characters = tokens = done = 0
    for piece in iter_pieces(source):
        if characters >= _PAGES and piece.bytes_done > done:  # bytes are read ahead, in blocks
            break
        tokens += len(known.encode(piece.text, add_special_tokens=False).ids) + piece.ends_document
        characters, done = characters + len(piece.text), piece.bytes_done
    return round(tokens * source.total_bytes / max(done, 1)), known.get_vocab_size()
