"""Checks of a run's input that need neither torch nor the data: they refuse before anything is written."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from aios.data.text_source import check_dataset
from aios.errors import UserError
from aios.extras import remedy
from aios.file_names import CONFIG_FILE
from aios.runs.brain import holds_brain
from aios.runs.tensorboard_log import check_tensorboard
from aios.runs.training_log import check_log
from aios.runs.writable import check_writable
from aios.settings.config import TrainingConfig
from aios.settings.deepspeed import check_deepspeed
from aios.settings.learning_rate import auto_lr_config


def check_inputs(config: TrainingConfig) -> None:
    """Check the files that `config` wants read.

    Raises:
        UserError: when one of them cannot be used.
    """
    for text in (config.dataset_file, config.eval_file):
        if text is not None:
            check_dataset(text, config.text_encoding)
    student = None if config.resume else config.student_init  # a checkpoint has all that was taken from it
    if student is not None and not os.path.isfile(Path(student) / CONFIG_FILE):
        raise UserError(f"--student-init {student} is no brain folder: it has no {CONFIG_FILE}.")
    if config.tensorboard is not None:
        check_tensorboard()
    if config.use_peft:
        _check_peft(config)
    if config.compile:
        _check_compiler()
    if config.uses_deepspeed:
        check_deepspeed(config)
    if config.adaptive_lr_config is not None and not config.auto_adjust_lr:
        raise UserError("--adaptive-lr-config has no effect with --no-auto-adjust-lr; leave one of them out.")
    auto_lr_config(config)


def _check_peft(config: TrainingConfig) -> None:
    if config.student_init is None and not config.resume:
        raise UserError(
            "--use-peft adapts a model that is trained already; name its brain folder with --student-init, or --resume."
        )
    if importlib.util.find_spec("peft") is None:
        raise UserError(f"--use-peft needs the package peft, which is not installed: {remedy('peft')}")


def _check_compiler() -> None:
    """torch.compile's kernels for the CPU, and what starts those for CUDA, are built by a C++ compiler."""
    named = os.environ.get("CXX")
    compilers = [named] if named else ["g++", "clang++", "cl"]
    if not any(shutil.which(compiler) for compiler in compilers):
        raise UserError(
            f"--compile needs a C++ compiler, but there is no {' or '.join(compilers)} here; install one, or leave "
            "--compile out."
        )


def check_brain_folder(config: TrainingConfig) -> Path:
    """Check that the brain can be saved where `config` says; returns its folder, which need not exist.

    Raises:
        UserError: when it cannot.
    """
    if not config.bundle_dir:  # Path("") would be the folder the command is run in
        raise UserError("--bundle-dir is empty; name a folder, or leave it out.")
    check_writable(config.brain_dir, "--bundle-dir")
    return config.brain_dir


def check_folders(config: TrainingConfig) -> None:
    """Check the folders and files that `config` wants written.

    Raises:
        UserError: when one of them cannot be, or a fresh run would overwrite a brain.
    """
    brain_dir = check_brain_folder(config)
    if not config.resume and holds_brain(brain_dir):
        raise UserError(
            f"{brain_dir} already holds a trained brain; continue it with --resume, or choose another --brain-name."
        )
    check_writable(config.log_path.parent, "--log-file")
    check_log(config.log_path)
    config.watched_stop_file.check()
    if os.path.realpath(config.log_path) == os.path.realpath(config.stop_path):
        raise UserError(f"{config.log_path} cannot be --log-file and --stop-file at once; choose another for one.")
    if config.tensorboard is not None:
        check_writable(Path(config.tensorboard), "--tensorboard")
