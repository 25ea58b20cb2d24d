"""Where a run starts from: nothing, another brain's weights, or its own newest checkpoint.

Imports torch only when there is a checkpoint to read, so that bad input is refused at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aios.cli.hrm_hf.inherited import inherit
from aios.core.architecture import Architecture
from aios.core.foreign_json import read_foreign_json, refuse_code
from aios.errors import UserError
from aios.file_names import CONFIG_FILE
from aios.runs.brain import holds_brain
from aios.settings.adaptive_lr_file import check_roles
from aios.settings.config import TrainingConfig
from aios.settings.deepspeed import check_inherited_settings, check_same_engine, with_file_lr
from aios.settings.fits import check_fits
from aios.settings.flag_values import flag_name
from aios.settings.preflight import check_brain_folder, check_folders, check_inputs

_BODY_FIELDS = tuple(f.name for f in dataclasses.fields(Architecture))
_EXPERT_FIELDS = ("num_experts", "num_experts_per_tok")


@dataclass(frozen=True)
class Origin:
    """What a run starts from."""

    config: TrainingConfig
    """Settings of the run: as given, on resume over those of the resumed run."""
    weights: Path | None = None
    """Brain or checkpoint folder of the weights; None: a new model."""
    tokenizer: str | None = None
    """Tokenizer folder or name; None: the bundled one."""
    state: dict[str, Any] | None = None
    """Checkpoint dict to resume; None: start at step 0."""
    remarks: tuple[str, ...] = ()
    """Damaged checkpoints passed over, what the one that was not lacks, places to write to that are not inherited; a
    sentence each."""

    @property
    def step(self) -> int:
        """Optimizer steps done before."""
        return int(self.state["step"]) if self.state is not None else 0


def find_origin(given: Mapping[str, Any], trains: bool = True, restarted: bool = False) -> Origin:
    """Settle what to train from the config fields in `given` (all others at their defaults, or as they were).

    `trains` is False for commands that leave the brain's folder alone: then nothing there can be in the way.
    `restarted`: the launcher lost workers and started this one again; it goes on from what the run has saved.

    Raises:
        UserError: when the input cannot be trained on; nothing has been written then.
    """
    if given.get("resume"):
        return _resumed(given, trains)
    config = TrainingConfig(**given)
    if restarted and holds_brain(config.brain_dir):
        return _resumed({**given, "resume": True}, trains)
    check_inputs(config)
    if config.student_init is None:
        return Origin(_checked(config, {}, trains), tokenizer=config.model)
    student = Path(config.student_init)
    shape = _agreed_shape(given, student)
    config = dataclasses.replace(_checked(config, shape, trains), **shape)
    return Origin(config, student, config.model or str(student))


def _checked(config: TrainingConfig, shape: Mapping[str, Any], trains: bool) -> TrainingConfig:
    """`config`, with the LR of a file for DeepSpeed, where a model of that shape can be trained with it.

    `shape` are the fields that a model from elsewhere fixes; `trains`: as `find_origin`.
    """
    config = with_file_lr(config)
    shaped = dataclasses.replace(config, **shape)
    check_roles(shaped.adaptive_lr_config, shaped.use_moe, shaped.use_peft)
    check_fits(shaped)
    if trains:
        check_folders(config)
    return config


def brain_folder(given: Mapping[str, Any]) -> Path:
    """The brain's folder that the config fields in `given` mean.

    Raises:
        UserError: when there can be no such folder, or nothing can be saved in it.
    """
    place = {name: given[name] for name in ("bundle_dir", "brain_name") if name in given}
    return check_brain_folder(TrainingConfig(**place))


def _resumed(given: Mapping[str, Any], trains: bool) -> Origin:
    from aios.cli.hrm_hf.parallel_state import split_state
    from aios.runs.checkpoints import load_state
    from aios.runs.newest_checkpoint import find_newest

    brain_dir = brain_folder(given)
    newest = find_newest(brain_dir, "resume", "train without --resume first", "train under another --brain-name")
    path = newest.path
    state = load_state(path)
    config, not_inherited = _resumed_config(state["config"], given, brain_dir)
    if not config.parallel_independent:
        state = split_state(state, 0, 1)  # of independent workers the first goes on, with the merged weights
    shape = _agreed_shape(given, path)
    check_same_engine(config, int(state.get("zero_stage", 0)), path)
    check_inputs(config)
    if "deepspeed_config" not in given:
        check_inherited_settings(config)
    config = _checked(config, shape, trains)
    named = given.get("model")
    tokenizer, remarks = (named, newest.skipped) if named else (str(newest.tokenizer), newest.remarks)
    return Origin(config, path, tokenizer, state, (*remarks, *not_inherited))


def _resumed_config(
    saved: Mapping[str, Any], given: Mapping[str, Any], brain_dir: Path
) -> tuple[TrainingConfig, list[str]]:
    """The settings of a run that goes on with those in its checkpoint, but for those given now; what is not inherited,
    a sentence each."""
    known = {f.name for f in dataclasses.fields(TrainingConfig)}
    kept, not_inherited = inherit({name: saved[name] for name in saved if name in known}, given, brain_dir)
    if given.get("auto_adjust_lr") is False:
        kept.pop("adaptive_lr_config", None)  # settings of what has just been turned off
    if given.get("ddp") is False or given.get("parallel_independent") is False or given.get("zero_stage") == "none":
        kept.pop("world_size", None)  # so is the number of workers
    for way in _ways_given_up(given):
        kept.pop(way, None)
    return TrainingConfig(**{**kept, **given}), not_inherited


def _ways_given_up(given: Mapping[str, Any]) -> tuple[str, ...]:
    """The ways of the resumed run to use several workers that exclude the one in `given`."""
    if given.get("parallel_independent"):
        return "ddp", "zero_stage", "deepspeed_config"
    shares_weights = given.get("ddp") or given.get("deepspeed_config") or given.get("zero_stage", "none") != "none"
    return ("parallel_independent",) if shares_weights else ()


def _agreed_shape(given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The config fields that the model in `folder` fixes; refuses flags that ask for something else."""
    there = _read_shape(folder)
    wanted = {name: given[name] for name in there if given.get(name) is not None}
    of_preset: dict[str, Any] = {}
    if "preset" in given:
        of_preset = dataclasses.asdict(TrainingConfig(preset=given["preset"]).architecture)
    for name, value in {**of_preset, **wanted}.items():
        if value != there[name]:
            flag, why = (
                (flag_name(name), "") if name in wanted else ("--preset", f" as --preset {given['preset']} has it")
            )
            raise UserError(
                f"{folder} holds a different architecture: {flag_name(name)} is {there[name]} there, not {value}{why}; "
                f"leave {flag} out, or train under another --brain-name."
            )
    return there


def _read_shape(folder: Path) -> dict[str, Any]:
    refuse_code(folder)
    path = folder / CONFIG_FILE
    saved = read_foreign_json(path)
    try:
        shape = {name: saved[name] for name in (*_BODY_FIELDS, "use_moe")}
        shape["shared_stack"] = saved.get("shared_stack", False)  # models before it had two
        experts = {name: saved[name] for name in _EXPERT_FIELDS} if shape["use_moe"] else {}
    except KeyError as error:
        raise UserError(f"{path} does not describe an HRM: it has no {error}; choose another brain folder.") from error
    _check_shape({**shape, **experts}, path)
    return {**shape, **experts}


def _check_shape(shape: Mapping[str, Any], path: Path) -> None:
    """Refuse what `path` says of a model where no flag could ask for it."""
    missing = next((name for name, value in shape.items() if value is None), None)
    if missing is not None:
        raise UserError(f"{path} does not describe an HRM: its {missing} is null; choose another brain folder.")
    try:
        TrainingConfig(**shape)
    except UserError as error:
        reason = str(error).rstrip(".")
        raise UserError(f"{path} does not describe an HRM ({reason}); choose another brain folder.") from error
