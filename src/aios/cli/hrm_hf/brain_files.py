"""A run's brain folder against its newest checkpoint: published anew where it differs, and the log of an ended run
closed where a kill left it open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from aios.auto_lr.overfit import Evaluation
from aios.cli.hrm_hf.best_brain import best_saved, ended_by_overfitting
from aios.cli.hrm_hf.closing import brain_card, final_record, totals
from aios.cli.hrm_hf.lora import ADAPTER_DIR, BASE_FILE
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.parallel_state import OF_ALL_WORKERS
from aios.cli.hrm_hf.run_log import NO_TAGS, open_log
from aios.data.tokenizer import bundled_corpus_path
from aios.engines.deepspeed import SHARDS
from aios.engines.weight_average import AVERAGE_FILE
from aios.file_names import BRAIN_FILE, CONFIG_FILE
from aios.files import replace_file
from aios.run_view.follow import LogFollower
from aios.runs.brain import best_dir, card_bytes, creation_time, read_card
from aios.runs.checkpoints import checkpoint_path, clear_leftovers, last_damage
from aios.runs.publishing import Published, publish
from aios.runs.storage import writing
from aios.settings.config import TrainingConfig

ONLY_FOR_RESUME = (BASE_FILE, ADAPTER_DIR, SHARDS, AVERAGE_FILE)
"""Files and folders of a checkpoint, besides its dict, that are not published."""

Say = Callable[[str], None]
"""Shows the person at the terminal one sentence."""


def show(brain_dir: Path, checkpoint: Path) -> Published:
    """Have the brain's folder show the files of `checkpoint`."""
    return publish(brain_dir, checkpoint, ONLY_FOR_RESUME)


def show_best(brain_dir: Path, best: Evaluation | None) -> Published:
    """Have `best/` show the checkpoint of the best evaluation; where that is damaged or gone, all stays as it is."""
    checkpoint = checkpoint_path(brain_dir, best.step) if best is not None else None
    if checkpoint is None or last_damage(checkpoint) is not None:
        return Published([], [])
    return show(best_dir(brain_dir), checkpoint)


def shown_at_end(brain_dir: Path, last: Path, best: Evaluation | None) -> Path:
    """The checkpoint that a run shows once it has ended: that of its best evaluation, else the `last`."""
    checkpoint = checkpoint_path(brain_dir, best.step) if best is not None else last
    return checkpoint if checkpoint != last and last_damage(checkpoint) is None else last


def has_ended(origin: Origin) -> bool:
    """Whether the resumed run has reached `--steps` already, or had finished because it overfitted."""
    state, config = origin.state, origin.config
    return state is not None and (origin.step >= config.steps or ended_by_overfitting(state, config))


def republish(origin: Origin, say: Say) -> None:
    """Have the brain's folder show the checkpoint that `origin` resumes, and no more; say what was not so.

    Raises:
        StorageError: when it cannot be written.
    """
    if origin.state is None or origin.weights is None:
        return
    brain_dir, checkpoint = origin.config.brain_dir, origin.weights
    best = best_saved(origin.state, origin.config)
    with writing(brain_dir, brain_dir):
        clear_leftovers(brain_dir, set_aside=False)
        in_best = show_best(brain_dir, best)
        if has_ended(origin) and not _was_stopped(origin, _read_ending(origin.config.log_path, origin.step)):
            checkpoint = shown_at_end(brain_dir, checkpoint, best)
        done = show(brain_dir, checkpoint)
        if not (checkpoint / BRAIN_FILE).exists() and _renew_card(origin.config, origin.step, checkpoint):
            done = Published([*done.replaced, BRAIN_FILE], done.removed)
    _say_what_was_done(done, brain_dir, checkpoint, say)
    if best is not None:
        _say_what_was_done(in_best, best_dir(brain_dir), checkpoint_path(brain_dir, best.step), say)


def _say_what_was_done(done: Published, folder: Path, checkpoint: Path, say: Say) -> None:
    if done.replaced or done.removed:
        told = [(done.replaced, "published again"), (done.removed, "removed")]
        what = "; ".join(f"{', '.join(names)} {verb}" for names, verb in told if names)
        say(f"What {folder} shows was not as in {checkpoint}: {what}.")


def close_ended_run(origin: Origin, say: Say) -> None:
    """Give the log of a run that has ended its `final` record, if a kill in the last save has left it without one.

    One that was stopped before the end it had then, and is asked for no more now, stays a stopped one.

    The evaluation loss is the one in the log, where a power cut has not taken it; all else is what the checkpoint
    holds. What neither tells is None.

    Raises:
        StorageError: when the log cannot be written.
    """
    config = origin.config
    assert origin.state is not None, "only a resumed run has ended before it began"
    assert origin.weights is not None, "it has a checkpoint"
    step = origin.step
    early = step < config.steps
    over = ", where its evaluation loss had turned up; to go on give --on-overfit keep-best, or" if early else ";"
    say(f"{config.brain_dir} is trained to step {step} already{over} raise --steps to go on.")
    logged = _read_ending(config.log_path, step)
    if logged.closed or _was_stopped(origin, logged):
        return
    card = read_card(origin.weights)
    told = card.last_session if card is not None else {}
    eval_loss = told.get("eval_loss") if logged.eval_loss is None else logged.eval_loss
    known = totals(step, told.get("search_steps"), told.get("loss"), eval_loss, told.get("wall_s"))
    record = final_record(step, known, best_saved(origin.state, config), config.brain_dir, origin.weights)
    with open_log(config, step) as log:
        log.log_fn(OF_ALL_WORKERS if config.parallel_independent else NO_TAGS)(record)
    say(f"The run was killed after its last checkpoint: closed the log with the final record of step {step}.")


class _Ending(NamedTuple):
    """How a log ends for the run that came to a step."""

    closed: bool
    """Whether there is a `final` record of the step, or no log that could lack one."""
    eval_loss: float | None
    """The evaluation loss logged at the step, nats per token; None where there is none."""
    stopped: bool = False
    """Whether the run was stopped at the step, and saved."""


def _read_ending(path: Path, step: int) -> _Ending:
    """What the log says of the end at `step`; what a later sitting trained again replaces what an earlier one said."""
    ending = _Ending(True, None)
    for record in LogFollower(path).rest():
        event, at = record.get("event"), record.get("step")
        if event == "train" and isinstance(at, int) and at <= step:
            ending = _Ending(False, None)
        elif at == step and event == "eval" and record.get("rank") is None:
            ending = ending._replace(eval_loss=record.get("loss"))
        elif at == step and event == "final":
            ending = ending._replace(closed=True)
        elif at == step and event == "stopped":
            ending = ending._replace(stopped=True)
    return ending


def _was_stopped(origin: Origin, logged: _Ending) -> bool:
    """Whether the resumed run was stopped, as its log says, before it had come to its end."""
    return logged.stopped and origin.state is not None and origin.step < origin.state["config"]["steps"]


def _renew_card(config: TrainingConfig, step: int, checkpoint: Path) -> bool:
    """Make a card for a checkpoint of the first form, which has none, unless the brain's is whole; says if it did."""
    brain_dir = config.brain_dir
    before = read_card(brain_dir)
    if before is not None and before.trained_steps == step:
        return False
    architecture = json.loads((checkpoint / CONFIG_FILE).read_text(encoding="utf-8"))
    created = creation_time(brain_dir) or checkpoint.stat().st_mtime
    card = brain_card(config, config.dataset_file or str(bundled_corpus_path()), architecture, step, created)
    replace_file(brain_dir / BRAIN_FILE, lambda file: file.write(card_bytes(card)), over_folder=True)
    return True
