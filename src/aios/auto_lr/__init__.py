"""The learning rate nobody has to choose: the controller; torch only in `api` and `loop`, nothing of the HRM, no files.

The public names are imported from here; they load when they are first asked for, so that the pure parts cost no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aios.errors import RunError

if TYPE_CHECKING:
    from aios.auto_lr.adaptive_lr import AdaptiveLRConfig, AdaptiveLRScheduler
    from aios.auto_lr.api import AutoLR
    from aios.auto_lr.climb_config import ClimbConfig
    from aios.auto_lr.loop.engine import Engine
    from aios.auto_lr.loop.feed import BatchFeed
    from aios.auto_lr.loop.readback import StepReport
    from aios.auto_lr.loop.roles import roles_of
    from aios.auto_lr.loop.update import UpdateGuard
    from aios.auto_lr.param_groups import GroupSettings
    from aios.auto_lr.plan import AutoLRConfig
    from aios.auto_lr.race import RaceConfig
    from aios.auto_lr.rules import NoiseRules
    from aios.auto_lr.search import Found, Trial
    from aios.auto_lr.trouble_config import TroubleConfig

__all__ = [
    "AdaptiveLRConfig",
    "AdaptiveLRScheduler",
    "AutoLR",
    "AutoLRConfig",
    "BatchFeed",
    "ClimbConfig",
    "Engine",
    "Found",
    "GroupSettings",
    "NoiseRules",
    "RaceConfig",
    "RunError",
    "StepReport",
    "Trial",
    "TroubleConfig",
    "UpdateGuard",
    "roles_of",
]
_HOME = {
    **dict.fromkeys(("AdaptiveLRConfig", "AdaptiveLRScheduler"), "adaptive_lr"),
    "AutoLR": "api",
    "StepReport": "loop.readback",
    "AutoLRConfig": "plan",
    **dict.fromkeys(("Found", "Trial"), "search"),
    "RaceConfig": "race",
    "BatchFeed": "loop.feed",
    "ClimbConfig": "climb_config",
    "Engine": "loop.engine",
    "GroupSettings": "param_groups",
    "NoiseRules": "rules",
    "TroubleConfig": "trouble_config",
    "UpdateGuard": "loop.update",
    "roles_of": "loop.roles",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
