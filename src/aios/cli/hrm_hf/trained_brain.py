"""A trained brain to be used: which of its weights, and the model and tokenizer that they come with.

Imports torch only once there is something to open, so that a wrong name is refused at once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from aios.errors import UserError
from aios.file_names import CONFIG_FILE
from aios.runs.brain import best_dir, holds_brain
from aios.runs.lock import holder_of
from aios.settings.config import TrainingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from aios.core.hrm_models import HRMForCausalLM

Which = Literal["newest", "best", "published"]
_TRIES = 5
"""How often a brain is looked for that a training keeps replacing."""
_NAMED = 5
"""How many brains a sentence names at most."""


@dataclass(frozen=True)
class WeightsPlace:
    """Where the weights of a brain lie."""

    folder: Path
    """Holds model and config."""
    tokenizer: Path
    """Holds the tokenizer."""
    remarks: tuple[str, ...] = ()
    """Damaged checkpoints passed over, a tokenizer from elsewhere; a sentence each."""


@dataclass(frozen=True)
class TrainedBrain:
    """A model that can be asked, and its tokenizer."""

    model: HRMForCausalLM
    """In evaluation mode, on its device."""
    tokenizer: PreTrainedTokenizerBase
    """The one that it was trained with."""

    @property
    def window(self) -> int:
        """Tokens that the model can look back on."""
        return int(self.model.config.max_position_embeddings)


def find_weights(config: TrainingConfig, which: Which | None) -> WeightsPlace:
    """The weights of the brain that `config` names: `which`, by default those it shows, in training the newest saved.

    Raises:
        UserError: when there is no such brain, or it has no such weights.
    """
    brain_dir = config.brain_dir
    if not os.path.isdir(brain_dir):
        raise UserError(f"There is no brain {brain_dir}; {_others(config)}.")
    trained = holder_of(brain_dir) is not None
    if which == "best":
        if not _shows_brain(best_dir(brain_dir)):
            raise UserError(f"{brain_dir} keeps no best evaluation (yet); leave --checkpoint out.")
        return WeightsPlace(best_dir(brain_dir), best_dir(brain_dir))
    if not holds_brain(brain_dir):
        remedy = (
            "wait for its first checkpoint (--save-every)" if trained else "train it first with `aios hrm-hf train`"
        )
        raise UserError(f"{brain_dir} holds no weights yet; {remedy}.")
    if which == "published" or (which is None and not trained and _shows_brain(brain_dir)):
        return WeightsPlace(brain_dir, brain_dir)
    return _newest(brain_dir)


def _shows_brain(folder: Path) -> bool:
    return (folder / CONFIG_FILE).exists()


def _newest(brain_dir: Path) -> WeightsPlace:
    from aios.runs.newest_checkpoint import find_newest

    newest = find_newest(brain_dir, "open", "try --checkpoint published")
    return WeightsPlace(newest.path, newest.tokenizer, newest.remarks)


def _others(config: TrainingConfig) -> str:
    """The remedy for a name that no brain has."""
    bundle = Path(config.bundle_dir)
    names = sorted(path.name for path in bundle.iterdir() if holds_brain(path)) if os.path.isdir(bundle) else []
    if not names:
        return "choose another --brain-name or --bundle-dir, or train it first with `aios hrm-hf train`"
    more = ", ..." if len(names) > _NAMED else ""
    return f"choose another --brain-name ({', '.join(names[:_NAMED])}{more}) or --bundle-dir"


def open_while_trained(
    found: WeightsPlace, config: TrainingConfig, which: Which | None
) -> tuple[WeightsPlace, TrainedBrain]:
    """Where it was found in the end, and `open_brain` of that; `found` is what `find_weights` said a while ago.

    A training that goes on drops old checkpoints, perhaps this one: then the newest is looked for again.

    Raises:
        UserError: as both of them.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            return found, open_brain(found, config)
        except UserError:
            if tries_left == 0 or os.path.isdir(found.folder):
                raise
            found = find_weights(config, which)
    raise AssertionError("the last try returns or raises")


def open_brain(found: WeightsPlace, config: TrainingConfig) -> TrainedBrain:
    """Load what `find_weights` found, on the device that `config` asks for; runs none of its code.

    Raises:
        UserError: when it cannot be read, is no HRM, or asks for code; when there is no such device.
    """
    import transformers

    from aios.cli.hrm_hf.model_setup import check_vocabulary
    from aios.core.hrm_models import load_model, read_config
    from aios.data.tokenizer import load_tokenizer
    from aios.engines.device import choose_device

    transformers.utils.logging.set_verbosity_error()  # it reminds of the window, which moves on by itself
    device = choose_device(config)
    hrm_config = read_config(found.folder)
    tokenizer = load_tokenizer(str(found.tokenizer))
    check_vocabulary(found.folder, hrm_config, tokenizer, "choose another --brain-name")
    return TrainedBrain(load_model(found.folder, hrm_config).to(device), tokenizer)
