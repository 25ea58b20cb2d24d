"""What is done with a brain in the list besides training it: another name, notes, its folder shown, deleted."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tkinter as tk
from collections.abc import Callable
from functools import partial
from pathlib import Path

from aios.brains.brain_list import Brain
from aios.brains.notes import read_notes, write_notes
from aios.errors import UserError
from aios.gui.automation import Inspector
from aios.gui.brain_folders import contents, delete_brain, rename_brain, why_not_renamed
from aios.gui.dialogs import Answer, Dialog, ask, ask_line
from aios.gui.look import Look
from aios.gui.read_only_text import move_on
from aios.gui.tooltip import Tooltip
from aios.quantities import show_bytes

_OPENERS = {"linux": (("xdg-open",), ("gio", "open")), "darwin": (("open",),)}
_LOOK_MS = 200


class BrainCare:
    """Asks, and does it; `moved(brain, folder)` is called once a brain has another folder (None: it is gone)."""

    def __init__(
        self, root: tk.Tk, look: Look, inspector: Inspector, moved: Callable[[Brain, Path | None], None]
    ) -> None:
        self._root, self._look, self._inspector, self._moved = root, look, inspector, moved

    @property
    def acts(self) -> dict[str, Callable[[list[Brain]], None]]:
        """What the buttons of the list do with the brain selected."""
        acts = {"rename": self.rename, "notes": self.annotate, "delete": self.delete, "folder": self.open_folder}
        return {name: partial(_with_first, act) for name, act in acts.items()}

    def rename(self, brain: Brain) -> None:
        """Ask for another name, and give it.

        Raises:
            UserError: when that cannot be done any more.
        """
        text = "Its folder gets that name. “brain.json” and the log tell it from the next training on."
        dialog = Dialog(self._root, self._look, self._inspector, f"Rename {brain.name}", text)
        answers = [
            Answer("cancel", "Cancel", "Leave the name as it is."),
            Answer("rename", "Rename", "Give the brain this name.", "Accent.TButton"),
        ]
        tip = "The name of the brain and of its folder."
        name = ask_line(
            dialog, self._inspector, "rename.name", ("New name", tip), brain.name,
            lambda text: why_not_renamed(brain, text), answers,
        )  # fmt: skip
        if name is not None and name != brain.name:
            self._moved(brain, rename_brain(brain, name))

    def annotate(self, brain: Brain) -> None:
        """Have the notes edited.

        Raises:
            UserError: when they cannot be kept.
        """
        text = "What is to be remembered: it is kept in the brain's folder, as notes.txt."
        dialog = Dialog(self._root, self._look, self._inspector, f"Notes on {brain.name}", text)
        p, pad = self._look.palette, self._look.px(8)
        field = tk.Text(
            dialog.body, width=40, height=8, wrap="word", font="TkDefaultFont", undo=True, relief="flat", borderwidth=0,
            padx=pad, pady=pad, highlightthickness=1, highlightbackground=p.border, highlightcolor=p.accent,
        )  # fmt: skip
        field.grid(row=2, column=0, sticky="nsew", pady=(0, self._look.px(16)))
        field.insert("1.0", read_notes(brain.folder))
        field.bind("<Tab>", move_on)
        written = ""

        def take(_: str) -> bool:
            nonlocal written
            written = field.get("1.0", "end-1c")
            return True

        field.bind("<Control-Return>", lambda _: dialog.press("save", take))
        Tooltip(field, "Your notes; Ctrl+Enter saves them.")
        self._inspector.name("notes.text", field)
        dialog.add_buttons(
            [
                Answer("cancel", "Cancel", "Leave the notes as they were."),
                Answer("save", "Save", "Keep these notes (Ctrl+Enter).", "Accent.TButton"),
            ],
            take,
        )
        if dialog.wait(field) == "save":
            write_notes(brain.folder, written)
            self._moved(brain, brain.folder)

    def delete(self, brain: Brain) -> None:
        """Ask, and delete it.

        Raises:
            UserError: when that cannot be done.
        """
        held = contents(brain.folder)
        text = (
            f"{brain.folder.absolute()} goes with its {held.files:,} files ({show_bytes(held.bytes)}): the brain, its "
            "checkpoints, its log and notes. It cannot be brought back."
        )
        if not brain.log.absolute().is_relative_to(brain.folder.absolute()):
            text += f" Its log {brain.log} stays."
        if held.strange:
            text += f" What is in it besides goes, too: {show_names(held.strange)}."
        answers = [
            Answer("delete", "Delete", "Delete the brain and its folder.", "Danger.TButton"),
            Answer("cancel", "Cancel", "Keep it."),
        ]
        if ask(self._root, self._look, self._inspector, f"Delete {brain.name}?", text, answers) == "delete":
            delete_brain(brain)
            self._moved(brain, None)

    def open_folder(self, brain: Brain) -> None:
        """Show the brain's folder in the file manager.

        Raises:
            UserError: when there is none that could.
        """
        folder = brain.folder.absolute()
        quiet = subprocess.DEVNULL
        command = opener(folder)
        opening = subprocess.Popen(
            [*command, str(folder)], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        self._root.after(_LOOK_MS, self._see_it_open, opening, command[0], folder)

    def _see_it_open(self, opening: subprocess.Popen[bytes], program: str, folder: Path) -> None:
        code = opening.poll()
        if code is None:
            self._root.after(_LOOK_MS, self._see_it_open, opening, program, folder)
        elif code != 0:
            raise UserError(f"{program} could not open {folder}; open it in a file manager of yours.")


def _with_first(act: Callable[[Brain], None], brains: list[Brain]) -> None:
    act(brains[0])


def opener(folder: Path) -> tuple[str, ...]:
    """The command that opens a folder in this system's file manager.

    Raises:
        UserError: when there is none.
    """
    known = _OPENERS.get(sys.platform, _OPENERS["linux"])
    found = next((command for command in known if shutil.which(command[0]) is not None), None)
    if found is None:
        names = " nor ".join(command[0] for command in known)
        raise UserError(f"There is no {names} here that would open a folder; it is {folder}.")
    return found


def show_names(names: list[str], most: int = 5) -> str:
    """The first few of some names."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
