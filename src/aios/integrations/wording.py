"""What several adapters say in the same words."""

from __future__ import annotations

STRANGERS_CHECKPOINT = "the checkpoint was not trained with AutoLR, which begins with the steps that are left"


def shares_out(strategy: str) -> str:
    """Why workers that share out the weights cannot be steered."""
    return (
        f"AutoLR cannot copy a training state that {strategy} shares out among the workers; use DDP, or a schedule of "
        "your own"
    )


def overruled(schedule: str) -> str:
    """That the user's own `schedule` has no say."""
    return f"AutoLR finds and steers the learning rate: {schedule} is overruled"
