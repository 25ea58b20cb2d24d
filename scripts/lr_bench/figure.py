"""One figure of the benchmark: final loss against the learning rate, given or (for `auto`) found."""

from __future__ import annotations

import math
from itertools import zip_longest
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from lr_bench.jobs import REFINED, Settings, Store
from lr_bench.regret import mean_over_seeds, tuned_lr
from lr_bench.workloads import WORKLOADS

COLUMNS = 3
"""Panels side by side: the picture is shown some 800 pixels wide."""
PANEL = (3.4, 2.5)
"""Inches."""
VISIBLE = 0.75
"""This part of all runs is in the picture; the worst leave it at its top."""
WIDE = 5.0
"""From this ratio of the highest loss in the picture to the lowest on, a label at every tick would lie on the next."""


def draw(settings: Settings, store: Store, path: Path) -> None:
    """Write a PNG with a panel per workload, a line per method."""
    names = settings.workloads
    rows = -(-len(names) // COLUMNS)
    figure, axes = plt.subplots(
        rows, COLUMNS, figsize=(PANEL[0] * COLUMNS, PANEL[1] * rows + 0.6), squeeze=False, layout="constrained"
    )
    for axis, name in zip_longest(axes.flat, names):
        if name is None:
            axis.set_visible(False)
            continue
        _panel(axis, settings, name, store)
    figure.supylabel("final evaluation loss")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axis: Axes, settings: Settings, name: str, store: Store) -> None:
    losses = store.losses(settings, name)
    for method in settings.methods:
        if method == "auto":  # where it starts is not where it trains
            runs = store.from_start(settings, name, method)
            found = [(run["found_lr"], run["final"]) for run in runs if run["found_lr"] and run["final"]]
            if found:
                axis.plot(*zip(*found, strict=True), "k*", markersize=9, zorder=3, label="auto, at the rate it found")
            continue
        style = {"color": "0.45", "linewidth": 2.5, "zorder": 3} if method == "rules" else {"linewidth": 1}
        if method == "prodigy":  # its knob is no learning rate
            best = tuned_lr(losses, method, settings.seeds[0])
            level = None if best is None else mean_over_seeds(losses, method, best)
            if level is not None and math.isfinite(level):
                axis.axhline(level, linestyle="--", label="prodigy, tuned", color="C8", **style)
            continue
        rates = sorted({lr for other, lr, _ in losses if other == method})
        means = [mean_over_seeds(losses, method, lr) for lr in rates]
        points = [(lr, mean) for lr, mean in zip(rates, means, strict=True) if mean is not None]
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=method, **style)
    axis.set(xscale="log", yscale="log", xlabel="learning rate")
    axis.set_title(f"{name}, {settings.steps(name)} steps", fontsize=10)
    finite = sorted(loss for loss in losses.values() if math.isfinite(loss))
    if finite:
        top = finite[int(VISIBLE * (len(finite) - 1))]
        axis.set_ylim(finite[0] / 1.02, 1.02 * top)
        if top > WIDE * finite[0]:
            axis.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    axis.tick_params(axis="y", which="both", labelsize=8)
    axis.yaxis.set_major_formatter("{x:.4g}")
    axis.yaxis.set_minor_formatter("{x:.4g}")
    axis.grid(alpha=0.3)
    axis.set_xlim(WORKLOADS[name].grid[0] / REFINED, WORKLOADS[name].grid[-1] * REFINED)
