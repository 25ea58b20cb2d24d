"""DeepSpeed's settings, made from the flags and the user's own file: pure, and without torch or DeepSpeed."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aios.errors import UserError, shown
from aios.extras import remedy
from aios.settings.config import TrainingConfig
from aios.settings.deepspeed_file import DeepSpeedFile

STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}
"""What the workers split among them: optimizer state; and gradients; and weights (Rajbhandari et al. 2020)."""
SCHEDULERS = ("LRRangeTest", "OneCycle", "WarmupLR", "WarmupDecayLR", "WarmupCosineLR")
"""DeepSpeed's own."""

_ZERO = "zero_optimization"
_OFFLOADED = ("offload_param", "offload_optimizer")
_REMEDY = "take it out of the file"
_OPTIMIZERS = ("Adam", "AdamW")
_WRITERS = ("tensorboard", "csv_monitor", "wandb", "comet", "nebula", "autotuning")


def check_deepspeed(config: TrainingConfig) -> None:
    """Check, before a worker starts, that DeepSpeed is there and that its settings agree with the flags.

    Raises:
        UserError: when it is not, or the file cannot be read or contradicts a flag.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise UserError(
            f"{_asked_for(config)} needs the package deepspeed, which is not installed: {remedy('deepspeed')}; or use "
            "--ddp."
        )
    deepspeed_settings(config, config.world_size)


def deepspeed_settings(config: TrainingConfig, world_size: int | None) -> dict[str, Any]:
    """What `deepspeed.initialize` is given: the user's file, completed by what the flags decide.

    `world_size` is None while the number of workers is not known: the size of the whole batch is then left open.

    Raises:
        UserError: when the file cannot be read or contradicts a flag.
    """
    file = DeepSpeedFile.read(config.deepspeed_config)
    decided = {
        "train_micro_batch_size_per_gpu": (config.batch_size, "--batch-size"),
        "gradient_accumulation_steps": (config.gradient_accumulation_steps, "--gradient-accumulation-steps"),
        "gradient_clipping": (config.max_grad_norm, "--max-grad-norm"),
    }
    if world_size is not None:
        names = "--batch-size x --gradient-accumulation-steps x the number of workers"
        decided["train_batch_size"] = (config.sequences_per_step(world_size), names)
    _check_file(config, file, decided)
    zero = {**file.section(_ZERO), "stage": _stage(config, file)}
    for part in _OFFLOADED:
        file.section(_ZERO, part)
    return {
        # Its default would refuse torch's AdamW beside an offloaded optimizer.
        "zero_force_ds_cpu_optimizer": False,
        **{key: value for key, value in file.settings.items() if key != "optimizer"},
        **{key: value for key, (value, _) in decided.items()},
        _ZERO: zero,
    }


def _check_file(config: TrainingConfig, file: DeepSpeedFile, decided: Mapping[str, tuple[Any, str]]) -> None:
    """Refuse a file that contradicts the flags (`decided`: value and flag by key) or asks for what is not done."""
    for key, (value, flag) in decided.items():
        if key in file.settings and file.settings[key] != value:
            raise UserError(
                f"{file.path} sets {key} to {shown(file.settings[key])}, but {flag} is {value}; change one, or "
                f"{_REMEDY}."
            )
    _check_number_types(config, file)
    _check_writers(file)
    if file.section("checkpoint").get("load_universal"):
        raise UserError(
            f"{file.path} asks for a universal checkpoint, which DeepSpeed reads in a way that can run "
            f"code from it; {_REMEDY}."
        )
    _optimizer(config, file)
    _check_scheduler(file)


def zero_stage(config: TrainingConfig) -> int:
    """The ZeRO stage, 1 to 3, that flag and file agree on; 0 for a run without DeepSpeed.

    Raises:
        UserError: when they contradict each other, or neither names one.
    """
    return _stage(config, DeepSpeedFile.read(config.deepspeed_config)) if config.uses_deepspeed else 0


def _stage(config: TrainingConfig, file: DeepSpeedFile) -> int:
    """The ZeRO stage of a run with DeepSpeed."""
    flag = STAGES.get(config.zero_stage)
    in_file = file.section(_ZERO).get("stage")
    if in_file is None and flag is not None:
        return flag
    if not isinstance(in_file, int) or in_file not in STAGES.values() or isinstance(in_file, bool):
        named = "no ZeRO stage" if in_file is None else f"ZeRO stage {shown(in_file)}"
        raise UserError(
            f"{config.deepspeed_config} names {named}; give --zero-stage zero1, zero2 or zero3, and the same or none "
            "in the file."
        )
    if flag not in (None, in_file):
        raise UserError(
            f"--zero-stage is {config.zero_stage}, but {config.deepspeed_config} sets stage {in_file}; give "
            f"--zero-stage zero{in_file}, or change the file."
        )
    return in_file


def _check_scheduler(file: DeepSpeedFile) -> None:
    """Refuse a learning-rate scheduler that DeepSpeed has not; with one of its own it decides alone."""
    kind = file.section("scheduler").get("type")
    if kind is not None and kind not in SCHEDULERS:  # those of torch do not take ZeRO's optimizer
        raise UserError(
            f"{file.path} asks for the scheduler {shown(kind)}; choose one of {', '.join(SCHEDULERS)}, or {_REMEDY} "
            "and let the adaptive learning rate decide."
        )


def optimizer_settings(config: TrainingConfig) -> dict[str, Any]:
    """What the file's `optimizer` section says about AdamW: any of lr, betas, eps, weight_decay.

    Raises:
        UserError: for another optimizer, a parameter AdamW does not take, or an LR that contradicts --lr.
    """
    return _optimizer(config, DeepSpeedFile.read(config.deepspeed_config))


def _optimizer(config: TrainingConfig, file: DeepSpeedFile) -> dict[str, Any]:
    """As `optimizer_settings`, of a file that was read."""
    kind, parameters = file.section("optimizer").get("type", "AdamW"), file.section("optimizer", "params")
    # DeepSpeed's Adam decouples weight decay, that is, is AdamW, unless told otherwise.
    unsuited = kind not in _OPTIMIZERS or parameters.pop("adam_w_mode", True) is not True
    parameters.pop("torch_adam", None)
    unknown = sorted(set(parameters) - {"lr", "betas", "eps", "weight_decay"})
    if unsuited or unknown:
        what = f"the optimizer parameter {shown(unknown[0])}" if unknown else f"optimizer {shown(kind)}"
        raise UserError(f"{file.path} asks for {what}, but training uses AdamW; {_REMEDY}.")
    if config.lr is not None and parameters.get("lr", config.lr) != config.lr:
        raise UserError(
            f"{file.path} sets the optimizer's lr to {shown(parameters['lr'])}, but --lr is {config.lr}; "
            f"change one, or {_REMEDY}."
        )
    _check_parameters(parameters, config)
    return parameters


def _check_parameters(parameters: Mapping[str, Any], config: TrainingConfig) -> None:
    """Refuse values that AdamW does not take; lr and weight_decay have the ranges of the flags of those names."""
    try:
        dataclasses.replace(config, **{name: parameters[name] for name in ("lr", "weight_decay") if name in parameters})
    except UserError as error:
        raise UserError(f"{config.deepspeed_config}, section optimizer: {error}") from error
    betas, eps = parameters.get("betas", [0.0, 0.0]), parameters.get("eps", 0.0)
    pair = isinstance(betas, list) and len(betas) == 2 and all(_is_number(beta) and 0 <= beta < 1 for beta in betas)
    if not pair or not (_is_number(eps) and 0 <= eps < 1):
        name, value = ("eps", eps) if pair else ("betas", betas)
        raise UserError(
            f"{config.deepspeed_config} sets the optimizer's {name} to {shown(value)}, but it must be "
            f"{'a number' if pair else 'a list of two numbers'} of at least 0 and below 1."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def with_file_lr(config: TrainingConfig) -> TrainingConfig:
    """`config`, with the LR of the file's `optimizer` section where no --lr was given."""
    lr = optimizer_settings(config).get("lr")
    return config if lr is None else dataclasses.replace(config, lr=float(lr))


