"""Numbers of bytes and of seconds, in words for people."""

from __future__ import annotations


def show_bytes(count: int) -> str:
    """1234567 -> `1.23 MB`; powers of 1000."""
    rounded = float(f"{count:.3g}")  # chooses the unit: 999999 bytes are 1 MB, not 1000 kB
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if rounded >= size:
            return f"{count / size:{'.3g' if rounded < 100 * size else ',.0f'}} {unit}"
    return f"{count} bytes"


def show_duration(seconds: float) -> str:
    """`12 s`, `3 min 20 s`, `1 h 04 min`; no zero behind a whole number of minutes or hours."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        larger, smaller = f"{whole // 60} min", f"{whole % 60:02d} s"
    else:
        larger, smaller = f"{whole // 3600} h", f"{whole % 3600 // 60:02d} min"
    return larger if smaller.startswith("00") else f"{larger} {smaller}"
