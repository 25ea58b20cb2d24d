"""What `generate` keeps of the tokens behind it, so that each new one costs one token's work.

Every application of a stack is causal, so keys and values of a token never change once they are computed: there is
one place for each attention call of a segment, and each segment has its own. Tokens halt, though: a segment is run
only while one of the tokens at hand still needs it. A later token may need a segment that older ones have not run.
They are caught up then, all at once, from the state in which they had stopped, which is kept for that.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from aios.core.hrm_models.configuration_hrm import HRMConfig

CACHE_NAME = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
"""What transformers calls a cache in arguments and results: `past_key_values` before its version 5.24."""


class HRMCache(Cache):  # type: ignore[misc,unused-ignore]
    """Keys and values of every attention call of every segment, and the states of tokens that wait for a segment.

    The tokens that have run segment s are the first ones, without a gap: whoever runs it takes along all that wait.
    """

    def __init__(self, config: HRMConfig) -> None:
        """Empty, for models of `config`."""
        calls = config.h_cycles * (config.l_cycles * config.l_layers + config.h_layers)
        self.attention = [[DynamicLayer() for _ in range(calls)] for _ in range(config.segments_at_evaluation)]
        self.waiting = [DynamicLayer() for _ in range(config.segments_at_evaluation)]
        # Of a flat list of layers the base class knows how to reorder, repeat, select and reset the rows.
        super().__init__(layers=[*(layer for segment in self.attention for layer in segment), *self.waiting])

    def wait(self, segment: int, z_h: Tensor, z_l: Tensor, embeddings: Tensor) -> None:
        """Keep the states, each (batch, time, hidden), of tokens that come next in `segment`; past the last, none."""
        if segment < len(self.waiting):
            self.waiting[segment].update(torch.stack((z_h, z_l), dim=1), embeddings[:, None])

    def take(self, segment: int) -> tuple[Tensor, Tensor, Tensor]:
        """z_H, z_L and embeddings of all tokens that wait for `segment`, which then do so no more; oldest first."""
        layer = self.waiting[segment]
        z_h, z_l = layer.keys.unbind(1)
        embeddings = layer.values[:, 0]
        layer.reset()
        return z_h, z_l, embeddings

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the newest -`tokens_to_remove` tokens: of each segment those that have run it, or wait for it."""
        kept = self.get_seq_length() - abs(tokens_to_remove)
        for calls, waiting in zip(self.attention, self.waiting, strict=True):
            run, queue = calls[0].get_seq_length(), waiting.get_seq_length()
            for layer in calls:
                layer.crop(-max(0, run - kept))
            waiting.crop(-min(queue, max(0, run + queue - kept)))


def the_cache(past_key_values: HRMCache | None, cache: HRMCache | None) -> HRMCache | None:
    """The one that is given, under either of its names; raises ValueError for both."""
    if past_key_values is not None and cache is not None:
        raise ValueError("past_key_values and cache are two names of one argument; give one of them")
    return past_key_values if cache is None else cache