def _check_number_types(config: TrainingConfig, file: DeepSpeedFile) -> None:
    """Refuse a file that turns on another type than the flags do; the engine turns on what they say."""
    for section, flag in (("bf16", "--model-dtype bf16"), ("fp16", "--model-dtype fp16"), ("torch_autocast", "--amp")):
        turned_on = file.section(section).get("enabled", False)
        wanted = config.amp is True if section == "torch_autocast" else config.model_dtype == section
        if turned_on and not wanted:
            raise UserError(f"{file.path} turns {section} on; give {flag} instead, or {_REMEDY}.")


def _check_writers(file: DeepSpeedFile) -> None:
    """Refuse a file that has DeepSpeed write logs of its own: where a run writes is for the flags to say."""
    found = [name for name in _WRITERS if file.section(name).get("enabled", False) is not False]
    if file.section("flops_profiler").get("output_file") is not None:
        found.append("flops_profiler's output_file")
    if found:
        raise UserError(
            f"{file.path} asks for {found[0]}, which writes beside the training log; {_REMEDY} (there is "
            "--tensorboard)."
        )


def check_inherited_settings(config: TrainingConfig) -> None:
    """Check a file that the checkpoint chose, not the person who resumes: it must name no place to swap to.

    Raises:
        UserError: when it does.
    """
    file = DeepSpeedFile.read(config.deepspeed_config)
    for part in _OFFLOADED:
        if file.section(_ZERO, part).get("nvme_path") is not None:
            raise UserError(
                f"The resumed run's {config.deepspeed_config} swaps to the nvme_path of its {part}, and a place to "
                "write to is not taken over; give --deepspeed-config again."
            )


