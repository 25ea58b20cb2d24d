"""What several adapters say in the same words."""

from __future__ import annotations

STRANGERS_CHECKPOINT = "the checkpoint was not trained with AutoLR, which begins with the steps that are left"


def overruled(schedule: str) -> str:
    """That the user's own `schedule` has no say."""
    return f"AutoLR finds and steers the learning rate: {schedule} is overruled"
