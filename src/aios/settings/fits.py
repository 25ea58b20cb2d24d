"""Refuses a run that cannot fit into memory, or whose single step would take hours, before it is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from aios.distributed.environment import place_of
from aios.errors import UserError
from aios.quantities import show_bytes
from aios.settings.config import TrainingConfig
from aios.settings.estimate import RunSize, block_applications, step_seconds, training_memory, weights_memory
from aios.settings.flag_values import flag_name
from aios.settings.machine import fastest_possible, host_memory, may_have_gpu

MAX_BLOCKS = 1_000_000
"""Blocks run one after another in a micro-batch; `base` runs 96."""
MAX_STEP_SECONDS = 3600.0
"""Least time, by the lowest estimate, from which a step is taken for a mistake."""
_SMALLEST_VOCABULARY = 256
"""Of a tokenizer not loaded yet; what it really has is checked when it is."""
_MEMORY_FIELDS = (
    "hidden_size",
    "h_layers",
    "l_layers",
    "num_experts",
    "num_experts_per_tok",
    "expansion",
    "lora_rank",
    "halt_max_steps",
    "batch_size",
    "max_seq_len",
    "world_size",
)
_TIME_FIELDS = (*_MEMORY_FIELDS[:-1], "h_cycles", "l_cycles", "gradient_accumulation_steps")
_BLOCK_FIELDS = ("h_layers", "l_layers", "h_cycles", "l_cycles", "halt_max_steps")
_EXPANSION_STEP = 0.25


def check_fits(config: TrainingConfig) -> None:
    """Check `config` against this machine as far as that goes without torch and the tokenizer.

    Raises:
        UserError: with the estimate and the largest value that fits, for a run that does not fit into memory or
            whose steps would take hours.
    """
    check_fits_device(config, _SMALLEST_VOCABULARY, likely_device(config), None)


def likely_device(config: TrainingConfig) -> str:
    """The kind of device that a run will find, as far as that can be told without torch: cpu or cuda."""
    on_cpu = config.device == "cpu" or (config.device == "auto" and not may_have_gpu())
    return "cpu" if on_cpu else "cuda"


def size_of_run(config: TrainingConfig, vocab_size: int, device: str) -> RunSize:
    """The size of a run with a vocabulary of that size on a device of that kind (cpu, cuda or mps)."""
    on_cpu, place = device == "cpu", place_of()
    together = place.local_world_size if place is not None else config.world_size or 1
    workers = together if on_cpu else 1  # others have a device each
    return RunSize.of(config, vocab_size, workers, config.autocasts(device))


def check_fits_device(config: TrainingConfig, vocab_size: int, device: str, device_bytes: int | None) -> None:
    """Check `config` with a vocabulary of that size against a device of that kind (cpu, cuda or mps) and its memory.

    `device_bytes` is None while it is not known; a CPU's is this machine's.

    Raises:
        UserError: as `check_fits`.
    """
    on_cpu = device == "cpu"
    size = size_of_run(config, vocab_size, device)
    host = host_memory()
    if host is not None:  # a model is built in this machine's memory, whatever it is trained on
        needed, what = (training_memory, "training") if on_cpu else (weights_memory, "the weights")
        _check_memory(size, config, needed, what, host, "this machine has")
    if device_bytes is not None:
        _check_memory(size, config, training_memory, "training", device_bytes, f"the {device} device has")
    _check_time(size, config, fastest_possible(not on_cpu, size.compute_bytes == 2))


def _check_memory(
    size: RunSize, config: TrainingConfig, needed: Callable[[RunSize], int], what: str, there: int, owner: str
) -> None:
    if needed(size) <= there:
        return
    name = _most_out_of_line(size, config, _MEMORY_FIELDS)
    raise UserError(
        f"{_flag(size, name)} needs about {show_bytes(needed(size))} for {what}, but {owner} {show_bytes(there)}; "
        f"{_remedy(size, name, lambda smaller: needed(smaller) <= there)}."
    )


def _check_time(size: RunSize, config: TrainingConfig, speed: float) -> None:
    blocks, seconds = block_applications(size), step_seconds(size, speed)
    if blocks > MAX_BLOCKS:
        name = _most_out_of_line(size, config, _BLOCK_FIELDS)
        what = f"runs {blocks:.2g} blocks one after another in a step, and more than {MAX_BLOCKS} are refused"
    elif seconds > MAX_STEP_SECONDS:
        name = _most_out_of_line(size, config, _TIME_FIELDS)
        what = f"makes one step take {seconds / 3600:.2g} hours or more here, and more than one is refused"
    else:
        return
    raise UserError(f"{_flag(size, name)} {what}; {_remedy(size, name, lambda smaller: _in_time(smaller, speed))}.")


def _in_time(size: RunSize, speed: float) -> bool:
    return block_applications(size) <= MAX_BLOCKS and step_seconds(size, speed) <= MAX_STEP_SECONDS


def _most_out_of_line(size: RunSize, config: TrainingConfig, names: tuple[str, ...]) -> str:
    """The field that is the largest multiple of what it would be without flags; the preset where none is larger."""
    usual = TrainingConfig(preset=config.preset)
    plain = RunSize.of(usual, size.vocab_size, 1, False)
    plain = dataclasses.replace(
        plain,
        num_experts=usual.num_experts,
        num_experts_per_tok=usual.num_experts_per_tok,
        lora_rank=usual.lora_rank,
    )
    ratios = {name: getattr(size, name) / getattr(plain, name) for name in names}
    name = max(names, key=lambda field: ratios[field])
    return name if ratios[name] > 1 else "preset"


def _flag(size: RunSize, name: str) -> str:
    return "This --preset" if name == "preset" else f"{flag_name(name)} {getattr(size, name)}"


def _remedy(size: RunSize, name: str, fits: Callable[[RunSize], bool]) -> str:
    if name == "preset":
        return "choose a smaller --preset"
    largest = _largest(size, name, fits)
    if largest is None:
        return "nothing fits with the other settings; lower them, too"
    return f"the largest that fits with the other settings is {largest}"


def _largest(size: RunSize, name: str, fits: Callable[[RunSize], bool]) -> float | None:
    """The largest value below that of field `name` with which `size` fits, by bisection; None where none does."""
    step: float = {"hidden_size": 2 * size.num_heads, "expansion": _EXPANSION_STEP}.get(name, 1)
    low, high = 0, int(getattr(size, name) / step) + 1  # in steps; low fits or is none, high does not fit
    while high - low > 1:
        middle = (low + high) // 2
        changed: dict[str, Any] = {name: middle * step}
        low, high = (middle, high) if fits(dataclasses.replace(size, **changed)) else (low, middle)
    return low * step if low else None
