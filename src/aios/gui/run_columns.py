"""The columns of the list of runs: what they say, how they sort, how wide they are. No Tk here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from aios.gui.brains import Brain, State

ELLIPSIS = "…"
NAME = "name"
"""The column that gives way where there is no room for all."""

Measure = Callable[[str], int]
"""How wide a text is, in pixels."""


class Column(NamedTuple):
    """One column."""

    name: str
    """Its name in programs."""
    heading: str
    """What stands over it."""
    tip: str
    """What it says, for people."""
    text: Callable[[Brain], str]
    """What stands in it."""
    key: Callable[[Brain], Any]
    """What it is sorted by; None: not known, and therefore last."""
    is_number: bool = True
    """Whether it is aligned at its right."""


def show_loss(loss: float | None) -> str:
    """A loss as the list shows it."""
    return f"{loss:.3f}" if loss is not None else "—"


_STATES = {state: at for at, state in enumerate(State)}

COLUMNS = (
    Column("name", "Brain", "the name", lambda b: b.name, lambda b: natural(b.name), False),
    Column("state", "State", "what its training is doing", lambda b: b.state.value, lambda b: _STATES[b.state], False),
    Column("steps", "Steps", "steps done, of how many", lambda b: b.progress, lambda b: b.step),
    Column("loss", "Loss", "the newest training loss", lambda b: show_loss(b.loss), lambda b: b.loss),
    Column("eval", "Eval", "the newest evaluation loss", lambda b: show_loss(b.eval_loss), lambda b: b.eval_loss),
    Column("best", "Best", "the lowest evaluation loss", lambda b: show_loss(b.best_loss), lambda b: b.best_loss),
)


class Order(NamedTuple):
    """By what the list is sorted."""

    column: str = ""
    """Name of a column; empty: the brain written to last comes first."""
    descending: bool = False
    """From the largest on."""

    def pressed(self, column: str) -> Order:
        """After a press on a heading: up, down, and back to how it was at first."""
        if column != self.column:
            return Order(column)
        return Order() if self.descending else Order(column, True)

    def moved(self, by: int) -> Order:
        """By the column so many further to the right, round the end."""
        names = ["", *(column.name for column in COLUMNS)]
        at = names.index(self.column) if self.column in names else 0
        return Order(names[(at + by) % len(names)])

    def heading(self, column: Column) -> str:
        """What stands over a column: with an arrow, where it is the one."""
        return column.heading + (f" {'▾' if self.descending else '▴'}" if column.name == self.column else "")


def ordered(brains: Sequence[Brain], order: Order) -> list[Brain]:
    """The brains, which come with the one written to last first, in an order; what is not known is last either way."""
    column = next((column for column in COLUMNS if column.name == order.column), None)
    if column is None:
        return list(brains)
    known = [brain for brain in brains if column.key(brain) is not None]
    unknown = [brain for brain in brains if column.key(brain) is None]
    return sorted(known, key=column.key, reverse=order.descending) + unknown


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts `run-2` before `run-10`, and capitals with small letters."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return [(int(part[:18]), "") if part[0] in "0123456789" else (-1, part) for part in parts]


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
