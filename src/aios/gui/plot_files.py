"""The picture on show as a file, or its numbers as a table."""

from __future__ import annotations

import csv
import tkinter as tk
from collections.abc import Callable, Iterable
from pathlib import Path
from tkinter import filedialog

from matplotlib.figure import Figure

from aios.errors import UserError
from aios.run_view.drawing import cannot_write, save_picture

_TYPES = [("Picture", "*.png"), ("Drawing, sharp at any size", "*.svg"), ("Numbers, a table", "*.csv")]
_ENDINGS = (".png", ".svg", ".csv")
_DPI = 192


def ask_and_save(
    parent: tk.Misc, name: str, draw: Callable[[], Figure], rows: Callable[[], Iterable[list[str]]]
) -> None:
    """Ask for a file and write what is shown into it; the ending says what.

    Raises:
        UserError: when the ending is none of these, or the file cannot be written.
    """
    chosen = filedialog.asksaveasfilename(
        parent=parent, title="Save the picture or its numbers", filetypes=_TYPES, defaultextension=".png",
        initialfile=f"{name}.png",
    )  # fmt: skip
    if chosen:
        save(Path(chosen), draw, rows)


def save(path: Path, draw: Callable[[], Figure], rows: Callable[[], Iterable[list[str]]]) -> None:
    """Write the picture (.png, .svg) or its numbers (.csv).

    Raises:
        UserError: as `ask_and_save`.
    """
    kind = path.suffix.lower()
    if kind not in _ENDINGS:
        raise UserError(f"“{path.name}” ends in none of {', '.join(_ENDINGS)}; choose a name with one of them.")
    if kind != ".csv":
        save_picture(draw(), path, _DPI)
        return
    try:
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows(rows())
    except OSError as error:
        raise cannot_write(path, error) from error
