"""What several adapters say in the same words."""

from __future__ import annotations

STRANGERS_CHECKPOINT = "the checkpoint was not trained with AutoLR, which begins with the steps that are left"

JOINS_LATE = (
    "a param group joined the optimizer after training had begun, and no copy of the training state has it: hand all "
    "weights to the optimizer at once; those without requires_grad stay as they are until they get it"
)

UNSEEN_STEP = (
    "an optimizer has stepped without AutoLR, which takes the loss from self.manual_backward(loss) and the step from "
    "the optimizer that self.optimizers() gives: use these two in training_step, loss first"
)


def shares_out(strategy: str) -> str:
    """Why workers that share out the weights cannot be steered."""
    return (
        f"AutoLR cannot copy a training state that {strategy} shares out among the workers; use DDP, or a schedule of "
        "your own"
    )


def overruled(schedule: str) -> str:
    """That the user's own `schedule` has no say."""
    return f"AutoLR finds and steers the learning rate: {schedule} is overruled"
