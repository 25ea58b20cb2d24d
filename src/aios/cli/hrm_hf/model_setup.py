"""The model of a run: new, or the one saved in a brain or checkpoint folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aios.cli.hrm_hf.lora import add_adapters, holds_adapters, load_adapters, restore_adapters
from aios.core.hrm_models import HRMConfig, HRMForCausalLM, load_model, read_config
from aios.errors import UserError
from aios.settings.config import TrainingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHOICES = ("eval_segments", "halting", "last_cycle_gradient")
"""What a model can be told anew whatever its weights are; None: as it was."""


def _chosen(config: TrainingConfig) -> dict[str, Any]:
    """Those of the choices that were made."""
    return {name: value for name in _CHOICES if (value := getattr(config, name)) is not None}


def new_model(config: TrainingConfig, tokenizer: PreTrainedTokenizerBase) -> HRMForCausalLM:
    """A randomly initialised model for the tokenizer's vocabulary; the weights depend on `--seed` alone."""
    torch.manual_seed(config.seed)
    return HRMForCausalLM(
        HRMConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=config.max_seq_len,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **dataclasses.asdict(config.architecture),
            use_moe=config.use_moe,
            num_experts=config.num_experts,
            num_experts_per_tok=config.num_experts_per_tok,
            shared_stack=config.shared_stack,
            corrected_init=config.corrected_init,
            **_chosen(config),
        )
    )


def saved_model(
    folder: Path, hrm_config: HRMConfig, config: TrainingConfig, tokenizer: PreTrainedTokenizerBase
) -> HRMForCausalLM:
    """The model in `folder`, able to read sequences of `--max-seq-len`; with `--use-peft` frozen, beside adapters.

    Raises:
        UserError: when the model is for another vocabulary, or weights or adapters are not those of its shape.
    """
    check_vocabulary(folder, hrm_config, tokenizer, "leave --model out to use the brain's own tokenizer")
    hrm_config.max_position_embeddings = max(hrm_config.max_position_embeddings, config.max_seq_len)
    for name, value in _chosen(config).items():
        setattr(hrm_config, name, value)
    model = load_model(folder, hrm_config)
    torch.manual_seed(config.seed)
    if config.use_peft and config.resume and holds_adapters(folder):
        restore_adapters(model, folder, config)
    elif config.use_peft:
        add_adapters(model, config)
    return model


def check_vocabulary(folder: Path, hrm_config: HRMConfig, tokenizer: PreTrainedTokenizerBase, remedy: str) -> None:
    """Check that the model in `folder` has as many tokens as the tokenizer.

    Raises:
        UserError: when it has not; says to do `remedy`.
    """
    if hrm_config.vocab_size != len(tokenizer):
        raise UserError(
            f"{folder} holds a model for {hrm_config.vocab_size} tokens, but the tokenizer has {len(tokenizer)}; "
            f"{remedy}."
        )


def load_weights(model: HRMForCausalLM, folder: Path) -> None:
    """Put what training has made of the weights, as the checkpoint `folder` of the same run holds them, into `model`.

    Raises:
        UserError: when they are not exactly those of such a model.
    """
    if holds_adapters(folder):
        load_adapters(model, folder)
    else:
        model.load_state_dict(load_model(folder, read_config(folder)).state_dict())
