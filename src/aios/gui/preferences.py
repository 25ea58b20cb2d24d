"""What the window remembers between starts: the form's settings, the theme, its size, recent datasets. No Tk here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from aios.core.foreign_json import parse_json
from aios.errors import UserError
from aios.files import replace_file
from aios.places import config_folder
from aios.settings.config import TrainingConfig
from aios.settings.config_file import load_config_file, save_config_file
from aios.settings.settings_file import read_small_file

MOST_RECENT = 8
"""Datasets remembered."""
Theme = Literal["light", "dark"]
"""Of the window; what they look like says `gui.look`."""


@dataclass
class Preferences:
    """Kept in `window.json`; the form's settings lie beside it in `training.toml`, which `--config` takes."""

    theme: Theme = "light"
    """How the window looks."""
    geometry: str = ""
    """Size and place of the window, as Tk writes it; empty: its own choice."""
    maximised: bool = False
    """Whether the window was maximised."""
    form_folded: bool = True
    """Whether the form was folded away beside the run on show."""
    runs_column: str = ""
    """The column that the list of runs is sorted by; empty: the brain written to last comes first."""
    runs_descending: bool = False
    """Whether it is sorted from the largest on."""
    datasets: list[str] = field(default_factory=list)
    """Datasets trained on last, newest first."""

    def remember_dataset(self, dataset: str | None) -> None:
        """Put a dataset first in the list."""
        if dataset is not None:
            self.datasets = [dataset, *(d for d in self.datasets if d != dataset)][:MOST_RECENT]


def load_preferences() -> Preferences:
    """What was remembered; the defaults where nothing was, or where it is damaged."""
    try:
        read = Preferences(**parse_json(read_small_file(config_folder() / "window.json").decode("utf-8")))
    except (UserError, ValueError, TypeError, RecursionError):
        return Preferences()
    return read if _is_usable(read) else Preferences()


def _is_usable(read: Preferences) -> bool:
    """Whether every value is of its kind, and the theme one that there is."""
    kinds = {name: type(value) for name, value in asdict(Preferences()).items()}
    right = all(type(getattr(read, name)) is kind for name, kind in kinds.items())
    return right and read.theme in get_args(Theme) and all(isinstance(dataset, str) for dataset in read.datasets)


def load_form() -> dict[str, Any]:
    """The form's settings as they were left; none where they are damaged or of another version."""
    try:
        settings = load_config_file(config_folder() / "training.toml")
        TrainingConfig(**settings)
    except UserError:
        return {}
    return settings


def save_all(preferences: Preferences, config: TrainingConfig | None) -> None:
    """Remember; a form with problems (`config` None) leaves the settings remembered before.

    Raises:
        UserError: when the folder cannot be written in.
    """
    folder = config_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = json.dumps(asdict(preferences), indent=1).encode()
        replace_file(folder / "window.json", lambda file: file.write(written))
    except OSError as error:
        raise UserError(f"{folder} cannot be written in ({error.strerror}); settings are not remembered.") from error
    if config is not None:
        save_config_file(config, folder / "training.toml")
