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


def unfinished(left: int, setting: str) -> str:
    """That a run has ended `left` steps too soon, which `setting` can say beforehand."""
    return (
        f"the run has ended {left} steps before AutoLR's end, and its learning rate has not gone down to zero, where "
        f"the loss falls once more: say {setting}, the updates that such a run makes; in place of early stopping "
        'AutoLRConfig(on_overfit="finish") anneals before it ends'
    )
