"""What several adapters say in the same words."""

from __future__ import annotations

from collections.abc import Iterable

STRANGERS_CHECKPOINT = "the checkpoint was not trained with AutoLR, which begins with the steps that are left"


def overruled(schedule: str) -> str:
    """That the user's own `schedule` has no say."""
    return f"AutoLR finds and steers the learning rate: {schedule} is overruled"


def unheeded(wanted: str, setting: str, there: Iterable[str]) -> str:
    """That no evaluation has the loss `wanted`, but those that are `there`, which `setting` can name."""
    named = ", ".join(there)
    such = f", such as {named}" if named else ""
    return f"AutoLR heeds no evaluation, for none has {wanted}: name another loss by {setting}{such}"
