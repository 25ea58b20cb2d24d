"""What runs laid over each other have reached, and in which settings they differ: rows of a table, ready to be read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from aios.run_view.history import RunHistory, progress_text
from aios.run_view.logged_settings import OUTPUTS

Row = tuple[str, list[str]]
"""(what it is, its value in each run)."""
_NAMES = frozenset({"brain_name", "bundle_dir", "resume", *OUTPUTS})
_NOTHING = "\u2014"


def final_figures(histories: Sequence[RunHistory]) -> list[Row]:
    """How far each run has come and what it has reached; a dash for what it does not know."""
    told = [_figures(history) for history in histories]
    return [(name, [figures[name] for figures in told]) for name in (told[0] if told else {})]


def _figures(history: RunHistory) -> dict[str, str]:
    evals = history.series("eval_loss")
    best = history.best_evaluation()
    smooth, rates = history.series("smooth"), history.series("lr")
    newest = float(evals.mean[-1]) if len(evals) else math.nan
    return {
        "State": history.state,
        "Steps": progress_text(history.step, history.total_steps),
        "Training loss": _number(float(smooth.mean[-1]) if len(smooth) else math.nan),
        "Evaluation loss": _number(newest),
        "Best evaluation": f"{best[1]:.4f}" if best is not None else _NOTHING,
        "at step": f"{best[0]:,.0f}" if best is not None else _NOTHING,
        "Perplexity": f"{math.exp(newest):,.2f}" if newest < math.log(1e12) else _NOTHING,
        "Learning rate": f"{float(rates.mean[-1]):.3g}" if len(rates) else _NOTHING,
        "Adjustments": f"{history.adjustment_count:,}",
    }


def differing_settings(configs: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The settings that are not the same in all runs, by their names on the command line; places and names aside."""
    keys = dict.fromkeys(key for config in configs for key in config if key not in _NAMES)
    rows = [(key.replace("_", "-"), [_setting(config, key) for config in configs]) for key in keys]
    return [row for row in rows if len(set(row[1])) > 1]


def _setting(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key)
    if value is None:
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, (str, int)) else json.dumps(value)


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else _NOTHING
