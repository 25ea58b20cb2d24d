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
from aios.settings.settings_file import parse_json, read_small_file

STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}
"""What the workers split among them: optimizer state; and gradients; and weights (Rajbhandari et al. 2020)."""
SCHEDULERS = ("LRRangeTest", "OneCycle", "WarmupLR", "WarmupDecayLR", "WarmupCosineLR")
"""DeepSpeed's own."""
AUTO = "auto"
"""What files written for other trainers say for "as the trainer has it"."""

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
    asked = read_settings(config.deepspeed_config)
    decided = {
        "train_micro_batch_size_per_gpu": (config.batch_size, "--batch-size"),
        "gradient_accumulation_steps": (config.gradient_accumulation_steps, "--gradient-accumulation-steps"),
        "gradient_clipping": (config.max_grad_norm, "--max-grad-norm"),
    }
    if world_size is not None:
        names = "--batch-size x --gradient-accumulation-steps x the number of workers"
        decided["train_batch_size"] = (config.sequences_per_step(world_size), names)
    _check_file(config, asked, decided)
    zero = {**_section(asked, "zero_optimization", config), "stage": zero_stage(config)}
    for part in ("offload_param", "offload_optimizer"):
        _section(zero, part, config)
    return {
        # Its default would refuse torch's AdamW beside an offloaded optimizer.
        "zero_force_ds_cpu_optimizer": False,
        **{key: value for key, value in asked.items() if key != "optimizer"},
        **{key: value for key, (value, _) in decided.items()},
        "zero_optimization": zero,
    }


def _check_file(config: TrainingConfig, asked: Mapping[str, Any], decided: Mapping[str, tuple[Any, str]]) -> None:
    """Refuse a file that contradicts the flags (`decided`: value and flag by key) or asks for what is not done."""
    for key, (value, flag) in decided.items():
        if key in asked and asked[key] != value:
            raise UserError(
                f"{config.deepspeed_config} sets {key} to {shown(asked[key])}, but {flag} is {value}; change one, or "
                f"{_REMEDY}."
            )
    _check_number_types(config, asked)
    _check_writers(config, asked)
    if _section(asked, "checkpoint", config).get("load_universal"):
        raise UserError(
            f"{config.deepspeed_config} asks for a universal checkpoint, which DeepSpeed reads in a way that can run "
            f"code from it; {_REMEDY}."
        )
    optimizer_settings(config)
    has_scheduler(config)


def read_settings(path: str | None) -> dict[str, Any]:
    """The user's file without its "auto" entries; {} where there is none.

    Raises:
        UserError: when it cannot be read as a JSON object.
    """
    if path is None:
        return {}
    try:
        settings = parse_json(read_small_file(Path(path)).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"--deepspeed-config {path} is no valid JSON ({error}); correct it.") from error
    if not isinstance(settings, dict):
        raise UserError(f"--deepspeed-config {path} holds a {type(settings).__name__}; it must hold a JSON object.")
    cleaned: dict[str, Any] = _without_auto(settings)
    return cleaned


def zero_stage(config: TrainingConfig) -> int:
    """The ZeRO stage, 1 to 3, that flag and file agree on; 0 for a run without DeepSpeed.

    Raises:
        UserError: when they contradict each other, or neither names one.
    """
    if not config.uses_deepspeed:
        return 0
    flag = STAGES.get(config.zero_stage)
    in_file = _section(read_settings(config.deepspeed_config), "zero_optimization", config).get("stage")
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


def has_scheduler(config: TrainingConfig) -> bool:
    """Whether the user's file brings a learning-rate scheduler of DeepSpeed's, which then decides alone.

    Raises:
        UserError: when DeepSpeed has no such scheduler.
    """
    kind = _section(read_settings(config.deepspeed_config), "scheduler", config).get("type")
    if kind is not None and kind not in SCHEDULERS:  # those of torch do not take ZeRO's optimizer
        raise UserError(
            f"{config.deepspeed_config} asks for the scheduler {shown(kind)}; choose one of {', '.join(SCHEDULERS)}, "
            f"or {_REMEDY} and let the adaptive learning rate decide."
        )
    return kind is not None


