"""Settings from a file and into one, of the kind that `aios hrm-hf train --config FILE` takes."""

from __future__ import annotations

import tkinter as tk
from tkinter import filedialog
from typing import Any

from aios.errors import UserError
from aios.gui.form import FormCheck
from aios.settings.config_file import load_config_file, save_config_file

_TYPES = [("Settings", "*.toml *.yaml *.yml *.json"), ("All files", "*")]


def ask_and_import(parent: tk.Misc) -> dict[str, Any] | None:
    """The settings in a file that is asked for, None when no file was chosen.

    Raises:
        UserError: when it is no settings file.
    """
    path = filedialog.askopenfilename(parent=parent, title="Import settings", filetypes=_TYPES)
    return load_config_file(path) if path else None


def ask_and_export(parent: tk.Misc, check: FormCheck) -> None:
    """Write the form's settings into a file that is asked for.

    Raises:
        UserError: when they have problems, or the file cannot be written.
    """
    if check.config is None:
        raise UserError(f"These settings cannot be exported yet. {check.reason}")
    path = filedialog.asksaveasfilename(
        parent=parent, title="Export settings", filetypes=_TYPES, defaultextension=".toml",
        initialfile=f"{check.config.brain_name}.toml",
    )  # fmt: skip
    if path:
        save_config_file(check.config, path)
