"""Shapes of an HRM, those of the presets and what is none: plain numbers, so that the command line can check them
without importing torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

INTERMEDIATE_MULTIPLE = 256
"""SwiGLU widths are rounded up to this, as in the reference: it gives `base` the paper's 27 M body."""
SIZES = ("hidden_size", "h_layers", "l_layers", "h_cycles", "l_cycles", "num_heads", "halt_max_steps")
"""Fields of a shape that are whole numbers of at least 1."""
LARGEST_EXPANSION = 1_000_000
"""Largest SwiGLU expansion; far below it every width is too large for any memory."""


def swiglu_width(hidden_size: int, expansion: float) -> int:
    """Inner width of a SwiGLU: 2/3 of expansion x hidden_size (three matrices for the price of two)."""
    width = round(expansion * hidden_size * 2 / 3)
    return max(1, math.ceil(width / INTERMEDIATE_MULTIPLE)) * INTERMEDIATE_MULTIPLE


@dataclass(frozen=True)
class Architecture:
    """The shape of one HRM body (embeddings come on top)."""

    hidden_size: int
    """Width of the residual stream."""
    h_layers: int
    """Blocks in the slow (H) stack."""
    l_layers: int
    """Blocks in the fast (L) stack."""
    h_cycles: int
    """H updates in one segment."""
    l_cycles: int
    """L updates before each H update."""
    num_heads: int
    """Attention heads; each must be of even width (rotary positions rotate pairs)."""
    expansion: float
    """SwiGLU expansion: the inner width is about 2/3 of expansion x hidden_size."""
    halt_max_steps: int
    """Segments after which ACT always halts."""


PRESETS: dict[str, Architecture] = {
    "tiny": Architecture(128, 1, 1, 2, 2, 4, 4.0, 2),
    "small": Architecture(256, 2, 2, 2, 2, 8, 4.0, 2),
    "base": Architecture(512, 4, 4, 2, 2, 8, 4.0, 4),
}
"""tiny and small learn on a CPU; base is the 27 M body of Wang et al. 2025 (arXiv 2506.21734)."""


def flaw_of(shape: Mapping[str, Any], named: Callable[[str], str]) -> str | None:
    """What in `shape`, whose numbers are in range one by one, describes no model, and what to do; None where it does.

    A sentence without its full stop, in which fields are called what `named` says. Beside those of `Architecture` the
    shape has `shared_stack`, `use_moe`, `num_experts` and `num_experts_per_tok`.
    """
    hidden, heads, layers = shape["hidden_size"], shape["num_heads"], (shape["h_layers"], shape["l_layers"])
    if hidden % (2 * heads):
        return (
            f"{named('hidden_size')} {hidden} does not split into {heads} attention heads of even width; choose a "
            f"multiple of {2 * heads} or another {named('num_heads')}"
        )
    if shape["shared_stack"] and layers[0] != layers[1]:
        return (
            f"{named('shared_stack')} is one stack for both, but {named('h_layers')} is {layers[0]} and "
            f"{named('l_layers')} {layers[1]}; make them equal"
        )
    routed, experts = shape["num_experts_per_tok"], shape["num_experts"]
    if shape["use_moe"] and routed > experts:
        return (
            f"{named('num_experts_per_tok')} is {routed}, more than the {experts} experts there are; lower it or raise "
            f"{named('num_experts')}"
        )
    return None
