"""The columns of the list of brains: what they say and how they sort."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from aios.brains.brain_list import Brain, State


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
