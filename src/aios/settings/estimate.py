"""What a run takes, from its settings alone: parameters, memory and work. Pure arithmetic, without torch.

Memory and time are estimated low, so that what fits is never refused: the test compares them with real models.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from aios.core.architecture import Architecture, swiglu_width
from aios.settings.config import TrainingConfig

PROCESS_BYTES = 300_000_000
"""What one process with torch and transformers in it takes before there is a model (measured: 384 MB)."""
BLOCK_SECONDS = 1e-4
"""Least time of one block on the smallest input: some twenty calls of kernels, each of microseconds."""
_NORMS_AND_ATTENTION = 9
"""Tensors of the model's width that one block keeps for the backward pass (counted, and measured) on a CPU.

Elsewhere both norms keep what they are given, too.
"""


@dataclass(frozen=True)
class RunSize(Architecture):
    """The numbers that decide how much memory and time a run takes. Fields named as flags are those flags."""

    num_experts: int
    """1 without a mixture of experts."""
    num_experts_per_tok: int
    """1 without a mixture of experts."""
    lora_rank: int
    """0 without adapters."""
    batch_size: int
    """Sequences of a micro-batch."""
    max_seq_len: int
    """Tokens of a sequence."""
    gradient_accumulation_steps: int
    """Micro-batches of a step."""
    world_size: int
    """Workers on this machine."""
    vocab_size: int
    """Tokens the model knows."""
    use_moe: bool
    """Whether experts stand in place of the MLPs."""
    shared_stack: bool
    """Whether one stack makes both updates."""
    gradient_checkpointing: bool
    """Whether activations are computed again in the backward pass."""
    kept_segments: int
    """Segments whose activations are kept at a time."""
    weight_bytes: int
    """Bytes of one weight, of one gradient and of one moment."""
    compute_bytes: int
    """Bytes of one activation."""
    keeps_snapshot: bool
    """Whether a copy of weights, moments and averages is kept to go back to."""
    splits_state: bool
    """Whether DeepSpeed splits or offloads gradients and moments."""
    muon: bool
    """Whether the matrices within the blocks have one moment, not two."""
    averages: bool
    """Whether a moving average of the trained weights is kept beside them, in fp32."""

    @classmethod
    def of(cls, config: TrainingConfig, vocab_size: int, workers: int, mixed: bool) -> RunSize:
        """The size of a run of `config`; `mixed` says whether it computes in 16 bits beside fp32 weights."""
        weight_bytes = 2 if config.model_dtype == "bf16" else 4
        segments = config.architecture.halt_max_steps
        return cls(
            **dataclasses.asdict(config.architecture),
            num_experts=config.num_experts if config.use_moe else 1,
            num_experts_per_tok=config.num_experts_per_tok if config.use_moe else 1,
            lora_rank=config.lora_rank if config.use_peft else 0,
            batch_size=config.batch_size,
            max_seq_len=config.max_seq_len,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            world_size=workers,
            vocab_size=vocab_size,
            use_moe=config.use_moe,
            shared_stack=config.shared_stack,
            gradient_checkpointing=config.gradient_checkpointing,
            kept_segments=1 if config.differentiates_segments(segments) else segments,
            weight_bytes=weight_bytes,
            compute_bytes=2 if mixed else weight_bytes,
            keeps_snapshot=config.auto_adjust_lr and config.adaptive_lr_profile == "auto",
            splits_state=config.uses_deepspeed,
            muon=config.optimizer == "muon",
            averages=config.ema > 0,
        )

    @property
    def expert_width(self) -> int:
        """Width of a block's SwiGLU, with experts that of one."""
        return swiglu_width(self.hidden_size, self.expansion)

    @property
    def inner_width(self) -> int:
        """Width of a block's SwiGLU, of all experts together."""
        return self.num_experts * self.expert_width

    @property
    def used_width(self) -> int:
        """Width of a block's SwiGLU, of all experts together that one token is computed by."""
        return self.num_experts_per_tok * self.expert_width

    @property
    def layers(self) -> int:
        """Blocks with weights of their own."""
        return self.l_layers if self.shared_stack else self.h_layers + self.l_layers

    @property
    def differentiated(self) -> int:
        """Blocks of a segment that keep something for its backward pass; with the last cycle's, at least."""
        return self.h_layers + self.l_layers

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch of one worker."""
        return self.batch_size * self.max_seq_len


def block_parameters(size: RunSize) -> int:
    """Weights of one block, adapters left out."""
    return _block_weights(size, size.inner_width)


def used_parameters(size: RunSize) -> int:
    """Weights of one block that one token is multiplied by, adapters left out."""
    return _block_weights(size, size.used_width)


def _block_weights(size: RunSize, inner_width: int) -> int:
    router = size.num_experts * size.hidden_size if size.use_moe else 0
    return 4 * size.hidden_size**2 + 3 * size.hidden_size * inner_width + router


def model_parameters(size: RunSize) -> int:
    """Weights of the model, adapters left out: blocks, embedding, output head, and the Q head with its two biases."""
    ends = 2 * size.vocab_size * size.hidden_size + 2 * size.hidden_size + 2
    return size.layers * block_parameters(size) + ends


def adapter_parameters(size: RunSize) -> int:
    """Weights of the LoRA adapters: rank x (inputs + outputs) of each projection of attention and SwiGLU."""
    return size.layers * size.lora_rank * (8 * size.hidden_size + 3 * size.inner_width)


def weights_memory(size: RunSize) -> int:
    """Bytes of the weights alone, on all workers of the machine together, with the processes that hold them."""
    weights = (model_parameters(size) + adapter_parameters(size)) * size.weight_bytes
    return size.world_size * (PROCESS_BYTES + weights)


def training_memory(size: RunSize) -> int:
    """Bytes that training takes at its peak, on all workers of the machine together, with their processes."""
    trained = adapter_parameters(size) if size.lora_rank else model_parameters(size)
    spared = size.layers * block_parameters(size) if size.muon else 0
    moments = 0 if size.splits_state else (2 * trained - spared) * size.weight_bytes
    gradients = 0 if size.splits_state else trained * size.weight_bytes
    averages = 4 * trained if size.averages else 0
    copies = 0
    if size.keeps_snapshot and not size.splits_state:
        copies = (model_parameters(size) + adapter_parameters(size)) * size.weight_bytes + moments + averages
    per_worker = gradients + moments + averages + copies + activation_memory(size)
    return weights_memory(size) + size.world_size * per_worker


def activation_memory(size: RunSize) -> int:
    """Bytes that one micro-batch of one worker keeps for its backward pass.

    Every segment kept has its last update of each stack (the earlier ones have no gradient) and its logits.
    """
    # Experts keep their weighted activations, too, and a row of the input for each expert of a token.
    mlp = 5 * size.used_width + size.num_experts_per_tok * size.hidden_size if size.use_moe else 4 * size.used_width
    block = (_NORMS_AND_ATTENTION * size.hidden_size + mlp) * size.compute_bytes
    logits = size.vocab_size * 4  # the loss is computed in fp32
    blocks = size.kept_segments * size.differentiated
    if size.gradient_checkpointing:
        kept = blocks * size.hidden_size * size.compute_bytes + 2 * block + logits
    else:
        kept = blocks * block + size.kept_segments * logits
    return size.tokens * (kept + 2 * logits)  # those of the last segment as such, and their gradient


def block_applications(size: RunSize) -> int:
    """How many blocks run forward, one after another, in one micro-batch."""
    return size.halt_max_steps * size.h_cycles * (size.l_cycles * size.l_layers + size.h_layers)


def step_seconds(size: RunSize, flops_per_second: float) -> float:
    """Least seconds of one optimizer step on a device of that speed, all of its workers being equally fast."""
    calls = block_applications(size) * BLOCK_SECONDS
    return size.gradient_accumulation_steps * max(micro_batch_flops(size) / flops_per_second, calls)


def micro_batch_flops(size: RunSize) -> float:
    """Least floating-point operations of the matrix products of one micro-batch, forward and backward."""
    backwards = 2 * size.halt_max_steps * size.differentiated  # each costs two forward passes
    passes = block_applications(size) + backwards
    attention = 2 * size.max_seq_len * size.hidden_size
    flops = 2 * size.tokens * (passes * (used_parameters(size) + attention))
    return flops + 6 * size.tokens * size.halt_max_steps * size.vocab_size * size.hidden_size
