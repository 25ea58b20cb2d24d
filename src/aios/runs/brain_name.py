"""What a brain may be called: its name is that of its folder, and must not lead anywhere else."""

from __future__ import annotations

import unicodedata

MAX_BYTES = 255
"""Longest name of a file or folder on common file systems, in bytes of UTF-8."""

_UNPRINTABLE = ("Cc", "Zl", "Zp")


def why_not_a_name(name: str) -> str | None:
    """Why no brain can be called `name`, as what is to be done instead; None when one can."""
    if not name.strip():
        return "write one"
    if name in (".", ".."):
        return "this one means a folder that is there already; choose another"
    if "/" in name or "\\" in name:
        return "put the folder in --bundle-dir"
    if name != name.strip():
        return "leave out the spaces at its ends"
    kinds = {unicodedata.category(character) for character in name}
    if "Cs" in kinds:
        return "it holds bytes that are no UTF-8; choose another"
    if kinds.intersection(_UNPRINTABLE):
        return "leave out its line breaks and control characters"
    size = len(name.encode())
    if size > MAX_BYTES:
        return f"it has {size} bytes, and a folder's name has at most {MAX_BYTES}; shorten it"
    return None


def numbered(name: str, number: int) -> str:
    """`name-number`, with the end of `name` cut off where both would be too long."""
    end = f"-{number}"
    kept = name.encode()[: MAX_BYTES - len(end)].decode(errors="ignore")
    return kept.rstrip() + end
