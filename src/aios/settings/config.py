"""Everything one training run can be told, in one dataclass: the only source of defaults for CLI and GUI."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

from aios.auto_lr.adaptive_lr import DEFAULT_LR
from aios.core.architecture import PRESETS, Architecture
from aios.errors import UserError, shown
from aios.runs.brain_name import why_not_a_name
from aios.runs.stop_file import StopFile
from aios.settings.flag_values import flag_name, is_utf8, require

LEARNING_RATE = "Learning rate"
DATA = "Data"
SCHEDULE = "Schedule"
MODEL = "Model"
MEMORY = "Memory and precision"
DEVICES = "Devices"
OUTPUT = "Output"

LONGEST_WAIT = 86400
"""Seconds that workers can be told to wait for each other at most: a day."""


def _flag(default: Any, panel: str, text: str, on_off: bool = True) -> Any:
    """A dataclass field that is also a command-line flag: its default, help panel and help text.

    `on_off` is False for a plain switch, which has no `--no-...` form.
    """
    return field(default=default, metadata={"panel": panel, "help": text, "on_off": on_off})


@dataclass(frozen=True)
class TrainingConfig:
    """One run of `aios hrm-hf train`. Each field is the flag of the same name; None means "derive it".

    Raises:
        UserError: on construction, when a value cannot be trained with; names the flag, the value and the remedy.
    """

    lr: float | None = _flag(
        None,
        LEARNING_RATE,
        "Where the learning rate starts if no search finds it; fixed with --no-auto-adjust-lr. Default 5e-5.",
    )
    auto_adjust_lr: bool = _flag(True, LEARNING_RATE, "Adjust the learning rate from the training loss.")
    adaptive_lr_profile: Literal["auto", "rules"] = _flag(
        "auto", LEARNING_RATE, "auto: search, noise-aware rules, trouble ladder, anneal. rules: the plain rules."
    )
    anneal_fraction: float | None = _flag(
        None, LEARNING_RATE, "Last part of the run in which the LR goes to zero. Default 0.3 (auto) or 0 (rules)."
    )
    warmup_steps: int | None = _flag(
        None, LEARNING_RATE, "Optimizer steps of linear warm-up. Default 5 % of --steps (auto) or 10 %."
    )
    adaptive_lr_config: str | None = _flag(None, LEARNING_RATE, "Adaptive-LR settings file (.toml, .yaml, .json).")
    adaptive_lr_reset_state: bool = _flag(
        False, LEARNING_RATE, "On --resume, start the adaptive LR afresh instead of where it was.", on_off=False
    )
    on_overfit: Literal["finish", "keep-best", "ignore"] = _flag(
        "finish",
        LEARNING_RATE,
        "When the evaluation loss has turned up. finish: back to the best state, a short anneal, the end (profile auto "
        "of one model; else as keep-best). keep-best: train on; the best brain is kept in best/ and published at the "
        "end. ignore: keep and publish the newest only.",
    )

    dataset_file: str | None = _flag(
        None,
        DATA,
        "Text or .jsonl, also as .gz or .zst, .parquet, a folder of them, or one of datasets.save_to_disk. Rows hold "
        "`text`, or `prompt` and `completion`, or `messages`. Default: the bundled text.",
    )
    model: str | None = _flag(None, DATA, "Tokenizer: a folder or a name for transformers. Default: the bundled one.")
    max_seq_len: int = _flag(128, DATA, "Tokens per sequence.")
    eval_file: str | None = _flag(None, DATA, "Text to evaluate on. Default: a held-out tail of the data.")
    eval_every: int = _flag(100, DATA, "Optimizer steps between evaluations; 0: only at the end.")
    eval_batches: int = _flag(16, DATA, "Batches per evaluation.")

    steps: int = _flag(600, SCHEDULE, "Total optimizer steps of the run; --resume continues up to it.")
    batch_size: int = _flag(8, SCHEDULE, "Sequences per worker and micro-batch.")
    gradient_accumulation_steps: int = _flag(1, SCHEDULE, "Micro-batches per optimizer step.")
    seed: int = _flag(0, SCHEDULE, "Seed of the initial weights and the data order.")
    optimizer: Literal["adamw", "muon"] = _flag(
        "adamw", SCHEDULE, "muon: Muon for the matrices within the blocks, AdamW for the rest."
    )
    weight_decay: float = _flag(0.1, SCHEDULE, "Decoupled weight decay of the weight matrices.")
    max_grad_norm: float = _flag(1.0, SCHEDULE, "Clip the gradient to this global L2 norm.")

    preset: Literal["tiny", "small", "base"] = _flag("tiny", MODEL, "Model size; the flags below override parts.")
    hidden_size: int | None = _flag(None, MODEL, "Width of the model. Default: the preset's.")
    h_layers: int | None = _flag(None, MODEL, "Blocks in the slow (H) stack. Default: the preset's.")
    l_layers: int | None = _flag(None, MODEL, "Blocks in the fast (L) stack. Default: the preset's.")
    h_cycles: int | None = _flag(None, MODEL, "H updates per segment. Default: the preset's.")
    l_cycles: int | None = _flag(None, MODEL, "L updates per H update. Default: the preset's.")
    num_heads: int | None = _flag(None, MODEL, "Attention heads; must divide the width. Default: the preset's.")
    expansion: float | None = _flag(None, MODEL, "SwiGLU expansion. Default: the preset's.")
    halt_max_steps: int | None = _flag(None, MODEL, "ACT segments at most. Default: the preset's.")
    use_moe: bool = _flag(False, MODEL, "Sparse mixture of experts in place of the MLPs.")
    num_experts: int = _flag(4, MODEL, "Experts per MoE layer.")
    num_experts_per_tok: int = _flag(2, MODEL, "Experts each token is routed to.")
    student_init: str | None = _flag(None, MODEL, "Continue from the weights of this brain folder.")
    use_peft: bool = _flag(False, MODEL, "Train LoRA adapters beside the frozen weights of --student-init (peft).")
    lora_rank: int = _flag(8, MODEL, "Rank of the LoRA adapters.")
    lora_alpha: int = _flag(16, MODEL, "Scale of the LoRA adapters: what they add is multiplied by alpha / rank.")

    amp: bool | None = _flag(None, MEMORY, "Mixed precision (autocast). Default: on for CUDA.")
    model_dtype: Literal["fp32", "bf16", "fp16"] = _flag(
        "fp32", MEMORY, "Weights' type; fp16 keeps fp32 weights and computes in fp16 with loss scaling."
    )
    gradient_checkpointing: bool = _flag(False, MEMORY, "Recompute activations in backward: less memory, slower.")

    device: Literal["auto", "cpu", "cuda", "mps"] = _flag("auto", DEVICES, "Where to train.")
    cuda_ids: str | None = _flag(None, DEVICES, "CUDA device numbers, comma separated.")
    ddp: bool = _flag(False, DEVICES, "Several workers that share one model, each with a batch of its own.")
    world_size: int | None = _flag(
        None, DEVICES, "Number of workers. Default: one per CUDA device, or as torchrun started them."
    )
    max_restarts: int = _flag(3, DEVICES, "How often lost workers are started again from the newest checkpoint.")
    parallel_independent: bool = _flag(
        False, DEVICES, "Several workers with weights of their own, merged now and then."
    )
    merge_every: int = _flag(100, DEVICES, "Optimizer steps between merges of independent workers.")
    merge_timeout: int = _flag(
        600,
        DEVICES,
        "Seconds without a step after which an independent worker counts as hung and is replaced; how long workers of "
        "one model wait for each other at a step.",
    )
    zero_stage: Literal["none", "zero1", "zero2", "zero3"] = _flag(
        "none", DEVICES, "DeepSpeed ZeRO stage: what the workers of one model split among them."
    )
    deepspeed_config: str | None = _flag(None, DEVICES, "DeepSpeed settings file (JSON).")

    bundle_dir: str = _flag("artifacts/brains/actv1", OUTPUT, "Folder that holds the brains.")
    brain_name: str = _flag("default", OUTPUT, "Name of this brain: its folder under --bundle-dir.")
    log_file: str | None = _flag(None, OUTPUT, "Training log. Default: metrics.jsonl in the brain's folder.")
    tensorboard: str | None = _flag(
        None, OUTPUT, "Also write the log for TensorBoard into this folder (needs the package tensorboard)."
    )
    save_every: int = _flag(
        200, OUTPUT, "Optimizer steps between checkpoints; 0: only at the end. Independent workers save at each merge."
    )
    keep_checkpoints: int = _flag(3, OUTPUT, "Newest checkpoints to keep.")
    resume: bool = _flag(
        False, OUTPUT, "Continue the brain's newest valid checkpoint; flags not given keep that run's values.", False
    )
    stop_file: str | None = _flag(
        None, OUTPUT, "The run saves and stops when this file appears. Default: STOP in the brain's folder."
    )

    def __post_init__(self) -> None:
        _check_types(self)
        _check_numbers(self)
        _check_model(self)
        _check_optimizer(self)
        _check_devices(self)
        _check_output(self)

    @property
    def cuda_numbers(self) -> tuple[int, ...]:
        """The CUDA devices named; empty when any will do."""
        return tuple(int(i) for i in self.cuda_ids.split(",")) if self.cuda_ids is not None else ()

    @property
    def uses_deepspeed(self) -> bool:
        """Whether DeepSpeed's engine does the training."""
        return self.zero_stage != "none" or self.deepspeed_config is not None

    @property
    def shares_weights(self) -> bool:
        """Whether the workers train one model together, so that all of them must decide alike."""
        return self.ddp or self.uses_deepspeed

    @property
    def several_workers(self) -> bool:
        """Whether the run is one that workers of their own processes do."""
        return self.shares_weights or self.parallel_independent

    @property
    def brain_dir(self) -> Path:
        """Folder of this brain."""
        return Path(self.bundle_dir) / self.brain_name

    @property
    def log_path(self) -> Path:
        """The training log (JSON lines)."""
        return Path(self.log_file) if self.log_file else self.brain_dir / "metrics.jsonl"

    @property
    def stop_path(self) -> Path:
        """The file whose appearance asks the run to save and stop."""
        return Path(self.stop_file) if self.stop_file else self.brain_dir / "STOP"

    @property
    def stop_request(self) -> StopFile:
        """The same, with the right to remove it."""
        return StopFile(self.stop_path, ours=not self.stop_file)

    @property
    def architecture(self) -> Architecture:
        """The preset with this config's overrides."""
        overrides = {
            f.name: value
            for f in dataclasses.fields(Architecture)
            if (value := getattr(self, f.name, None)) is not None
        }
        return dataclasses.replace(PRESETS[self.preset], **overrides)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name, as logged and stored in checkpoints."""
        return dataclasses.asdict(self)

    def to_cli_args(self) -> list[str]:
        """The shortest command-line arguments that give this config."""
        return [arg for f in dataclasses.fields(self) for arg in _field_args(f, getattr(self, f.name))]


@functools.cache
def field_types() -> dict[str, Any]:
    """The resolved type of each field of `TrainingConfig`, by name."""
    return {name: kind for name, kind in get_type_hints(TrainingConfig).items() if not name.isupper()}


def _field_args(f: dataclasses.Field[Any], value: Any) -> list[str]:
    if value == f.default:
        return []
    if isinstance(value, bool):
        return [flag_name(f.name) if value else "--no-" + flag_name(f.name)[2:]]
    # One argument, so that a value that begins with a dash is not taken for a flag.
    return [f"{flag_name(f.name)}={value!r}" if isinstance(value, float) else f"{flag_name(f.name)}={value}"]


def allowed_types(kind: Any) -> tuple[tuple[type, ...], tuple[Any, ...]]:
    """(plain types, literal values) that a field of type `kind` takes."""
    arms = getattr(kind, "__args__", (kind,))
    if getattr(kind, "__origin__", None) is Literal:
        return (), arms
    return tuple(arms), ()


def _check_types(config: TrainingConfig) -> None:
    for name, kind in field_types().items():
        value = getattr(config, name)
        types, literals = allowed_types(kind)
        if literals and value not in literals:
            raise UserError(f"{flag_name(name)} is {shown(value)}; choose one of {', '.join(map(str, literals))}.")
        number_as_float = float in types and isinstance(value, int) and not isinstance(value, bool)
        wrong_bool = isinstance(value, bool) and bool not in types
        if types and not number_as_float and (wrong_bool or not isinstance(value, types)):
            wanted = " or ".join(t.__name__ for t in types if t is not type(None))
            raise UserError(f"{flag_name(name)} is {shown(value)}, but it takes a value of type {wanted}.")
        if isinstance(value, str) and not _is_clean(value):
            raise UserError(
                f"{flag_name(name)} {shown(value)} holds a NUL character or bytes that are no UTF-8; rename it."
            )


def _is_clean(text: str) -> bool:
    """Whether a text can be the name of a file, and be written into a log."""
    return "\0" not in text and is_utf8(text)


_AT_LEAST_ONE = ("steps", "batch_size", "gradient_accumulation_steps", "eval_batches", "keep_checkpoints")
_AT_LEAST_ZERO = ("eval_every", "save_every", "seed")


LARGEST_NUMBER = 2**53
"""Largest whole number of a setting: beyond it steps can no longer be counted in floating point."""
LARGEST_SEED = 2**63 - 1
"""Largest that every random generator in use takes."""
LR_RANGE = (1e-30, 1e3)
"""A step of AdamW moves a weight by up to the learning rate: outside, fp32 weights stay as they are or are lost."""
LARGEST_EXPANSION = 1_000_000
"""Largest SwiGLU expansion; far below it every width is too large for any memory."""


def _check_numbers(config: TrainingConfig) -> None:
    for name in field_types():
        value = getattr(config, name)
        if isinstance(value, int) and not isinstance(value, bool):
            most, written = (LARGEST_SEED, "2^63 - 1") if name == "seed" else (LARGEST_NUMBER, "2^53")
            require(value <= most, name, value, f"at most {written} = {most}")
    for name in _AT_LEAST_ONE:
        require(getattr(config, name) >= 1, name, getattr(config, name), "at least 1")
    for name in _AT_LEAST_ZERO:
        require(getattr(config, name) >= 0, name, getattr(config, name), "0 or more")
    require(config.max_seq_len >= 2, "max_seq_len", config.max_seq_len, "at least 2 tokens")
    if config.lr is not None:
        require(config.lr > 0, "lr", config.lr, "a positive number, for example 1e-3")
        require(
            LR_RANGE[0] <= config.lr <= LR_RANGE[1], "lr", config.lr, f"between {LR_RANGE[0]:g} and {LR_RANGE[1]:g}"
        )
    _check_weight_decay(config)
    require(0 < config.max_grad_norm < math.inf, "max_grad_norm", config.max_grad_norm, "a positive number")
    if config.anneal_fraction is not None:
        require(0 <= config.anneal_fraction <= 1, "anneal_fraction", config.anneal_fraction, "between 0 and 1")
    if config.warmup_steps is not None:
        require(config.warmup_steps >= 0, "warmup_steps", config.warmup_steps, "0 or more")
        if config.warmup_steps > config.steps:
            raise UserError(
                f"--warmup-steps is {config.warmup_steps}, longer than the run of {config.steps} steps; "
                "give fewer warm-up steps or a larger --steps."
            )


def _check_weight_decay(config: TrainingConfig) -> None:
    require(0 <= config.weight_decay < math.inf, "weight_decay", config.weight_decay, "0 or a positive number")
    lr = config.lr if config.lr is not None else DEFAULT_LR
    if lr * config.weight_decay >= 1:
        raise UserError(
            f"--weight-decay is {config.weight_decay}, but times the learning rate of {lr:g} it must stay below 1: "
            f"each step takes that part off every weight; give less than {1 / lr:.3g}."
        )


def _check_model(config: TrainingConfig) -> None:
    arch = config.architecture
    for name in ("hidden_size", "h_layers", "l_layers", "h_cycles", "l_cycles", "num_heads", "halt_max_steps"):
        require(getattr(arch, name) >= 1, name, getattr(arch, name), "at least 1")
    allowed = f"a positive number of at most {LARGEST_EXPANSION}"
    require(0 < arch.expansion <= LARGEST_EXPANSION, "expansion", arch.expansion, allowed)
    if arch.hidden_size % (2 * arch.num_heads):
        raise UserError(
            f"--hidden-size {arch.hidden_size} does not split into {arch.num_heads} attention heads of even width; "
            f"choose a multiple of {2 * arch.num_heads} or another --num-heads."
        )
    for name in ("num_experts", "num_experts_per_tok", "lora_rank", "lora_alpha"):
        require(getattr(config, name) >= 1, name, getattr(config, name), "at least 1")
    if config.num_experts_per_tok > config.num_experts:
        raise UserError(
            f"--num-experts-per-tok is {config.num_experts_per_tok}, more than the {config.num_experts} experts there "
            "are; lower it or raise --num-experts."
        )


def _check_optimizer(config: TrainingConfig) -> None:
    """Muon needs whole matrices, and some that it trains."""
    if config.optimizer != "muon":
        return
    for given, flag in ((config.uses_deepspeed, "--zero-stage or --deepspeed-config"), (config.use_peft, "--use-peft")):
        if given:
            raise UserError(f"--optimizer muon does not go with {flag}, which trains with AdamW alone; leave one out.")


def _check_devices(config: TrainingConfig) -> None:
    if config.model_dtype == "fp16" and config.amp is False:
        raise UserError(
            "--model-dtype fp16 computes in fp16 under mixed precision, but --no-amp turns that off; leave one out."
        )
    ids = config.cuda_ids.split(",") if config.cuda_ids is not None else []
    require(
        all(i.strip().isdecimal() and len(i) <= 6 for i in ids),
        "cuda_ids",
        config.cuda_ids,
        "device numbers such as 0 or 0,1",
    )
    if config.world_size is not None:
        require(config.world_size >= 1, "world_size", config.world_size, "at least 1")
    require(config.merge_every >= 1, "merge_every", config.merge_every, "at least 1")
    allowed = f"between 1 and {LONGEST_WAIT} seconds"
    require(1 <= config.merge_timeout <= LONGEST_WAIT, "merge_timeout", config.merge_timeout, allowed)
    require(config.max_restarts >= 0, "max_restarts", config.max_restarts, "0 or more")
    _check_mode(config, len(set(ids)))


def _check_mode(config: TrainingConfig, devices: int) -> None:
    """Refuse flags of several ways to use several workers at once, and workers without a way."""
    if config.parallel_independent and (config.ddp or config.uses_deepspeed):
        other = "--ddp" if config.ddp else "--zero-stage and --deepspeed-config"
        raise UserError(
            f"--parallel-independent (weights of their own) and {other} (one shared model) exclude each other; "
            "leave one out."
        )
    if not config.several_workers and (devices > 1 or (config.world_size or 1) > 1):
        several = f"--cuda-ids {config.cuda_ids}" if devices > 1 else f"--world-size {config.world_size}"
        raise UserError(
            f"{several} means several workers; add --ddp (one shared model), --parallel-independent or --zero-stage."
        )


def _check_output(config: TrainingConfig) -> None:
    reason = why_not_a_name(config.brain_name)
    if reason is not None:
        raise UserError(f"--brain-name is {shown(config.brain_name)}, but it must be a plain name: {reason}.")
