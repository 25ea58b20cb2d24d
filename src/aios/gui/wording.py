"""The words of the window: labels of the settings, and error sentences without the command line's flags."""

from __future__ import annotations

import re

from aios.settings.config import field_types

_LABELS = {
    "lr": "Learning rate",
    "auto_adjust_lr": "Auto-adjust learning rate",
    "adaptive_lr_profile": "Profile",
    "anneal_fraction": "Final anneal (fraction)",
    "warmup_steps": "Warm-up steps",
    "adaptive_lr_config": "Settings file",
    "adaptive_lr_reset_state": "Start the learning rate afresh",
    "role_lr": "A rate for each role",
    "on_overfit": "On overfitting",
    "dataset_file": "Dataset",
    "model": "Tokenizer",
    "max_seq_len": "Sequence length",
    "eval_file": "Evaluation text",
    "eval_every": "Evaluate every (steps)",
    "eval_batches": "Evaluation batches",
    "sample_every": "Sample every (steps)",
    "gradient_accumulation_steps": "Accumulation",
    "max_grad_norm": "Gradient clip (norm)",
    "num_heads": "Attention heads",
    "halt_max_steps": "ACT segments",
    "use_moe": "Mixture of experts (MoE)",
    "use_peft": "LoRA adapters (PEFT)",
    "lora_rank": "LoRA rank",
    "lora_alpha": "LoRA alpha",
    "tensorboard": "TensorBoard folder",
    "num_experts": "Experts",
    "num_experts_per_tok": "Experts per token",
    "student_init": "Start from brain",
    "amp": "Mixed precision",
    "model_dtype": "Number type",
    "cuda_ids": "CUDA devices",
    "ddp": "Shared model (DDP)",
    "world_size": "Workers",
    "max_restarts": "Restarts",
    "parallel_independent": "Independent workers",
    "merge_every": "Merge every (steps)",
    "merge_timeout": "Hung after (seconds)",
    "zero_stage": "ZeRO stage",
    "deepspeed_config": "DeepSpeed settings",
    "bundle_dir": "Brains folder",
    "save_every": "Save every (steps)",
    "keep_checkpoints": "Checkpoints to keep",
    "resume": "Continue (list of runs)",
    "prompt": "Beginning of the text",
    "max_new_tokens": "Length (tokens)",
    "temperature": "Temperature",
}
"""What the window calls the fields whose names do not say it well, and what a brain is asked with."""

AUTO_SENTENCE = (
    "Searches a learning rate, follows the loss, brakes on trouble and ends at zero; every change is explained."
)
"""What the tick box does, in one sentence."""

_FLAG = re.compile(r"--(no-)?([a-z][a-z-]*[a-z])")


def lr_wording(auto: bool, profile: str) -> tuple[str, str]:
    """(label, hint) of the learning-rate field: its meaning depends on the tick box and the profile."""
    if not auto:
        return "Learning rate (fixed)", "Stays as it is after the warm-up. Empty: 5e-5."
    if profile == "rules":
        return "Learning rate (starting point)", "The rules adjust it from here. Empty: 5e-5."
    return "Learning rate (starting point)", "Empty: the search finds one; a run too short for that begins at 1e-3."


def label_of(name: str) -> str:
    """What the window calls a field of `TrainingConfig` or of what a brain is asked with."""
    return _LABELS.get(name) or name.replace("_", " ").capitalize()


def fields_named(sentence: str) -> list[str]:
    """The config fields whose flags a sentence names, in its order."""
    names = (match[2].replace("-", "_") for match in _FLAG.finditer(sentence))
    return [name for name in names if name in field_types()]


def in_window_words(sentence: str) -> str:
    """A sentence written for the command line with the window's labels in place of flags."""
    return _FLAG.sub(_label, sentence).replace(" is '',", " is empty,")


def _label(match: re.Match[str]) -> str:
    name = match[2].replace("-", "_")
    if name not in field_types() and name not in _LABELS:
        return match[0]
    return f"“{label_of(name)}” off" if match[1] else f"“{label_of(name)}”"
