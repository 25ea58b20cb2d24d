"""How a replay is shown: a table and sentences, JSON, or a picture beside the recording."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aios.replay.recording import Recording
from aios.replay.replay import Choice, Replay
from aios.run_view.events import Adjustment
from aios.run_view.history import RunHistory
from aios.terminal.tables import adjustment_table

OPEN_LOOP = (
    "The losses are those recorded: under another learning rate they would have been different. "
    "This shows what would have been decided, not where it would have led."
)


def same_decisions(recording: Recording, replayed: Replay) -> bool:
    """Whether every recorded adjustment came out again, and no other."""
    return [_key(a) for a in recording.adjustments] == [_key(a) for a in replayed.adjustments]


_PARTS = ("step", "decision", "old_lr", "new_lr", "reason", "groups")


def _key(adjustment: Adjustment) -> tuple[Any, ...]:
    return tuple(getattr(adjustment, part) for part in _PARTS)


def print_replay(console: Console, recording: Recording, replayed: Replay, choice: Choice) -> None:
    """Print the decisions of the replay, the comparison with the recording, and what to make of it."""
    worker = f" of worker {recording.rank}" if recording.ranks else ""
    title = f"Replay of {len(replayed.steps)} steps{worker} after the warm-up, {_choice_words(replayed, choice)}"
    console.print(title, markup=False, soft_wrap=True)
    if replayed.adjustments:
        console.print(adjustment_table(replayed.adjustments))
    else:
        console.print("No adjustment: the learning rate would have stayed where it was.")
    console.print(_comparison(recording, replayed))
    if same_decisions(recording, replayed):
        console.print("The replay equals the recording: the same adjustments at the same steps.")
    for note in replayed.notes:
        console.print(note, markup=False, soft_wrap=True)
    console.print(OPEN_LOOP, style="dim", soft_wrap=True)


def _choice_words(replayed: Replay, choice: Choice) -> str:
    given = [] if choice.settings_file is None else [choice.settings_file]
    given += [f"{key} {value}" for key, value in choice.settings.items()]
    return f"profile {replayed.profile}, {', '.join(given) if given else 'settings as recorded'}"


def _comparison(recording: Recording, replayed: Replay) -> Table:
    table = Table("", "recorded", "replayed", box=None, padding=(0, 2, 0, 0))
    recorded, mine = _counts(recording.adjustments), _counts(replayed.adjustments)
    table.add_row("adjustments", str(sum(recorded.values())), str(sum(mine.values())))
    for decision in sorted(recorded.keys() | mine.keys()):
        table.add_row(f"  {decision}", str(recorded[decision]), str(mine[decision]))
    end = _recorded_end(recording)
    table.add_row("LR at the end, anneal aside", "fixed" if math.isnan(end) else f"{end:.4g}", f"{replayed.end_lr:.4g}")
    return table


def _counts(adjustments: Iterable[Adjustment]) -> Counter[str]:
    return Counter(a.decision for a in adjustments)


def _recorded_end(recording: Recording) -> float:
    """The adaptive rate that the recorded run ended with; NaN where it had none."""
    for sitting in reversed(recording.sittings):
        if sitting.adjustments:
            return sitting.adjustments[-1].new_lr
        if sitting.restored_lr is not None:
            return sitting.restored_lr
        if sitting.init is not None:
            return float(sitting.init.get("initial_lr", math.nan))
    return math.nan


def as_json(recording: Recording, replayed: Replay, choice: Choice) -> dict[str, Any]:
    """The replay as plain values; a rate that is not a number is null."""
    return {
        "log": str(recording.path),
        "rank": recording.rank if recording.ranks else None,
        "profile": replayed.profile,
        "given": {**choice.settings, **({"file": choice.settings_file} if choice.settings_file is not None else {})},
        "settings": asdict(replayed.config),
        "steps": len(replayed.steps),
        "recorded": _side(recording.adjustments, _recorded_end(recording)),
        "replayed": _side(replayed.adjustments, replayed.end_lr),
        "same_decisions": same_decisions(recording, replayed),
        "notes": [*replayed.notes, OPEN_LOOP],
    }


def _side(adjustments: list[Adjustment], end_lr: float) -> dict[str, Any]:
    listed = [dict(zip(_PARTS, _key(a), strict=True)) for a in adjustments]
    end = end_lr if math.isfinite(end_lr) else None
    return {"adjustments": listed, "counts": dict(_counts(adjustments)), "end_lr": end}


def draw_replay(recording: Recording, replayed: Replay, picture: Path) -> None:
    """Draw the recorded and the replayed learning rate, and above them the loss both saw, into the file `picture`.

    Raises:
        UserError: when the picture cannot be written there.
    """
    # Imported late: drawing takes a second to load, and text needs none of it.
    from aios.run_view.drawing import REPLAY_SIZE, blank_picture, draw_run, save_picture

    figure = blank_picture(REPLAY_SIZE)
    draw_run(figure, [("recorded", _recorded_history(recording)), ("replayed", _replayed_history(replayed))])
    save_picture(figure, picture)


def _recorded_history(recording: Recording) -> RunHistory:
    history = RunHistory()
    history.add({"event": "train", "step": s.step, "ce": s.ce, "lr": s.lr} for s in recording.ordered_steps())
    history.add(_adjustment_records(recording.adjustments))
    return history


def _replayed_history(replayed: Replay) -> RunHistory:
    history = RunHistory()  # without losses: those drawn for the recording are its own
    pairs = zip(replayed.steps, replayed.lrs, strict=True)
    history.add({"event": "train", "step": s.step, "lr": lr} for s, lr in pairs)
    history.add(_adjustment_records(replayed.adjustments))
    return history


def _adjustment_records(adjustments: Iterable[Adjustment]) -> Iterator[dict[str, Any]]:
    for a in adjustments:
        rates = {"old_lr": a.old_lr, "new_lr": a.new_lr}
        yield {"event": "adaptive_lr_adjustment", "step": a.step, "decision": a.decision, **rates, "reason": a.reason}
