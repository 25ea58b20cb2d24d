"""`aios hrm-hf lr-find`: the search of profile `auto` on its own, taken back, with its curve as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl

from aios.auto_lr.search import Found
from aios.cli.hrm_hf.lr_plan import look
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.run_setup import build_run, prepare
from aios.terminal.console import RunConsole

mpl.use("Agg")  # a picture file needs no display

import matplotlib.pyplot as plt


def lr_find(origin: Origin, picture: Path) -> Found:
    """Search as a run from `origin` would, draw the curve into `picture`, print the suggestion; trains nothing.

    Raises:
        UserError: for input that cannot be trained on.
    """
    console = RunConsole(origin.config.steps)
    setup = prepare(origin, console.tokenizing)
    # Always as a fresh search: a resumed run would not search again.
    run = build_run(replace(origin, state=None), setup, _ignore)
    found = look(run)
    draw_curve(found, picture)
    if found.lr is None:
        console.say(f"No suggestion: {found.reason}.")
    else:
        console.say(f"Suggested learning rate: {found.lr:.3g} ({found.reason}).")
        console.say(f"Finding it costs a run of {origin.config.steps} steps {found.steps} that do not train.")
    console.say(f"The curve is in {picture}.")
    return found


def _ignore(record: Mapping[str, Any]) -> None:
    """A search on its own keeps no log."""


def draw_curve(found: Found, picture: Path) -> None:
    """The loss against the LR; the rate found as a line."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    points = [(lr, loss) for lr, loss in zip(found.rates, found.losses, strict=True) if math.isfinite(loss)]
    axes.plot([lr for lr, _ in points], [loss for _, loss in points], "o-" if found.how == "race" else "-", ms=4)
    if found.lr is not None:
        axes.axvline(found.lr, color="tab:green", label=f"rate found {found.lr:.3g}")
        axes.legend(frameon=False)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss, smoothed" if found.how == "climb" else "loss after a short run")
    axes.set_title(found.reason, fontsize=10, wrap=True)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=110)
    plt.close(figure)
