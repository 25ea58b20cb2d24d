"""Where a run computes and in which number types."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from aios.errors import UserError
from aios.settings.config import TrainingConfig


@dataclass(frozen=True)
class Precision:
    """Number types of a run."""

    weights: torch.dtype
    """Type the weights are kept and updated in."""
    autocast: torch.dtype | None
    """Type of the matrix products under autocast; None: no autocast."""
    loss_scaling: bool
    """Whether small gradients must be scaled up to survive (fp16 only)."""

    def autocast_context(self, device: torch.device) -> AbstractContextManager[object]:
        """The context in which to run forward."""
        return nullcontext() if self.autocast is None else torch.autocast(device.type, self.autocast)


def device_kind(config: TrainingConfig) -> str:
    """What `--device` means on this machine: cuda, mps or cpu.

    Raises:
        UserError: when the wanted kind of device is not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    kind = config.device
    if kind == "auto":
        return "cuda" if cuda else "mps" if mps and not config.several_workers else "cpu"
    if kind == "cuda" and not cuda:
        raise UserError(
            "--device cuda was given, but torch finds no usable CUDA device here; install a CUDA build of torch and a "
            "driver, or use --device auto."
        )
    if kind == "mps" and not mps:
        raise UserError("--device mps was given, but torch finds no Apple GPU here; use --device auto.")
    return kind


def cuda_devices(config: TrainingConfig) -> tuple[int, ...]:
    """Numbers of the CUDA devices that `--cuda-ids` names; without it all that torch finds here."""
    return config.cuda_numbers or tuple(range(torch.cuda.device_count()))


def choose_device(config: TrainingConfig, local_rank: int = 0) -> torch.device:
    """The device that `--device` and `--cuda-ids` mean for worker `local_rank` of this machine.

    Raises:
        UserError: when the wanted device is not there.
    """
    kind = device_kind(config)
    if kind != "cuda":
        return torch.device(kind)
    numbers = cuda_devices(config)
    if max(numbers) >= torch.cuda.device_count():
        raise UserError(
            f"--cuda-ids is {config.cuda_ids}, but there are only {torch.cuda.device_count()} CUDA devices."
        )
    if local_rank >= len(numbers):
        raise UserError(
            f"Worker {local_rank} of this machine has no CUDA device of its own: there are {len(numbers)}; start fewer."
        )
    device = torch.device("cuda", numbers[local_rank])
    torch.cuda.set_device(device)  # or collectives would take the first device's memory on every worker
    torch.set_float32_matmul_precision("high")  # TF32 for products in fp32: several times as fast, 10 bits of mantissa
    return device


def device_memory(device: torch.device) -> int | None:
    """Bytes of memory that a CUDA device has; None for others, which use the machine's."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def choose_precision(config: TrainingConfig, device: torch.device) -> Precision:
    """The number types that `--model-dtype` and `--amp` mean on `device`."""
    if config.model_dtype == "fp16":  # weights in fp16 cannot be updated safely, so they stay in fp32
        return Precision(torch.float32, torch.float16, loss_scaling=True)
    weights = torch.bfloat16 if config.model_dtype == "bf16" else torch.float32
    if not config.autocasts(device.type):
        return Precision(weights, None, loss_scaling=False)
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return Precision(weights, torch.float16, loss_scaling=weights is torch.float32)
    return Precision(weights, torch.bfloat16, loss_scaling=False)
