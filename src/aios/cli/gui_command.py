"""The command `aios gui`: says what is missing before anything heavy is imported."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from aios.cli.flags import DebugOption
from aios.errors import UserError
from aios.gui.preferences import Theme
from aios.places import expanded


def gui(
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="target", parser=expanded, help="A brain's folder or a training log to show.", show_default=False
        ),
    ] = None,
    bundle_dir: Annotated[
        str | None, typer.Option("--bundle-dir", help="Folder that holds the brains.", show_default=False)
    ] = None,
    theme: Annotated[Theme | None, typer.Option("--theme", help="Default: as it was left.", show_default=False)] = None,
    scale: Annotated[
        float | None,
        typer.Option("--scale", help="Size of everything; 2 is twice. Default: the display's.", show_default=False),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Open the window: set up a training, start it, see what the learning rate does and why."""
    check_display()
    if target is not None and not target.exists():
        raise UserError(f"There is no {target}; name a brain's folder or a training log.")
    if scale is not None and not 0.5 <= scale <= 4:
        raise UserError(f"--scale is {scale:g}, but it must be between 0.5 and 4.")
    from aios.gui.window import open_window

    open_window(target=target, bundle_dir=bundle_dir, theme=theme, scale=scale)


def check_display() -> None:
    """Refuse where no window can be shown.

    Raises:
        UserError: when Tk is not installed, or there is no display; says how to get it.
    """
    if importlib.util.find_spec("_tkinter") is None:
        raise UserError(
            "The window needs Tk, which this Python lacks; install the package python3-tk (Debian, Ubuntu), "
            "python3-tkinter (Fedora), tk (Arch) or python-tk (Homebrew)."
        )
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        raise UserError(
            "There is no display to show a window on (DISPLAY is not set); run `aios gui` on a desktop, over "
            "`ssh -X`, or under `xvfb-run`, or follow a run in the terminal with `aios hrm-hf watch LOG`."
        )
    try:
        import tkinter

        tkinter.Tk().destroy()
    except ImportError as error:
        raise UserError(f"Tk cannot be loaded ({error}); install the package python3-tk anew.") from error
    except tkinter.TclError as error:
        raise UserError(
            f"The display {os.environ.get('DISPLAY', '')} cannot be opened ({error}); start an X server there, or set "
            "DISPLAY to one that runs."
        ) from error
