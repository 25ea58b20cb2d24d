"""Checks of a run's input that need neither torch nor the data: they refuse before anything is written."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from aios.data.text_source import check_dataset
from aios.errors import UserError
from aios.runs.brain import check_writable, holds_brain
from aios.runs.tensorboard_log import check_tensorboard
from aios.settings.adaptive_lr_file import build_config
from aios.settings.config import TrainingConfig
from aios.settings.deepspeed import check_deepspeed


def check_inputs(config: TrainingConfig) -> None:
    """Check the files that `config` wants read.

    Raises:
        UserError: when one of them cannot be used.
    """
    for text in (config.dataset_file, config.eval_file):
        if text is not None:
            check_dataset(text)
    if config.student_init is not None and not os.path.isfile(Path(config.student_init) / "config.json"):
        raise UserError(f"--student-init {config.student_init} is no brain folder: it has no config.json.")
    if config.tensorboard is not None:
        check_tensorboard()
    if config.use_peft:
        _check_peft(config)
    if config.uses_deepspeed:
        check_deepspeed(config)
    if config.auto_adjust_lr:
        build_config(config.adaptive_lr_config, config.lr, config.steps, config.use_moe)
    elif config.adaptive_lr_config is not None:
        raise UserError("--adaptive-lr-config has no effect with --no-auto-adjust-lr; leave one of them out.")


def _check_peft(config: TrainingConfig) -> None:
    if config.student_init is None and not config.resume:
        raise UserError(
            "--use-peft adapts a model that is trained already; name its brain folder with --student-init, or --resume."
        )
    if importlib.util.find_spec("peft") is None:
        raise UserError("--use-peft needs the package peft, which is not installed; run `pip install peft`.")


def check_folders(config: TrainingConfig) -> None:
    """Check the folders that `config` wants written.

    Raises:
        UserError: when one of them cannot be, or a fresh run would overwrite a brain.
    """
    if not config.resume and holds_brain(config.brain_dir):
        raise UserError(
            f"{config.brain_dir} already holds a trained brain; continue it with --resume, or choose another "
            "--brain-name."
        )
    check_writable(config.brain_dir, "--bundle-dir")
    check_writable(config.log_path.parent, "--log-file")
    if config.tensorboard is not None:
        check_writable(Path(config.tensorboard), "--tensorboard")
