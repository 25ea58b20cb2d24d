"""Where the window opens: inside the part of the screen that is free, whatever the desktop keeps for itself."""

from __future__ import annotations

import re
import tkinter as tk
from typing import NamedTuple

_RESERVE = 110  # at 96 dpi: a title bar, and the panels of a desktop; together no more than that
_MAP_MS = 250  # until a window manager has put its frame on


class Opening(NamedTuple):
    """How the window opens."""

    geometry: str
    """As Tk takes it: WIDTHxHEIGHT+LEFT+TOP in pixels, menu bar and frame not counted."""
    maximised: bool
    """Whether the window manager is asked to fit it into what is free."""


def opening(screen: tuple[int, int], wanted: tuple[int, int], menu: int, reserve: int) -> Opening:
    """For a window of `wanted` pixels with a menu bar of `menu`; `reserve`: what desktops take of the height.

    Where the screen is hardly larger the window is maximised, since only the window manager knows what is free.
    """
    width, height = min(wanted[0], screen[0]), min(wanted[1], screen[1]) - menu
    if screen[0] < wanted[0] + reserve or screen[1] < wanted[1] + reserve:
        return Opening(f"{width}x{height}+0+0", True)
    left, top = (screen[0] - width) // 2, (screen[1] - height - reserve) // 2
    return Opening(f"{width}x{height}+{left}+{top}", False)


def fits(geometry: str, screen: tuple[int, int], frame: int) -> bool:
    """Whether a window of this `geometry` is inside the screen; `frame`: pixels of height that Tk does not count."""
    place = re.fullmatch(r"(\d+)x(\d+)\+(\d+)\+(\d+)", geometry)
    if place is None:
        return False
    wide, high, left, top = map(int, place.groups())
    return left + wide <= screen[0] and top + high + frame <= screen[1]


def place(root: tk.Tk, remembered: str, maximised: bool, wanted: tuple[int, int], menu: int) -> None:
    """Give the window size and place: those remembered where they fit, else its own; lengths in pixels.

    `maximised`: how it was when it was closed.
    """
    screen = (root.winfo_screenwidth(), root.winfo_screenheight())
    reserve = round(_RESERVE * root.winfo_fpixels("1i") / 96)
    own = opening(screen, wanted, menu, reserve)
    if fits(remembered, screen, menu):
        own = Opening(remembered, maximised)
    root.geometry(own.geometry)
    if own.maximised:
        _maximise(root)
    root.after(_MAP_MS, lambda: _pull_in(root, screen))


def is_maximised(root: tk.Tk) -> bool:
    """Whether the window manager holds it maximised."""
    if root.tk.call("tk", "windowingsystem") == "x11":
        return bool(root.attributes("-zoomed"))
    return bool(root.state() == "zoomed")


def _maximise(root: tk.Tk) -> None:
    if root.tk.call("tk", "windowingsystem") == "x11":
        root.attributes("-zoomed", True)
    else:
        root.state("zoomed")


def _pull_in(root: tk.Tk, screen: tuple[int, int]) -> None:
    """Cut what hangs off the screen's lower or right end now that the frame is on."""
    if not root.winfo_viewable():
        root.after(_MAP_MS, lambda: _pull_in(root, screen))
        return
    below = root.winfo_rooty() + root.winfo_height() - screen[1]
    aside = root.winfo_rootx() + root.winfo_width() - screen[0]
    if below > 0 or aside > 0:
        root.geometry(f"{root.winfo_width() - max(0, aside)}x{root.winfo_height() - max(0, below)}")
