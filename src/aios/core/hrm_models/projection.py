"""The one kind of linear map HRM is made of."""

from __future__ import annotations

import math

from torch import Tensor, nn

_CUT_DEVIATION = 0.8796256610342398
"""Standard deviation of a standard normal that is cut off at -2 and 2."""


def cut_normal_(tensor: Tensor, std: float, corrected: bool) -> None:
    """Fill with a normal of deviation `std` that is cut off at two of them; `corrected`: so that `std` is what is left.

    As in the reference of the paper, which widens the normal for what the cut takes away.
    """
    drawn = std / _CUT_DEVIATION if corrected else std
    nn.init.trunc_normal_(tensor, std=drawn, a=-2 * drawn, b=2 * drawn)


class Projection(nn.Linear):
    """Bias-free linear map that knows the scale of its own initialisation."""

    def __init__(self, in_features: int, out_features: int, init_std: float | None = None) -> None:
        """`init_std` defaults to LeCun's 1 / sqrt(in_features), which keeps unit inputs at unit scale."""
        super().__init__(in_features, out_features, bias=False)
        self.init_std = 1 / math.sqrt(in_features) if init_std is None else init_std

    def init_weight(self, corrected: bool) -> None:
        """Normal with standard deviation `init_std`, see `cut_normal_`."""
        cut_normal_(self.weight, self.init_std, corrected)