def optimizer_settings(config: TrainingConfig) -> dict[str, Any]:
    """What the file's `optimizer` section says about AdamW: any of lr, betas, eps, weight_decay.

    Raises:
        UserError: for another optimizer, a parameter AdamW does not take, or an LR that contradicts --lr.
    """
    asked = read_settings(config.deepspeed_config)
    section = _section(asked, "optimizer", config)
    kind, parameters = section.get("type", "AdamW"), _section(section, "params", config)
    # DeepSpeed's Adam decouples weight decay, that is, is AdamW, unless told otherwise.
    unsuited = kind not in _OPTIMIZERS or parameters.pop("adam_w_mode", True) is not True
    parameters.pop("torch_adam", None)
    unknown = sorted(set(parameters) - {"lr", "betas", "eps", "weight_decay"})
    if unsuited or unknown:
        what = f"the optimizer parameter {shown(unknown[0])}" if unknown else f"optimizer {shown(kind)}"
        raise UserError(f"{config.deepspeed_config} asks for {what}, but training uses AdamW; {_REMEDY}.")
    if config.lr is not None and parameters.get("lr", config.lr) != config.lr:
        raise UserError(
            f"{config.deepspeed_config} sets the optimizer's lr to {shown(parameters['lr'])}, but --lr is {config.lr}; "
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


def _check_number_types(config: TrainingConfig, asked: Mapping[str, Any]) -> None:
    """Refuse a file that turns on another type than the flags do; the engine turns on what they say."""
    for section, flag in (("bf16", "--model-dtype bf16"), ("fp16", "--model-dtype fp16"), ("torch_autocast", "--amp")):
        turned_on = _section(asked, section, config).get("enabled", False)
        wanted = config.amp is True if section == "torch_autocast" else config.model_dtype == section
        if turned_on and not wanted:
            raise UserError(f"{config.deepspeed_config} turns {section} on; give {flag} instead, or {_REMEDY}.")


def _check_writers(config: TrainingConfig, asked: Mapping[str, Any]) -> None:
    """Refuse a file that has DeepSpeed write logs of its own: where a run writes is for the flags to say."""
    found = [name for name in _WRITERS if _section(asked, name, config).get("enabled", False) is not False]
    if _section(asked, "flops_profiler", config).get("output_file") is not None:
        found.append("flops_profiler's output_file")
    if found:
        raise UserError(
            f"{config.deepspeed_config} asks for {found[0]}, which writes beside the training log; {_REMEDY} (there is "
            "--tensorboard)."
        )


def check_inherited_settings(config: TrainingConfig) -> None:
    """Check a file that the checkpoint chose, not the person who resumes: it must name no place to swap to.

    Raises:
        UserError: when it does.
    """
    zero = _section(read_settings(config.deepspeed_config), "zero_optimization", config)
    for part in ("offload_param", "offload_optimizer"):
        if _section(zero, part, config).get("nvme_path") is not None:
            raise UserError(
                f"The resumed run's {config.deepspeed_config} swaps to the nvme_path of its {part}, and a place to "
                "write to is not taken over; give --deepspeed-config again."
            )


def snapshot_obstacle(settings: Mapping[str, Any]) -> str | None:
    """Why the training state cannot be copied in memory and brought back exactly; None when it can."""
    zero = settings["zero_optimization"]
    for part in ("offload_param", "offload_optimizer"):
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


def _section(settings: Mapping[str, Any], name: str, config: TrainingConfig) -> dict[str, Any]:
    section = settings.get(name) or {}
    if not isinstance(section, dict):
        raise UserError(f"{config.deepspeed_config} sets {name} to {shown(section)}; it must be a JSON object.")
    return section


def _without_auto(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_auto(v) for key, v in value.items() if v != AUTO}
