"""What is refused of a run's settings by themselves and beside each other, before any file is looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aios.auto_lr.saved_state import LARGEST
from aios.core.architecture import LARGEST_EXPANSION, SIZES, flaw_of
from aios.data.decoding import known_encoding
from aios.errors import UserError, shown
from aios.runs.brain_name import why_not_a_name
from aios.settings.flag_values import allowed_types, fits, flag_name, is_utf8, nouns, require

if TYPE_CHECKING:
    from aios.settings.config import TrainingConfig

LONGEST_WAIT = 86400
"""Seconds that workers can be told to wait for each other at most: a day."""
LARGEST_SEED = 2**63 - 1
"""Largest that every random generator in use takes."""
LR_RANGE = (1e-30, 1e3)
"""A step of AdamW moves a weight by up to the learning rate: outside, fp32 weights stay as they are or are lost."""

_AT_LEAST_ONE = ("steps", "batch_size", "gradient_accumulation_steps", "eval_batches", "keep_checkpoints")
_AT_LEAST_ZERO = ("eval_every", "sample_every", "save_every", "seed")


def check_config(config: TrainingConfig, kinds: Mapping[str, Any]) -> None:
    """Refuse a config that cannot be trained with; `kinds` are the types of its fields by name.

    Raises:
        UserError: names the flag, the value and the remedy.
    """
    _check_types(config, kinds)
    _check_numbers(config, kinds)
    allowed = "an encoding of text that Python knows, such as utf-8, latin-1, cp1252 or utf-16"
    require(known_encoding(config.encoding) is not None, "encoding", config.encoding, allowed)
    _check_model(config)
    _check_optimizer(config)
    _check_devices(config)
    _check_brain_name(config)


def _check_types(config: TrainingConfig, kinds: Mapping[str, Any]) -> None:
    for name, kind in kinds.items():
        value = getattr(config, name)
        types, literals = allowed_types(kind)
        if literals and value not in literals:
            raise UserError(f"{flag_name(name)} is {shown(value)}; choose one of {', '.join(map(str, literals))}.")
        require(not types or fits(value, types), name, value, nouns(types))
        if isinstance(value, str) and not _is_clean(value):
            raise UserError(
                f"{flag_name(name)} {shown(value)} holds a NUL character or bytes that are no UTF-8; rename it."
            )


def _is_clean(text: str) -> bool:
    """Whether a text can be the name of a file, and be written into a log."""
    return "\0" not in text and is_utf8(text)


def _check_numbers(config: TrainingConfig, kinds: Mapping[str, Any]) -> None:
    for name in kinds:
        value = getattr(config, name)
        if isinstance(value, int) and not isinstance(value, bool):
            most, written = (LARGEST_SEED, "2^63 - 1") if name == "seed" else (LARGEST, "2^53")
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
    lr = config.start_lr
    if lr * config.weight_decay >= 1:
        raise UserError(
            f"--weight-decay is {config.weight_decay}, but times the learning rate of {lr:g} it must stay below 1: "
            f"each step takes that part off every weight; give less than {1 / lr:.3g}."
        )


def _check_model(config: TrainingConfig) -> None:
    arch = config.architecture
    for name in SIZES:
        require(getattr(arch, name) >= 1, name, getattr(arch, name), "at least 1")
    allowed = f"a positive number of at most {LARGEST_EXPANSION}"
    require(0 < arch.expansion <= LARGEST_EXPANSION, "expansion", arch.expansion, allowed)
    if config.eval_segments is not None:
        require(config.eval_segments >= 1, "eval_segments", config.eval_segments, "at least 1")
    for name in ("num_experts", "num_experts_per_tok", "lora_rank", "lora_alpha"):
        require(getattr(config, name) >= 1, name, getattr(config, name), "at least 1")
    shape = {**vars(config), **vars(arch), "use_moe": True}  # experts that cannot be are refused without --use-moe, too
    flaw = flaw_of(shape, named=flag_name)
    if flaw is not None:
        raise UserError(f"{flaw}.")


def _check_optimizer(config: TrainingConfig) -> None:
    """Muon needs whole matrices, and some that it trains; an average needs all weights of one model here."""
    require(0 <= config.ema < 1, "ema", config.ema, "0 or more and below 1, for example 0.999")
    for given, flag in (
        (config.uses_deepspeed, "--zero-stage or --deepspeed-config"),
        (config.parallel_independent, "--parallel-independent"),
    ):
        if config.ema and given:
            raise UserError(f"--ema does not go with {flag}, where no worker has the model's weights; leave one out.")
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
    for given, flag in (
        (config.uses_deepspeed, "--zero-stage or --deepspeed-config"),
        (config.gradient_checkpointing, "--gradient-checkpointing"),
    ):
        if config.compile and given:
            raise UserError(f"--compile does not go with {flag}; leave one out.")
    _check_updates(config)
    if config.backward_per_segment and config.uses_deepspeed:
        raise UserError(
            "--backward-per-segment does not go with --zero-stage or --deepspeed-config: DeepSpeed takes one backward "
            "pass per micro-batch; leave one out."
        )
    _check_workers(config)


def _check_workers(config: TrainingConfig) -> None:
    """Refuse devices, merges and restarts that no workers can have."""
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


def _check_updates(config: TrainingConfig) -> None:
    """An update for each segment is that of one batch, differentiated by itself."""
    for given, what in (
        (config.uses_deepspeed, "--zero-stage or --deepspeed-config: DeepSpeed makes one update per step"),
        (config.gradient_accumulation_steps > 1, "--gradient-accumulation-steps: segments are those of one batch"),
        (config.backward_per_segment is False, "--no-backward-per-segment, which it needs"),
    ):
        if config.update_per_segment and given:
            raise UserError(f"--update-per-segment does not go with {what}; leave one out.")


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


def _check_brain_name(config: TrainingConfig) -> None:
    reason = why_not_a_name(config.brain_name)
    if reason is not None:
        raise UserError(f"--brain-name is {shown(config.brain_name)}, but it must be a plain name: {reason}.")
