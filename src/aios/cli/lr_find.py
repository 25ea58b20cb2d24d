"""`aios hrm-hf lr-find`: the search of profile `auto` on its own, with its curve as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl

from aios.auto_lr.search import RangeTestResult
from aios.cli.hrm_hf.lr_plan import search
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.run_setup import build_run, prepare
from aios.terminal.console import RunConsole

mpl.use("Agg")  # a picture file needs no display

import matplotlib.pyplot as plt


def lr_find(origin: Origin, picture: Path) -> RangeTestResult:
    """Search as a run from `origin` would, draw the curve into `picture`, print the suggestion; trains nothing.

    Raises:
        UserError: for input that cannot be trained on.
    """
    console = RunConsole(origin.config.steps)
    setup = prepare(origin, console.tokenizing)
    # Always as a fresh search: a resumed run would not search again.
    run = build_run(replace(origin, state=None), setup, _ignore)
    found = search(run)
    draw_curve(found, picture)
    if found.suggestion is None:
        console.say(f"No suggestion: {found.reason}.")
    else:
        console.say(f"Suggested learning rate: {found.suggestion:.3g} ({found.reason}).")
        console.say(f"A run of {origin.config.steps} steps takes {found.steps} more to begin with it.")
    console.say(f"The curve is in {picture}.")
    return found


def _ignore(record: Mapping[str, Any]) -> None:
    """A search on its own keeps no log."""


def draw_curve(found: RangeTestResult, picture: Path) -> None:
    """What training changed in the loss of each batch, against the LR; the suggestion as a line."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    points = [p for p in found.points if math.isfinite(p.change)]
    axes.plot([p.lr for p in points], [p.change for p in points], "o-", ms=4)
    if points:
        best = min(p.change for p in points)
        axes.set_ylim(1.15 * best - 0.02, max(0.05, -0.5 * best))
    if found.suggestion is not None:
        axes.axvline(found.suggestion, color="tab:green", label=f"suggestion {found.suggestion:.3g}")
        axes.legend(frameon=False)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss against untouched weights, nats")
    axes.set_title(found.reason, fontsize=10)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=110)
    plt.close(figure)
