"""The model's stacks compiled by torch, where they train; what evaluates, generates or saves never meets them."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from aios.core.hrm_models import HRMForCausalLM
from aios.errors import UserError


def compile_mode(device: torch.device, backward_passes: int) -> str | None:
    """torch.compile's mode for steps of so many backward passes; None is its default.

    On CUDA a small model's step is bound by the launches of its kernels, which CUDA graphs ("reduce-overhead") save.
    They write each gradient into memory that the next replay overwrites, so that they suit steps of one pass only.
    """
    return "reduce-overhead" if device.type == "cuda" and backward_passes == 1 else None


def compile_stacks(model: HRMForCausalLM, device: torch.device, backward_passes: int) -> None:
    """Have torch compile what the stacks of `model` do in training, when they are first run.

    Names of weights and modules stay. Shapes are taken as fixed: those of training are.

    Raises:
        UserError: when kernels for `device` cannot be made here.
    """
    if device.type == "mps":
        raise UserError("--compile is for CPU and CUDA, not for an Apple GPU; leave it out, or use --device cpu.")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError(
            "--compile makes CUDA kernels with triton, which is not installed; install it, or leave it out."
        )
    mode = compile_mode(device, backward_passes)
    for stack in model.stacks:
        compiled: Any = torch.compile(stack.run, dynamic=False, mode=mode)
        stack.compiled = _keeping(compiled) if mode is not None else compiled


def _keeping(compiled: Any) -> Any:
    """`compiled`, with results of its own where no backward pass is to come: the next replay overwrites the graph's."""

    def run(*args: Any) -> Any:
        x, balances = compiled(*args)
        return (x if x.requires_grad else x.clone()), balances

    return run
