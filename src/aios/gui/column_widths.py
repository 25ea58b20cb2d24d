"""How wide the columns of the list of runs are, and names that are too long for theirs. No Tk here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

ELLIPSIS = "…"
NAME = "name"
"""The column that gives way where there is no room for all."""

Measure = Callable[[str], int]
"""How wide a text is, in pixels."""


def middle_ellipsis(text: str, room: int, measure: Measure) -> str:
    """`text`, or as much of its beginning and of its end as `room` pixels hold, with an ellipsis between."""
    if measure(text) <= room:
        return text
    fewest, most = 0, len(text) - 1  # letters kept: so many fit for sure, so many may
    while fewest < most:
        kept = (fewest + most + 1) // 2
        if measure(_cut(text, kept)) <= room:
            fewest = kept
        else:
            most = kept - 1
    return _cut(text, fewest)


def _cut(text: str, kept: int) -> str:
    """`kept` letters of a text, of an odd number one more from its beginning."""
    tail = kept // 2
    return text[: kept - tail] + ELLIPSIS + (text[-tail:] if tail else "")


def widths(needed: Mapping[str, int], room: int, least_name: int) -> dict[str, int]:
    """How wide each column is, in pixels: as wide as it needs, the name's with what is left of `room`.

    The name's is never narrower than `least_name`, unless it needs less: all may then be wider together than `room`,
    and the list is scrolled.
    """
    others = sum(width for name, width in needed.items() if name != NAME)
    return {**needed, NAME: max(min(needed[NAME], least_name), room - others)}
