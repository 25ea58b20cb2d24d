"""Everything one training run can be told, in one dataclass: the only source of defaults for CLI and GUI."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

from aios.auto_lr.adaptive_lr import DEFAULT_LR
from aios.auto_lr.anneal import DEFAULT_FRACTION
from aios.auto_lr.plan import WARMUP_FRACTION, OnOverfit
from aios.core.architecture import PRESETS, Architecture
from aios.data.decoding import UTF_8, known_encoding
from aios.file_names import LOG_FILE, STOP_FILE
from aios.runs.stop_file import StopFile
from aios.settings.config_checks import check_config
from aios.settings.flag_values import flag_name

DATA = "Data"
LEARNING_RATE = "Learning rate"
SCHEDULE = "Schedule"
MODEL = "Model"
OPTIMIZER = "Optimizer"
SAVING = "Saving"
HARDWARE = "Hardware"
WORKERS = "Several workers"
PANELS = (DATA, LEARNING_RATE, SCHEDULE, MODEL, OPTIMIZER, SAVING, HARDWARE, WORKERS)
"""The groups of settings, in the order in which they are shown."""


def _flag(
    default: Any, panel: str, text: str, value: str | None = None, on_off: bool = True, main: bool = False
) -> Any:
    """A dataclass field that is also a command-line flag: its default, help panel and help text.

    `value` is the help's word for what it takes, where the type does not say it. `on_off` is False for a plain switch,
    which has no `--no-...` form. `main` settings are shown at first, in `--help` and in the window; the others on
    demand.
    """
    metadata = {"panel": panel, "help": text, "value": value, "on_off": on_off, "main": main}
    return field(default=default, metadata=metadata)


Device = Literal["auto", "cpu", "cuda", "mps"]
"""Where to compute; `auto`: on the best there is."""
_PATHS = ("FILE", "FOLDER")
"""The words for what takes a path."""
UNSEARCHED_LR = 1e-3
"""Where a new model begins under profile `auto` if nothing is given and nothing found, as in runs too short for it."""


@dataclass(frozen=True)
class TrainingConfig:
    """One run of `aios hrm-hf train`. Each field is the flag of the same name; None means "derive it".

    Raises:
        UserError: on construction, when a value cannot be trained with; names the flag, the value and the remedy.
    """

    dataset_file: str | None = _flag(
        None,
        DATA,
        "Text or .jsonl, also as .gz or .zst, .parquet, a folder of them, or one of datasets.save_to_disk. Rows hold "
        "`text`, or `prompt` and `completion`, or `messages`. Default: the bundled text.",
        value="FILE",
        main=True,
    )
    encoding: str = _flag(
        UTF_8,
        DATA,
        "Encoding of text files that are not UTF-8, such as latin-1, cp1252 or utf-16; rows are UTF-8.",
        value="NAME",
    )
    model: str | None = _flag(
        None, DATA, "Tokenizer: a folder or a name for transformers. Default: the bundled one.", value="NAME"
    )
    max_seq_len: int = _flag(128, DATA, "Tokens per sequence.")
    eval_file: str | None = _flag(
        None, DATA, "Text to evaluate on. Default: a held-out tail of the data.", value="FILE"
    )

    auto_adjust_lr: bool = _flag(True, LEARNING_RATE, "Adjust the learning rate from the training loss.", main=True)
    lr: float | None = _flag(
        None,
        LEARNING_RATE,
        "Where the learning rate starts if no search finds it; fixed with --no-auto-adjust-lr. Default "
        f"{UNSEARCHED_LR:g} for a new model under profile auto, else {DEFAULT_LR:g}.",
        main=True,
    )
    adaptive_lr_profile: Literal["auto", "rules"] = _flag(
        "auto", LEARNING_RATE, "auto: search, noise-aware rules, trouble ladder, anneal. rules: the plain rules."
    )
    warmup_steps: int | None = _flag(
        None,
        LEARNING_RATE,
        f"Optimizer steps of linear warm-up. Default {100 * WARMUP_FRACTION:g} % of --steps (auto) or 10 %.",
    )
    anneal_fraction: float | None = _flag(
        None,
        LEARNING_RATE,
        f"Last part of the run in which the LR goes to zero. Default {DEFAULT_FRACTION:g} (auto) or 0 (rules).",
    )
    role_lr: bool = _flag(
        True,
        LEARNING_RATE,
        "A rate of its own for what is applied many times over: a new model's blocks (profile auto, not DeepSpeed).",
    )
    on_overfit: OnOverfit = _flag(
        "finish",
        LEARNING_RATE,
        "When the evaluation loss has turned up. finish: back to the best state, a short anneal, the end (profile auto "
        "of one model; else as keep-best). keep-best: train on; the best brain is kept in best/ and published at the "
        "end. ignore: keep and publish the newest only.",
    )
    adaptive_lr_config: str | None = _flag(
        None, LEARNING_RATE, "Adaptive-LR settings file (.toml, .yaml, .json).", value="FILE"
    )
    adaptive_lr_reset_state: bool = _flag(
        False, LEARNING_RATE, "On --resume, start the adaptive LR afresh instead of where it was.", on_off=False
    )

    steps: int = _flag(600, SCHEDULE, "Total optimizer steps of the run; --resume continues up to it.", main=True)
    batch_size: int = _flag(8, SCHEDULE, "Sequences per worker and micro-batch.", main=True)
    gradient_accumulation_steps: int = _flag(1, SCHEDULE, "Micro-batches per optimizer step.")
    eval_every: int = _flag(100, SCHEDULE, "Optimizer steps between evaluations; 0: only at the end.")
    eval_batches: int = _flag(16, SCHEDULE, "Batches per evaluation.")
    sample_every: int = _flag(
        0, SCHEDULE, "Optimizer steps between samples, a few words the model goes on with, in the log; 0: none."
    )
    seed: int = _flag(0, SCHEDULE, "Seed of the initial weights and the data order.")

    preset: Literal["tiny", "small", "base"] = _flag(
        "tiny", MODEL, "Model size; other settings of the model override parts.", main=True
    )
    hidden_size: int | None = _flag(None, MODEL, "Width of the model. Default: the preset's.")
    h_layers: int | None = _flag(None, MODEL, "Blocks in the slow (H) stack. Default: the preset's.")
    l_layers: int | None = _flag(None, MODEL, "Blocks in the fast (L) stack. Default: the preset's.")
    h_cycles: int | None = _flag(None, MODEL, "H updates per segment. Default: the preset's.")
    l_cycles: int | None = _flag(None, MODEL, "L updates per H update. Default: the preset's.")
    num_heads: int | None = _flag(None, MODEL, "Attention heads; must divide the width. Default: the preset's.")
    expansion: float | None = _flag(None, MODEL, "SwiGLU expansion. Default: the preset's.")
    halt_max_steps: int | None = _flag(None, MODEL, "ACT segments at most. Default: the preset's.")
    eval_segments: int | None = _flag(
        None,
        MODEL,
        "ACT segments at most in evaluation and answers. Default: the brain's, else as in training.",
    )
    halting: bool | None = _flag(
        None,
        MODEL,
        "Tokens halt once the model says so; else all segments are run. Default: the brain's, else on.",
    )
    last_cycle_gradient: bool | None = _flag(
        None,
        MODEL,
        "Differentiate all L updates of a segment's last cycle (TRM), not the last one alone (HRM). Default: the "
        "brain's, else off.",
    )
    shared_stack: bool = _flag(False, MODEL, "One stack of blocks for H and L updates (TRM).")
    corrected_init: bool = _flag(
        False, MODEL, "Draw a new model's weights as wide as the paper's reference does: 1.14 times as wide as else."
    )
    use_moe: bool = _flag(False, MODEL, "Sparse mixture of experts in place of the MLPs.", main=True)
    num_experts: int = _flag(4, MODEL, "Experts per MoE layer.")
    num_experts_per_tok: int = _flag(2, MODEL, "Experts each token is routed to.")
    student_init: str | None = _flag(None, MODEL, "Continue from the weights of this brain folder.", value="FOLDER")
    use_peft: bool = _flag(False, MODEL, "Train LoRA adapters beside the frozen weights of --student-init (peft).")
    lora_rank: int = _flag(8, MODEL, "Rank of the LoRA adapters.")
    lora_alpha: int = _flag(16, MODEL, "Scale of the LoRA adapters: what they add is multiplied by alpha / rank.")

    optimizer: Literal["adamw", "muon"] = _flag(
        "adamw", OPTIMIZER, "muon: Muon for the matrices within the blocks, AdamW for the rest."
    )
    weight_decay: float = _flag(0.1, OPTIMIZER, "Decoupled weight decay of the weight matrices.")
    max_grad_norm: float = _flag(1.0, OPTIMIZER, "Clip the gradient to this global L2 norm.")
    update_per_segment: bool = _flag(
        False,
        OPTIMIZER,
        "An update after each ACT segment, as in the HRM paper, not after all of them: a step then makes as many, at "
        "one learning rate.",
    )
    ema: float = _flag(
        0.0,
        OPTIMIZER,
        "Decay of an average of the weights over the updates (such as 0.999), which is evaluated and published in "
        "their place; 0: none.",
    )

    brain_name: str = _flag(
        "default", SAVING, "Name of this brain: its folder under --bundle-dir.", value="NAME", main=True
    )
    bundle_dir: str = _flag("artifacts/brains/actv1", SAVING, "Folder that holds the brains.", value="FOLDER")
    resume: bool = _flag(
        False,
        SAVING,
        "Continue the brain's newest valid checkpoint; flags not given keep that run's values.",
        on_off=False,
        main=True,
    )
    save_every: int = _flag(
        200, SAVING, "Optimizer steps between checkpoints; 0: only at the end. Independent workers save at each merge."
    )
    keep_checkpoints: int = _flag(3, SAVING, "Newest checkpoints to keep.")
    log_file: str | None = _flag(
        None, SAVING, "Training log. Default: metrics.jsonl in the brain's folder.", value="FILE"
    )
    tensorboard: str | None = _flag(
        None,
        SAVING,
        "Also write the log for TensorBoard into this folder (needs the package tensorboard).",
        value="FOLDER",
    )
    stop_file: str | None = _flag(
        None,
        SAVING,
        "The run saves and stops when this file appears. Default: STOP in the brain's folder.",
        value="FILE",
    )

    device: Device = _flag("auto", HARDWARE, "Where to train.", main=True)
    cuda_ids: str | None = _flag(None, HARDWARE, "CUDA device numbers, comma separated.", value="NUMBERS")
    amp: bool | None = _flag(None, HARDWARE, "Mixed precision (autocast). Default: on for CUDA.")
    model_dtype: Literal["fp32", "bf16", "fp16"] = _flag(
        "fp32", HARDWARE, "Weights' type; fp16 keeps fp32 weights and computes in fp16 with loss scaling."
    )
    gradient_checkpointing: bool = _flag(False, HARDWARE, "Recompute activations in backward: less memory, slower.")
    compile: bool = _flag(
        False, HARDWARE, "Compile the model's blocks for training (torch.compile): slow to start, then usually faster."
    )
    backward_per_segment: bool | None = _flag(
        None,
        HARDWARE,
        "A backward pass after each ACT segment: the activations of one segment in memory instead of all; same "
        "gradient, a little slower. Default: on with 3 or more segments. Not with DeepSpeed.",
    )

    ddp: bool = _flag(False, WORKERS, "Several workers that share one model, each with a batch of its own.")
    parallel_independent: bool = _flag(
        False, WORKERS, "Several workers with weights of their own, merged now and then."
    )
    world_size: int | None = _flag(
        None, WORKERS, "Number of workers. Default: one per CUDA device, or as torchrun started them."
    )
    max_restarts: int = _flag(3, WORKERS, "How often lost workers are started again from the newest checkpoint.")
    merge_every: int = _flag(100, WORKERS, "Optimizer steps between merges of independent workers.")
    merge_timeout: int = _flag(
        600,
        WORKERS,
        "Seconds without a step after which an independent worker counts as hung and is replaced; how long workers of "
        "one model wait for each other at a step.",
    )
    zero_stage: Literal["none", "zero1", "zero2", "zero3"] = _flag(
        "none", WORKERS, "DeepSpeed ZeRO stage: what the workers of one model split among them."
    )
    deepspeed_config: str | None = _flag(None, WORKERS, "DeepSpeed settings file (JSON).", value="FILE")

    def __post_init__(self) -> None:
        check_config(self, field_types())
        for name in path_fields():
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, os.path.expanduser(path))  # text: an empty one is to be refused as such

    @property
    def text_encoding(self) -> str:
        """The encoding of the text files, as Python names it, whatever it was called."""
        return known_encoding(self.encoding) or self.encoding

    @property
    def cuda_numbers(self) -> tuple[int, ...]:
        """The CUDA devices named; empty when any will do."""
        return tuple(int(i) for i in self.cuda_ids.split(",")) if self.cuda_ids is not None else ()

    def autocasts(self, kind: str) -> bool:
        """Whether a run on a device of that kind (cpu, cuda or mps) computes in 16 bits beside its weights' type."""
        return self.model_dtype == "fp16" or (kind == "cuda" if self.amp is None else self.amp)

    def sequences_per_step(self, workers: int) -> int:
        """Sequences that so many workers together read for one optimizer step."""
        return self.batch_size * self.gradient_accumulation_steps * workers

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
        return Path(self.log_file) if self.log_file else self.brain_dir / LOG_FILE

    @property
    def stop_path(self) -> Path:
        """The file whose appearance asks the run to save and stop."""
        return Path(self.stop_file) if self.stop_file else self.brain_dir / STOP_FILE

    @property
    def watched_stop_file(self) -> StopFile:
        """The same, with the right to remove it."""
        return StopFile(self.stop_path, ours=not self.stop_file)

    @property
    def start_lr(self) -> float:
        """The rate a run's optimizer is built with: where it trains from if no search finds one."""
        if self.lr is not None:
            return self.lr
        new = self.auto_adjust_lr and self.adaptive_lr_profile == "auto" and self.student_init is None
        return UNSEARCHED_LR if new else DEFAULT_LR

    @property
    def architecture(self) -> Architecture:
        """The preset with this config's overrides."""
        overrides = {
            f.name: value
            for f in dataclasses.fields(Architecture)
            if (value := getattr(self, f.name, None)) is not None
        }
        return dataclasses.replace(PRESETS[self.preset], **overrides)

    def differentiates_segments(self, segments: int) -> bool:
        """Whether each ACT segment is differentiated separately (default from 3 segments)."""
        if self.uses_deepspeed or self.update_per_segment:
            return self.update_per_segment
        return segments >= 3 if self.backward_per_segment is None else self.backward_per_segment

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


@functools.cache
def path_fields() -> Mapping[str, Literal["FILE", "FOLDER"]]:
    """The fields that are paths, and whether of a file or of a folder; the tokenizer may be a folder's, too."""
    return {f.name: f.metadata["value"] for f in dataclasses.fields(TrainingConfig) if f.metadata["value"] in _PATHS}


def _field_args(f: dataclasses.Field[Any], value: Any) -> list[str]:
    if value == f.default:
        return []
    if isinstance(value, bool):
        return [flag_name(f.name) if value else "--no-" + flag_name(f.name)[2:]]
    # One argument, so that a value that begins with a dash is not taken for a flag.
    return [f"{flag_name(f.name)}={value!r}" if isinstance(value, float) else f"{flag_name(f.name)}={value}"]
