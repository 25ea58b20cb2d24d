"""Sizes of the HRM presets: plain numbers, so that the command line can check them without importing torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

INTERMEDIATE_MULTIPLE = 256
"""SwiGLU widths are rounded up to this, as in the reference: it gives `base` the paper's 27 M body."""


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
