"""How much room files take, for people."""

from __future__ import annotations


def show_size(count: int) -> str:
    """1234567 -> `1.2 MB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
