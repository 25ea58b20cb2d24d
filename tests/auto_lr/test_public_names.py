"""What `aios.auto_lr` offers, and that nothing of it costs torch before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import aios.auto_lr


@pytest.mark.parametrize("name", aios.auto_lr.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(aios.auto_lr, name) is not None


def test_no_other_name_is_looked_up() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Adam'"):
        _ = aios.auto_lr.Adam


def test_the_package_and_its_pure_parts_load_no_torch() -> None:
    look = "from aios.auto_lr import AutoLRConfig, Found, RunError; import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
