"""Preloaded by the fork server: everything that a run of `aios` imports, so that its children need not."""

from __future__ import annotations

import gc
import importlib
import pkgutil

import aios
import aios.core.hrm_models  # with it torch and transformers
from faults.parsed import parse_once

# Their first use imports more, seconds each.
LATE = ("accelerate", "peft", "deepspeed.accelerator", "matplotlib.figure", "torch.distributed", "torch._dynamo")

for module in pkgutil.walk_packages(aios.__path__, "aios."):
    if not module.name.endswith("__main__") and not module.name.startswith(("aios.gui.", "aios.integrations.")):
        importlib.import_module(module.name)
for name in LATE:
    if importlib.util.find_spec(name.partition(".")[0]) is not None:
        importlib.import_module(name)
parse_once()
gc.freeze()  # or each child's first full collection looks at all of this, and has every page of it copied