def snapshot_obstacle(settings: Mapping[str, Any]) -> str | None:
    """Why the training state cannot be copied in memory and brought back exactly; None when it can."""
    zero = settings[_ZERO]
    for part in _OFFLOADED:
        device = zero.get(part, {}).get("device", "none")
        if device == "nvme" or (device != "none" and zero["stage"] == 3):
            return f"deepspeed_{part}_{device}"
    secondary = ("zero_hpz_partition_size", "mics_shard_size")
    quantized = ("zero_quantized_weights", "zero_quantized_nontrainable_weights", "zenflow")
    found = [key for key in secondary if zero.get(key, 0) > 1] + [key for key in quantized if zero.get(key)]
    return f"deepspeed_{found[0]}" if found else None


def check_same_engine(config: TrainingConfig, saved_stage: int, checkpoint: Path) -> None:
    """Check that a checkpoint saved under ZeRO stage `saved_stage` (0: without DeepSpeed) is resumed the same way.

    Raises:
        UserError: when it is not: what the stages save of the optimizer cannot be read by one another.
    """
    stage = zero_stage(config)
    if stage == saved_stage:
        return
    as_saved = f"--zero-stage zero{saved_stage}" if saved_stage else "--zero-stage none and no --deepspeed-config"
    saved = f"under ZeRO stage {saved_stage}" if saved_stage else "without DeepSpeed"
    now = f"under stage {stage}" if stage else "without DeepSpeed"
    raise UserError(
        f"{checkpoint} was saved {saved} and cannot be resumed {now}; resume it with {as_saved}, or begin another "
        f"brain from its weights with --student-init {checkpoint}."
    )


def _asked_for(config: TrainingConfig) -> str:
    return f"--zero-stage {config.zero_stage}" if config.zero_stage != "none" else "--deepspeed-config"
