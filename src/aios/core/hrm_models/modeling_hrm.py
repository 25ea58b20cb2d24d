"""HRM ACT v1 as a causal language model.

Source: Wang et al. 2025, "Hierarchical Reasoning Model" (arXiv 2506.21734). A slow (H) and a fast (L) module
refine two states over nested cycles; one pass of all cycles is a segment, and ACT decides after each segment
which tokens are finished. See `act` for why halting is per token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel

from aios.core.hrm_models.act import q_loss_part, wants_halt
from aios.core.hrm_models.cache import CACHE_NAME, HRMCache, the_cache
from aios.core.hrm_models.configuration_hrm import HRMConfig
from aios.core.hrm_models.layers import AttentionContext, ReasoningModule
from aios.core.hrm_models.projection import Projection, cut_normal_
from aios.core.hrm_models.supervision import (
    IGNORE_INDEX,
    HRMOutput,
    Supervised,
    cross_entropy,
    next_token_targets,
    score,
    segment_loss,
    segments_in_use,
    step_output,
)

Q_BIAS = -5.0
"""Initial bias of both Q values: sigmoid(-5) is about 0, which the reference found to bootstrap well."""


@dataclass
class _Inputs:
    """What stays the same over the segments of one forward."""

    embeddings: Tensor
    """(batch, time, hidden), of unit scale."""
    context: AttentionContext
    """Rotary tables and padding mask."""


class HRMForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc,unused-ignore]
    """Causal language model: trained with deep supervision, halting per token when evaluated."""

    config_class = HRMConfig
    config: HRMConfig
    h_init: Tensor
    l_init: Tensor
    supports_gradient_checkpointing = True
    _no_split_modules = ["HRMBlock"]  # noqa: RUF012
    _supports_sdpa = True
    # transformers' activation_checkpointing_enable sets both.
    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., Any]

    def __init__(self, config: HRMConfig) -> None:
        """Randomly initialised model of the config's shape."""
        super().__init__(config)
        scale = 1 / math.sqrt(config.hidden_size)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if not config.shared_stack:
            self.h_module = ReasoningModule(config, config.h_layers)
        self.l_module = ReasoningModule(config, config.l_layers)
        # Logits start near 0 at every width, so the loss starts near ln(vocab).
        self.lm_head = Projection(config.hidden_size, config.vocab_size, min(config.initializer_range, scale / 4))
        self.q_head = nn.Linear(config.hidden_size, 2)
        # Fixed starting states: part of the function the weights were trained for, so saved with them.
        self.register_buffer("h_init", torch.zeros(config.hidden_size))
        self.register_buffer("l_init", torch.zeros(config.hidden_size))
        self.post_init()

    @property
    def stacks(self) -> tuple[ReasoningModule, ...]:
        """What makes H updates and what makes L updates; one where it is the same."""
        return (self.l_module,) if self.config.shared_stack else (self.h_module, self.l_module)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """No: `generate` makes no cache itself, but asks `forward` for one, which is an `HRMCache`."""
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise one module; transformers calls this, and leaves out tensors it loaded from a file.

        As in the reference: truncated LeCun normal projections, unit normal states, an embedding that is
        unit normal after its scaling by sqrt(hidden), and a Q head that starts at `Q_BIAS` for every input.
        """
        if module is self:
            cut_normal_(self.h_init, 1.0, self.config.corrected_init)
            cut_normal_(self.l_init, 1.0, self.config.corrected_init)
        elif module is self.q_head:
            nn.init.zeros_(self.q_head.weight)
            nn.init.constant_(self.q_head.bias, Q_BIAS)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.embedding_dim))
        elif isinstance(module, Projection):
            module.init_weight(self.config.corrected_init)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        past_key_values: HRMCache | None = None,
        use_cache: bool | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        cache: HRMCache | None = None,
    ) -> HRMOutput | tuple[Any, ...]:
        """Logits, and with `labels` the losses.

        `input_ids`, `attention_mask` (1 on tokens, 0 on padding) and `labels` (shifted inside, -100 ignored) are
        (batch, time). In training mode with labels every segment runs and is supervised, and nothing is read back from
        the device; otherwise logits and loss are those of each token's halting segment.

        With a cache (`past_key_values` or `cache`, or a new one by `use_cache`) `input_ids` and the output are of the
        new tokens only, `attention_mask` is of all. peft hands on `inputs_embeds` and what follows it; the model has
        no use for those three.

        Raises ValueError for any of those three, too long a text, a mask of another shape, two caches, and a cache of
        another kind or in a step of training.
        """
        if inputs_embeds is not None or output_attentions or output_hidden_states:
            raise ValueError("an HRM takes input_ids alone, and gives neither attentions nor hidden states")
        cache = the_cache(past_key_values, cache)
        if cache is None and use_cache:
            cache = HRMCache(self.config)
        length = self._check_cache(cache) + input_ids.shape[1]
        self._check_shapes(input_ids, length, attention_mask)
        embeddings, real = self._embed(input_ids), _real(input_ids, attention_mask)
        targets = None if labels is None else next_token_targets(labels, real)
        if cache is not None:
            output = self._adaptive(self._cached_segments(embeddings, attention_mask, cache), real, targets)
            output[CACHE_NAME] = cache
        else:
            context = AttentionContext(self.config, length, attention_mask, input_ids.device)
            inputs = _Inputs(embeddings, context)
            if self.training and targets is not None:
                output = self._deep_supervision(inputs, real, targets)
            else:
                output = self._adaptive(self._segments(inputs), real, targets)
        return output.to_tuple() if return_dict is False else output

    def _check_cache(self, cache: HRMCache | None) -> int:
        """How many tokens `cache` keeps; refuses one that cannot be used."""
        if cache is None:
            return 0
        if self.training:
            raise ValueError("a cache and use_cache are for models in evaluation mode; call eval() first")
        if not isinstance(cache, HRMCache):
            kind = type(cache).__name__
            raise ValueError(f"the cache is a {kind}, which cannot keep an HRM's tokens; give an HRMCache")
        return int(cache.get_seq_length())

    def _check_shapes(self, input_ids: Tensor, length: int, attention_mask: Tensor | None) -> None:
        limit = self.config.max_position_embeddings
        if length > limit:
            raise ValueError(f"input of {length} tokens is longer than max_position_embeddings {limit}; shorten it")
        if attention_mask is not None and attention_mask.shape != (input_ids.shape[0], length):
            raise ValueError(
                f"attention_mask has shape {tuple(attention_mask.shape)}, the tokens "
                f"{(input_ids.shape[0], length)}; give one 0 or 1 per token"
            )

    def _initial_state(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        return self.h_init.expand_as(embeddings), self.l_init.expand_as(embeddings)

    def segment_losses(
        self, input_ids: Tensor, labels: Tensor, attention_mask: Tensor | None = None, updated: bool = False
    ) -> Iterator[tuple[Tensor, HRMOutput | None]]:
        """`forward` in training, segment by segment: the loss of each, with the last the numbers of all of them.

        Arguments and errors are those of `forward`. The losses add up to its loss, and so do their gradients. Call
        backward on each before asking for the next: its activations are free then, so that memory is that of one
        segment. What continuing is worth, which a segment learns, is known from the next one only: of that the last
        updates are run ahead without gradient, and once more with it; where the weights are `updated` in between, all
        of it is run once more. Entries of the output carry no gradient; it has no logits.
        """
        self._check_shapes(input_ids, input_ids.shape[1], attention_mask)
        config, count, real = self.config, self.config.halt_max_steps, _real(input_ids, attention_mask)
        context = AttentionContext(config, input_ids.shape[1], attention_mask, input_ids.device)
        targets = next_token_targets(labels, real)
        valid = targets != IGNORE_INDEX
        parts: list[Supervised] = []
        state: tuple[Tensor, Tensor] | None = None
        ahead: tuple[Tensor, Tensor] | None = None
        for number in range(count):
            # Embedded anew: each backward needs a graph of its own.
            inputs = _Inputs(self._embed(input_ids), context)
            state = state or self._initial_state(inputs.embeddings)
            if ahead is None or updated:
                ahead = self._advance(inputs, *state)
            z_h, z_l, balances = self._finish(inputs, *ahead, real)
            state = z_h.detach(), z_l.detach()
            following = None
            if number + 1 < count and (config.halting or not updated):
                ahead = self._advance(inputs, *state)
                following = self._look_ahead(inputs, *ahead) if config.halting else None
            part = self._supervise(z_h, balances, targets)[1]
            q_loss = q_loss_part(part.q, part.correct, following, number, count, valid)
            parts.append(part.detached())
            output = step_output(config, parts, valid) if number + 1 == count else None
            yield segment_loss(config, part, q_loss, count), output

    def _embed(self, input_ids: Tensor) -> Tensor:
        embeddings: Tensor = self.embed_tokens(input_ids) * math.sqrt(self.config.hidden_size)
        return embeddings

    def _segment(
        self, inputs: _Inputs, z_h: Tensor, z_l: Tensor, counted: Tensor | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """All cycles once: new z_H, z_L and the load-balancing losses over the `counted` tokens.

        Only the last L and the last H update are differentiated (one-step gradient, paper section 2), or those of the
        last cycle (`last_cycle_gradient`): memory does not grow with the number of cycles.
        """
        return self._finish(inputs, *self._advance(inputs, z_h, z_l), counted)

    def _advance(self, inputs: _Inputs, z_h: Tensor, z_l: Tensor) -> tuple[Tensor, Tensor]:
        """z_H and z_L after the updates of a segment that have no gradient."""
        l_cycles = self.config.l_cycles
        with torch.no_grad():
            updates = self.config.h_cycles * l_cycles - self.config.differentiated_updates
            for update in range(1, updates + 1):
                z_l, _ = self.l_module(z_l + (z_h + inputs.embeddings), inputs.context, None)
                if update % l_cycles == 0:
                    z_h, _ = self.stacks[0](z_h + z_l, inputs.context, None)
        _forget_casts(z_h)
        return z_h, z_l

    def _finish(
        self, inputs: _Inputs, z_h: Tensor, z_l: Tensor, counted: Tensor | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The updates of a segment that have a gradient; returns as `_segment`."""
        balances = []
        for _ in range(self.config.differentiated_updates):
            z_l, more = self.l_module(z_l + (z_h + inputs.embeddings), inputs.context, counted)
            balances += more
        z_h, more = self.stacks[0](z_h + z_l, inputs.context, counted)
        return z_h, z_l, balances + more

    def _look_ahead(self, inputs: _Inputs, z_h: Tensor, z_l: Tensor) -> Tensor:
        """The Q head's logits after `_finish`, without gradient."""
        with torch.no_grad():
            q: Tensor = self.q_head(self._finish(inputs, z_h, z_l, None)[0]).float()
        _forget_casts(z_h)
        return q

    def _deep_supervision(self, inputs: _Inputs, real: Tensor, targets: Tensor) -> HRMOutput:
        """Run and supervise every segment; the carry between them has no gradient (paper, section 2)."""
        z_h, z_l = self._initial_state(inputs.embeddings)
        parts = []
        for _ in range(self.config.halt_max_steps):
            z_h, z_l, balances = self._segment(inputs, z_h.detach(), z_l.detach(), real)
            logits, part = self._supervise(z_h, balances, targets)
            parts.append(part)
        return step_output(self.config, parts, targets != IGNORE_INDEX, logits)

    def _supervise(self, z_h: Tensor, balances: list[Tensor], targets: Tensor) -> tuple[Tensor, Supervised]:
        """Logits of a segment, and what it is to learn from."""
        logits, ce, correct = self._read_out(z_h, targets)
        balance = torch.stack(balances).mean() if balances else None
        return logits, Supervised(ce, correct, self.q_head(z_h).float(), balance)

    def _read_out(self, z_h: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`score` of one segment; under gradient checkpointing too, as logits are the largest tensors."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(score, self.lm_head, z_h, targets)
        return score(self.lm_head, z_h, targets)

    def _segments(self, inputs: _Inputs) -> Iterator[Tensor]:
        """z_H after each segment, which is run when it is asked for."""
        z_h, z_l = self._initial_state(inputs.embeddings)
        for _ in range(self.config.segments_at_evaluation):
            z_h, z_l, _ = self._segment(inputs, z_h.detach(), z_l.detach(), None)
            yield z_h

    def _cached_segments(self, embeddings: Tensor, mask: Tensor | None, cache: HRMCache) -> Iterator[Tensor]:
        """`_segments` of new tokens; each runs together with the older ones that had halted before it."""
        new = embeddings.shape[1]
        length = cache.get_seq_length() + new
        context: AttentionContext | None = None
        cache.wait(0, *self._initial_state(embeddings), embeddings)
        for segment, kept in enumerate(cache.attention):
            z_h, z_l, pending = cache.take(segment)
            if context is None or context.queries != pending.shape[1]:
                context = AttentionContext(self.config, length, mask, pending.device, pending.shape[1])
            context.kept = iter(kept)
            z_h, z_l, _ = self._segment(_Inputs(pending, context), z_h.detach(), z_l.detach(), None)
            cache.wait(segment + 1, z_h, z_l, pending)
            yield z_h[:, -new:]

    def _adaptive(self, segments: Iterator[Tensor], real: Tensor, targets: Tensor | None) -> HRMOutput:
        """Run segments until every token has halted; each keeps the state in which it halts, which is read out last."""
        running = real
        halted = self.h_init.new_zeros(())  # padding never runs: its logits are 0
        qs: list[Tensor] = []
        for z_h in segments:
            halted = torch.where(running[..., None], z_h, halted)
            qs.append(self.q_head(z_h).float())
            if not self.config.halting:
                continue
            running = running & ~wants_halt(qs[-1])
            if not running.any():
                break
        logits = self.lm_head(halted)
        counted = real if targets is None else targets != IGNORE_INDEX
        used = segments_in_use(self.config, qs, counted)
        if targets is None:
            return HRMOutput(logits=logits, used_segments=used)
        ce = cross_entropy(logits, targets)
        return HRMOutput(loss=ce, logits=logits, ce=ce, used_segments=used)

    def generate(  # type: ignore[override,unused-ignore]
        self, *args: Any, past_key_values: HRMCache | None = None, cache: HRMCache | None = None, **how: Any
    ) -> Any:
        """transformers' `generate`, which takes a cache to go on from under either of its names.

        Raises ValueError for a cache under each.
        """
        given = the_cache(past_key_values, cache)
        if given is not None:
            how[CACHE_NAME] = given
        return super().generate(*args, **how)

    def prepare_inputs_for_generation(  # type: ignore[override,unused-ignore]
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: HRMCache | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        cache: HRMCache | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Inputs of the next `generate` step: with a cache the new tokens, else the whole context.

        Of a context that has outgrown max_position_embeddings its end is recomputed in each step: positions begin
        anew at the first token that is left, and all states depend on those before, so that nothing kept is of use.
        """
        cache = the_cache(past_key_values, cache)
        limit = self.config.max_position_embeddings
        length = input_ids.shape[1] if attention_mask is None else attention_mask.shape[1]
        inputs: dict[str, Any] = {"input_ids": input_ids[:, -limit:]}
        if attention_mask is not None and not attention_mask.all():  # attention without a mask is faster
            inputs["attention_mask"] = attention_mask[:, -limit:]
        if length <= limit:
            inputs |= {CACHE_NAME: cache, "use_cache": use_cache}
            if cache is not None and next_sequence_length is not None:
                inputs["input_ids"] = input_ids[:, -next_sequence_length:]
        elif cache is not None:
            cache.reset()
        return inputs


def _real(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Where `input_ids` are tokens, not padding; the mask may be of earlier ones, too."""
    if attention_mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    return attention_mask[:, -input_ids.shape[1] :].bool()


def _forget_casts(x: Tensor) -> None:
    """Have autocast cast the weights anew: older torch would go on using casts made without gradient."""
    if torch.is_autocast_enabled(x.device.type):
        torch.clear_autocast_cache()
