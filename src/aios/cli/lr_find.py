"""`aios hrm-hf lr-find`: the search of profile `auto` on its own, taken back, with its curve as a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aios.auto_lr.events import ignore
from aios.auto_lr.search import Found
from aios.cli.hrm_hf.lr_plan import look
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.run_setup import build_run, prepare
from aios.run_view.drawing import SEARCH_SIZE, blank_picture, save_picture
from aios.run_view.search_picture import SearchPicture
from aios.run_view.searches import SearchCurve
from aios.terminal.console import RunConsole


def lr_find(origin: Origin, picture: Path) -> Found:
    """Search as a run from `origin` would, print the suggestion, draw the curve into `picture`; trains nothing.

    Where no rate was tried, as in a run too short for a search, there is no curve, and `picture` stays what it was.

    Raises:
        UserError: for input that cannot be trained on, or a picture that cannot be written.
    """
    console = RunConsole(origin.config.steps)
    setup = prepare(origin, console.tokenizing)
    # Always as a fresh search: a resumed run would not search again.
    run = build_run(replace(origin, state=None), setup, ignore)
    found = look(run)
    if found.lr is None:
        console.say(f"No suggestion: {found.reason}.")
    else:
        console.say(f"Suggested learning rate: {found.lr:.3g} ({found.reason}).")
        console.say(f"Finding it costs a run of {origin.config.steps} steps {found.steps} that do not train.")
    if found.rates:
        draw_curve(found, picture)
        console.say(f"The curve is in {picture}.")
    return found


def draw_curve(found: Found, picture: Path) -> None:
    """The loss against the rate, as the window shows it, with the rates that the search names."""
    figure = blank_picture(SEARCH_SIZE)
    SearchPicture(figure, SearchCurve.of(found.event(found.steps)))
    save_picture(figure, picture)
