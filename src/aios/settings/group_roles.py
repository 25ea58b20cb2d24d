"""The roles of the trainer's param groups, which settings files and optimizers name alike."""

from __future__ import annotations

from aios.auto_lr.param_groups import BASE

ROUTER, ADAPTER = "router", "adapter"
"""Routers of a mixture of experts; LoRA adapters."""
ROLES = (BASE, ROUTER, ADAPTER)
"""All there are."""
