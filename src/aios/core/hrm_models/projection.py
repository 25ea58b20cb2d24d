"""The one kind of linear map HRM is made of."""

from __future__ import annotations

import math

from torch import nn


class Projection(nn.Linear):
    """Bias-free linear map that knows the scale of its own initialisation."""

    def __init__(self, in_features: int, out_features: int, init_std: float | None = None) -> None:
        """`init_std` defaults to LeCun's 1 / sqrt(in_features), which keeps unit inputs at unit scale."""
        super().__init__(in_features, out_features, bias=False)
        self.init_std = 1 / math.sqrt(in_features) if init_std is None else init_std

    def init_weight(self) -> None:
        """Normal with standard deviation `init_std`, cut off at two of them."""
        nn.init.trunc_normal_(self.weight, std=self.init_std, a=-2 * self.init_std, b=2 * self.init_std)
