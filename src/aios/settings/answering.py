"""How a trained brain is asked to go on with a text: checked numbers, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from aios.settings.flag_values import require

MOST_TOKENS = 1_000_000
"""Tokens that one answer can be asked for: more than anybody waits for."""
TEMPERATURES = (0.01, 100.0)
"""Below, the softmax overflows in fp16; above, every token is as good as any other."""


@dataclass(frozen=True)
class Answering:
    """What decides over the tokens of an answer.

    Raises:
        UserError: on construction, when a value makes no sense; names the flag, the value and the remedy.
    """

    max_new_tokens: int = 128
    """Tokens after which an answer ends, whatever it says."""
    temperature: float = 0.8
    """What logits are divided by before a token is drawn; 0 takes the likeliest token instead."""
    top_k: int = 40
    """Draw among so many likeliest tokens; 0: among all."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that have this share of the probability together."""

    def __post_init__(self) -> None:
        allowed = f"between 1 and {MOST_TOKENS}"
        require(1 <= self.max_new_tokens <= MOST_TOKENS, "max_new_tokens", self.max_new_tokens, allowed)
        low, high = TEMPERATURES
        in_range = self.temperature == 0 or low <= self.temperature <= high
        require(in_range, "temperature", self.temperature, f"0 (the likeliest token) or between {low:g} and {high:g}")
        require(self.top_k >= 0, "top_k", self.top_k, "at least 1, or 0 for all tokens")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn, rather than the likeliest one taken."""
        return self.temperature > 0
