"""What a run leaves behind: checkpoints, the published brain, its last log records and a closing summary."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aios.cli.hrm_hf.brain_files import show, show_best, shown_at_end
from aios.cli.hrm_hf.closing import brain_card, final_record, totals
from aios.cli.hrm_hf.lora import save_weights
from aios.cli.hrm_hf.run_state import collect_state
from aios.cli.hrm_hf.samples import Sampler
from aios.cli.hrm_hf.train_epoch import TrainingRun, evaluate, shown_weights
from aios.core.hrm_models import load_model, read_config
from aios.data.dataset import DataSplit, data_id
from aios.distributed.workers import PATIENCE
from aios.file_names import BRAIN_FILE
from aios.runs.brain import BrainCard, card_bytes, creation_time, read_card
from aios.runs.checkpoints import checkpoint_path, clear_leftovers, open_partial, partial_path, save_checkpoint
from aios.runs.lock import BrainLock
from aios.runs.storage import StorageError, hold_on, writing
from aios.runs.training_log import TrainingLog

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class RunKeeper:
    """Keeps what one sitting of training comes to, from its start to the save that ends it."""

    run: TrainingRun
    """The run in progress."""
    run_id: str
    """Names the sitting in log and brain."""
    tokenizer: PreTrainedTokenizerBase
    """Saved in every checkpoint, and published with the brain."""
    data: DataSplit
    """What is trained and evaluated on."""
    log: TrainingLog
    """Synced before each checkpoint, so a power cut leaves no gap."""
    lock: BrainLock
    """The brain's, held by this process."""
    started: float = field(default_factory=time.time)
    """Unix seconds."""
    created: float = field(init=False)
    """When the brain was first saved (unix seconds)."""

    def __post_init__(self) -> None:
        self.created = creation_time(self.run.config.brain_dir) or self.started

    def save(self, last: bool = False) -> Path:
        """Write a checkpoint, publish its weights as the brain's, log both; returns the checkpoint's folder.

        That of the best evaluation is shown in `best/`, too; when the `last` save of a run that has ended is done, it
        is also what is published as the brain.

        Called by every worker; the main one writes for all, under DeepSpeed each its own part.

        Raises:
            StorageError: when the disk takes no more, or another run trains the brain by now; older checkpoints stay,
                and nothing of this one.
        """
        run, brain_dir = self.run, self.run.config.brain_dir
        hold_on(self.lock, brain_dir)
        run.auto.keep_snapshot()
        with run.workers.waiting_at_most(PATIENCE):  # disks may be slow: for the end of it, too
            try:
                with writing(brain_dir, brain_dir, self._bytes_needed()):
                    if run.engine.writes_parts:
                        path = self._write_together(last)
                    else:
                        path = self._write(last) if run.workers.is_main else checkpoint_path(brain_dir, run.step)
            except StorageError:
                if run.workers.is_main:
                    clear_leftovers(brain_dir, set_aside=False)
                raise
            run.workers.wait()
        return path

    def state(self) -> dict[str, Any]:
        """The checkpoint dict."""
        return self.own_state()

    def own_state(self) -> dict[str, Any]:
        """The checkpoint dict of the run of this process as it stands."""
        return collect_state(self.run, data_id(self.data.train, self.run.config.seed))

    def _write_together(self, last: bool) -> Path:
        """Every worker writes its part into one hidden folder; when all have, the main one completes it."""
        run, brain_dir = self.run, self.run.config.brain_dir
        if run.workers.is_main:
            open_partial(brain_dir, run.step)
        # Whoever hears the main worker's number knows the folder's name, and that it is there.
        [process] = run.workers.sum(os.getpid() if run.workers.is_main else 0)
        partial = partial_path(brain_dir, run.step, int(process))
        run.engine.save(partial, self.state())
        with run.engine.whole_model():
            return self._write(last, partial) if run.workers.is_main else checkpoint_path(brain_dir, run.step)

    def _write(self, last: bool, partial: Path | None = None) -> Path:
        run, config, best = self.run, self.run.config, self.run.auto.evaluations.best
        brain_dir, keep = config.brain_dir, config.keep_checkpoints
        if self.log.sync():
            reason = f"{config.log_path} had been taken away; all its records are there again"
            run.log_fn({"event": "log_restored", "step": run.step, "reason": reason})
        spared = best.step if best is not None else None
        saved = save_checkpoint(brain_dir, self.state(), self._write_files, keep, partial, spared)
        if run.at_best:
            show_best(brain_dir, best)
        show(brain_dir, shown_at_end(brain_dir, saved.path, best) if last else saved.path)
        cost = {"bytes": saved.bytes, "seconds": saved.seconds}
        run.log_fn({"event": "checkpoint", "step": run.step, "path": str(saved.path), **cost})
        return saved.path

    def _write_files(self, folder: Path) -> None:
        """All of a checkpoint but its dict: what is published of it, and what a resume needs of the weights."""
        with shown_weights(self.run):
            save_weights(self.run.model, folder)
        if self.run.engine.ema is not None:
            self.run.engine.ema.save(folder)
        self.tokenizer.save_pretrained(folder)
        (folder / BRAIN_FILE).write_bytes(card_bytes(self._card()))

    def _bytes_needed(self) -> int:
        """About what a save adds to the disk: weights and optimizer's state, and what is published of the weights."""
        tensors = [
            t for o in self.run.optimizers for kept in o.state.values() for t in kept.values() if torch.is_tensor(t)
        ]
        weights, ema = _bytes(self.run.model.state_dict().values()), self.run.engine.ema
        averages = 0 if ema is None else weights + _bytes(ema.tensors)
        return (3 if self.run.at_best else 2) * weights + averages + _bytes(tensors)

    def finish(self, stop_reason: str | None) -> None:
        """Evaluate unless the run was stopped, save, and write the closing records."""
        run = self.run
        if stop_reason is not None:
            run.log_fn({"event": "stopped", "step": run.step, "reason": stop_reason})
        elif run.last_eval is None or run.last_eval[0] != run.step:
            evaluate(run, saved=True)
        checkpoint = self.save(last=stop_reason is None)
        run.auto.log_summary()
        if stop_reason is None:
            best, brain_dir = run.auto.evaluations.best, run.config.brain_dir
            run.log_fn(final_record(run.step, self.result(), best, brain_dir, checkpoint, run.climb_eval))

    def result(self) -> dict[str, Any]:
        """The `totals` of the run as it stands."""
        run, wall_s = self.run, time.time() - self.started
        eval_loss = run.last_eval[1] if run.last_eval is not None else None
        return totals(run.step, run.auto.search_steps, run.last_loss, eval_loss, wall_s)

    def _card(self) -> BrainCard:
        run, times = self.run, {"started": self.started, "ended": time.time()}
        sitting = {"run_id": self.run_id, **times, **self.result()}
        architecture = run.model.config.to_diff_dict()
        return brain_card(run.config, self.data.dataset_name, architecture, run.step, self.created, sitting)

    def continuation(self) -> tuple[str, str]:
        """(prompt, what the model goes on to say): a few words from the start of the evaluation text."""
        model = self.run.model
        brain_dir = self.run.config.brain_dir
        card = read_card(brain_dir)
        is_other = card is not None and card.trained_steps != self.run.step  # that of the best evaluation
        if is_other or self.run.engine.in_step:  # one worker alone holds a part of the weights; the brain has them all
            model = load_model(brain_dir, read_config(brain_dir)).to(self.run.device)
        shown = shown_weights(self.run) if model is self.run.model else nullcontext()
        with shown:
            return Sampler(self.tokenizer, self.data.eval, self.run.precision, self.run.config.seed)(model)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
