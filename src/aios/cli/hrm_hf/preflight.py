"""Checks of a run's input that need neither torch nor the data: they refuse before anything is written."""

from __future__ import annotations

from pathlib import Path

from aios.cli.hrm_hf.adaptive_lr_file import build_config
from aios.cli.hrm_hf.config import TrainingConfig
from aios.data.text_source import check_dataset
from aios.errors import UserError
from aios.runs.brain import check_writable, holds_brain


def check_inputs(config: TrainingConfig) -> None:
    """Check the files that `config` wants read.

    Raises:
        UserError: when one of them cannot be used.
    """
    for text in (config.dataset_file, config.eval_file):
        if text is not None:
            check_dataset(text)
    if config.student_init is not None and not (Path(config.student_init) / "config.json").is_file():
        raise UserError(f"--student-init {config.student_init} is no brain folder: it has no config.json.")
    if config.auto_adjust_lr:
        build_config(config.adaptive_lr_config, config.lr, config.steps, config.use_moe)
    elif config.adaptive_lr_config is not None:
        raise UserError("--adaptive-lr-config has no effect with --no-auto-adjust-lr; leave one of them out.")


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
