"""What `watch` shows of a run: pure functions of its history."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import ConsoleOptions, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aios.quantities import show_duration
from aios.run_view.events import Record, loss_of, number
from aios.run_view.history import RunHistory, progress_text
from aios.run_view.sentences import sentence
from aios.run_view.series import Floats
from aios.terminal.tables import timeline_table

NEWEST = 5
"""Decisions shown."""
SILENT_STEPS = 20
"""A run that says nothing for as long as so many of its steps take, and a minute, may have been killed."""
SILENT_SECONDS = 60.0
_BLOCKS, _ASCII = "▁▂▃▄▅▆▇█", "_.-=+*#@"
_NO_NUMBER = "x"
_STATES = {
    "waiting": "waiting for the first step",
    "running": "running",
    "stopped": "stopped",
    "diverged": "stopped: training did not recover",
    "finished": "finished",
}

Newest = Mapping[int | None, Mapping[str, Any]]


def view(
    history: RunHistory, newest: Newest, now: float, options: ConsoleOptions, trouble: str | None = None
) -> RenderableType:
    """The whole view for a terminal of `options`; `now` in unix seconds, `newest` the last step of each worker."""
    parts: list[RenderableType] = [_heading(history, now), _progress(history)]
    if newest:
        parts.append(_curves(history, newest, options))
        parts.append(_workers(history, newest))
    if decisions := history.decisions:
        newest_first = decisions[: -NEWEST - 1 : -1]
        several = any(decision.rank is not None for decision in newest_first)
        parts += [Text("Newest decisions", style="bold"), timeline_table(newest_first, several, numbers=False)]
    if (word := trouble or _silence(history, newest, now)) is not None:
        parts.append(Text(word, style="yellow"))
    elif history.other_events:
        event = history.other_events[-1]
        parts.append(Text(f"step {event.step}: {event.text}", style="dim"))
    return Group(*parts)


def progress_line(history: RunHistory, newest: Newest, now: float) -> str:
    """One line for where there is no terminal: step, loss, learning rate, gradient norm, speed, time left."""
    record = newest[_first(newest)]
    loss = f"{_figure(loss_of(record))} (smoothed {_figure(_smoothed(history, None))})"
    parts = [f"step {progress_text(history.step, history.total_steps)}", f"loss {loss}"]
    if len(history.series("eval_loss")):
        parts.append(f"evaluation {_evaluated(history)}")
    parts += [f"lr {_rate(record)}", f"grad norm {_figure(number(record, 'grad_norm'))}"]
    parts.append(f"{_speed(newest)} tok/s")
    eta = history.eta_seconds(now)
    return "  ".join(parts + ([f"ETA {show_duration(eta)}"] if eta is not None else []))


def record_line(record: Record) -> str | None:
    """`step 750 (worker 1): Lowered the learning rate by 50 %, ...`; None where a record is not worth a line."""
    said, step, rank = sentence(record), record.get("step"), record.get("rank")
    if said is None or not isinstance(step, int):
        return None
    return f"step {step}" + (f" (worker {rank})" if isinstance(rank, int) else "") + f": {said}"


def sparkline(values: Floats, width: int, log: bool = False, ascii_only: bool = False) -> str:
    """`values` in at most `width` characters, lowest to highest; an x where there is no number.

    Each character stands for the mean of the finite values in its stretch; `log` scales by the logarithm.
    """
    levels = _ASCII if ascii_only else _BLOCKS
    if log:
        values = np.where(values > 0, np.log(np.where(values > 0, values, 1.0)), np.nan)
    stretches = np.array_split(values, min(width, len(values))) if len(values) else []
    means = [float(np.mean(finite)) if len(finite := part[np.isfinite(part)]) else math.nan for part in stretches]
    known = [mean for mean in means if math.isfinite(mean)]
    if not known:
        return _NO_NUMBER * len(means)
    low, span = min(known), max(known) - min(known)
    heights = [0.5 if span == 0 else (mean - low) / span for mean in means]
    return "".join(_NO_NUMBER if math.isnan(h) else levels[min(int(h * len(levels)), len(levels) - 1)] for h in heights)


def _heading(history: RunHistory, now: float) -> Text:
    name = history.config.get("brain_name")
    line = Text(str(name) if name else "training", style="bold")
    line.append(f"  {_STATES[history.state]}", style="cyan")
    line.append(f"  step {progress_text(history.step, history.total_steps)}", style="default")
    eta = history.eta_seconds(now)
    return line.append(f"  ETA {show_duration(eta)}" if eta is not None else "", style="default")


def _progress(history: RunHistory) -> RenderableType:
    if history.total_steps is None:
        return Text("")
    line = Table.grid(expand=True)  # the bar alone would not end its line
    line.add_row(ProgressBar(total=max(history.total_steps, 1), completed=history.step))
    return line


def _curves(history: RunHistory, newest: Newest, options: ConsoleOptions) -> Table:
    """Loss and learning rate over the whole run; in a run of several workers, those of the first."""
    width = max(10, min(60, options.max_width - 48))
    record = newest[_first(newest)]
    table = Table.grid(padding=(0, 2, 0, 0))
    loss = f"{_figure(loss_of(record))} (smoothed {_figure(_smoothed(history, None))})"
    table.add_row("loss", loss, sparkline(history.series("smooth").mean, width, ascii_only=options.ascii_only))
    rates = history.series("lr").mean
    table.add_row("learning rate", _rate(record), sparkline(rates, width, log=True, ascii_only=options.ascii_only))
    evaluations = history.series("eval_loss")
    if len(evaluations):
        words = f"{_evaluated(history)} at step {int(evaluations.steps[-1])}"
        table.add_row("evaluation", words, sparkline(evaluations.mean, width, ascii_only=options.ascii_only))
    return table


def _workers(history: RunHistory, newest: Newest) -> Table:
    """One row per worker."""
    columns = ("worker", "step", "loss", "smoothed", "learning rate", "grad norm", "tokens/s")
    table = Table(*columns, box=None, padding=(0, 2, 0, 0), header_style="dim")
    for rank in sorted(newest, key=lambda rank: -1 if rank is None else rank):
        record = newest[rank]
        table.add_row(
            "all" if rank is None else str(rank),
            str(record.get("step")),
            _figure(loss_of(record)),
            _figure(_smoothed(history, rank)),
            _rate(record),
            _figure(number(record, "grad_norm")),
            f"{number(record, 'tokens_per_sec'):,.0f}",
        )
    return table


def _silence(history: RunHistory, newest: Newest, now: float) -> str | None:
    """A sentence when a run that should be running has said nothing for long."""
    if history.state != "running" or history.last_ts is None:
        return None
    silent = now - history.last_ts
    usual = max((number(record, "step_time_s") for record in newest.values()), default=0.0)
    if silent < max(SILENT_SECONDS, SILENT_STEPS * usual):
        return None
    killed = "the training may have been killed; continue it with --resume (Ctrl-C leaves)"
    return f"No step for {show_duration(silent)}: {killed}."


def _first(newest: Newest) -> int | None:
    return min(newest, key=lambda rank: -1 if rank is None else rank)


def _smoothed(history: RunHistory, rank: int | None) -> float:
    smooth = history.series("smooth", rank).mean
    return float(smooth[-1]) if len(smooth) else math.nan


def _evaluated(history: RunHistory) -> str:
    """The newest evaluation loss, and its perplexity where the log has it."""
    loss, perplexity = (history.series(key).mean for key in ("eval_loss", "ppl"))
    told = f" (perplexity {_figure(float(perplexity[-1]), '.1f')})" if len(perplexity) else ""
    return _figure(float(loss[-1])) + told


def _rate(record: Mapping[str, Any]) -> str:
    """The learning rate, or one per param group."""
    lr = record.get("lr")
    rates = [number({"lr": one}, "lr") for one in lr] if isinstance(lr, list) else [number(record, "lr")]
    return " / ".join(_figure(rate, ".3g") for rate in rates)


def _speed(newest: Newest) -> str:
    """Tokens per second of all workers together."""
    return f"{sum(number(record, 'tokens_per_sec') for record in newest.values()):,.0f}"


def _figure(value: float, form: str = ".4f") -> str:
    return format(value, form) if math.isfinite(value) else "NaN"
