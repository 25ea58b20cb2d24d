"""What a resumed run takes over from its checkpoint: never a place to write to outside the brain's own folder.

A checkpoint may come from somebody else, who must not choose which of this machine's files are written or removed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aios.errors import shown
from aios.places import expanded
from aios.run_view.logged_settings import OUTPUTS
from aios.settings.flag_values import flag_name

_PLACE = ("bundle_dir", "brain_name", "resume")  # where the brain is now: only the flags say that


def inherit(saved: Mapping[str, Any], given: Mapping[str, Any], brain_dir: Path) -> tuple[dict[str, Any], list[str]]:
    """(settings of the resumed run that go on, a sentence for each that must be given again).

    `saved` is the config of the checkpoint, `given` what this run was told, `brain_dir` the brain's folder.
    """
    left = {name: saved[name] for name in OUTPUTS if _leads_outside(saved.get(name), brain_dir)}
    kept = {name: value for name, value in saved.items() if name not in _PLACE and name not in left}
    return kept, [_sentence(name, value, brain_dir) for name, value in left.items() if name not in given]


def _leads_outside(value: object, brain_dir: Path) -> bool:
    if not isinstance(value, str):
        return False  # None, or nothing that a config takes
    try:
        return not Path(os.path.realpath(expanded(value))).is_relative_to(os.path.realpath(brain_dir))
    except ValueError:  # a NUL character
        return True


def _sentence(name: str, value: str, brain_dir: Path) -> str:
    return (
        f"The resumed run's {flag_name(name)} {shown(value)} is outside {brain_dir}, so it was not taken over; give "
        f"{flag_name(name)} again to go on using it."
    )
