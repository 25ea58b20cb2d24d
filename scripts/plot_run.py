"""Draw a training log: loss and learning rate over the steps, with a marker at each adjustment.

python scripts/plot_run.py artifacts/brains/actv1/default/metrics.jsonl -o run.png
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

Record = dict[str, Any]
MARKERS = {"increase": ("^", "tab:green"), "decrease": ("v", "tab:orange"), "spike_decrease": ("X", "tab:red")}
SMOOTHING = 10
"""Steps on either side that the running mean takes in."""


def read_log(path: Path) -> list[Record]:
    """All records; of a step that a resumed run repeated, readers below see the newest last."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def of_event(records: list[Record], event: str) -> list[Record]:
    """The newest record of each step, in step order."""
    newest = {r["step"]: r for r in records if r["event"] == event}
    return [newest[step] for step in sorted(newest)]


def draw_loss(axes: Axes, records: list[Record]) -> None:
    """Training loss, raw and smoothed, the evaluations, and the unigram entropy as the line to beat."""
    steps = [r for r in of_event(records, "train") if r["ce"] is not None]
    axes.plot([r["step"] for r in steps], [r["ce"] for r in steps], color="tab:blue", alpha=0.25, linewidth=0.8)
    losses = [r["ce"] for r in steps]
    smooth = [statistics.fmean(losses[max(0, i - SMOOTHING) : i + SMOOTHING + 1]) for i in range(len(losses))]
    axes.plot([r["step"] for r in steps], smooth, color="tab:blue", label="training loss (running mean)")
    evals = of_event(records, "eval")
    axes.plot(
        [r["step"] for r in evals], [r["loss"] for r in evals], "o-", color="black", ms=4, label="evaluation loss"
    )
    start = next(r for r in records if r["event"] == "run_start")
    axes.axhline(start["unigram_entropy"], color="gray", linestyle=":", label="unigram entropy of the text")
    axes.set_ylabel("nats per token")
    axes.legend(loc="upper right", frameon=False)


def draw_learning_rate(axes: Axes, records: list[Record]) -> None:
    """Learning rate on a log axis; one marker per adjustment, by decision."""
    steps = of_event(records, "train")
    rates = [r["lr"][0] if isinstance(r["lr"], list) else r["lr"] for r in steps]
    axes.plot([r["step"] for r in steps], rates, color="tab:purple")
    for decision, (marker, color) in MARKERS.items():
        made = [r for r in of_event(records, "adaptive_lr_adjustment") if r["decision"] == decision]
        label = f"{decision} ({len(made)})"
        axes.plot([r["step"] for r in made], [r["new_lr"] for r in made], marker, color=color, ms=7, label=label)
    axes.set_yscale("log")
    axes.set_ylabel("learning rate")
    axes.set_xlabel("optimizer step")
    axes.legend(loc="lower right", frameon=False)


def main() -> None:
    """Read the log, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("run.png"))
    args = parser.parse_args()
    records = read_log(args.log)
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(9, 6.5), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    draw_loss(upper, records)
    draw_learning_rate(lower, records)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    figure.savefig(args.output, dpi=110)


if __name__ == "__main__":
    main()
