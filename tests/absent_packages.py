"""A machine on which packages are not installed, for processes started with the PYTHONPATH that `hide` returns."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_CUSTOM = """
import importlib.abc, importlib.util, sys
HIDDEN = {packages!r}
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name.partition(".")[0] in HIDDEN else find(name, *a)
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""


def hide(folder: Path, *packages: str) -> str:
    """A PYTHONPATH, through a `sitecustomize` in `folder`, under which the packages are neither found nor imported."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_CUSTOM.format(packages=packages), encoding="utf-8")
    return os.pathsep.join([str(folder), *filter(None, sys.path)])
