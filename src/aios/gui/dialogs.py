"""Questions to the person at the window: modal, in the window's own look, answered by mouse or keyboard."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable, Sequence
from functools import partial
from tkinter import font as tkfont
from tkinter import ttk
from typing import NamedTuple

from aios.gui.automation import Inspector
from aios.gui.field_widgets import wrapped_label
from aios.gui.look import Look
from aios.gui.read_only_text import ReadOnlyText
from aios.gui.tooltip import Tooltip

_BESIDE_KEYS = 190  # pixels at 96 dpi: what stands above and below the table of keys, a title bar included


class Answer(NamedTuple):
    """One button of a question."""

    name: str
    """What `ask` returns for it."""
    text: str
    """What stands on it; the first letter, with Alt, presses it."""
    tip: str
    """Its tooltip."""
    style: str = "TButton"
    """Its ttk style."""


class Dialog:
    """A modal window over `parent` with a title, a text, room for more widgets, and a row of buttons."""

    def __init__(self, parent: tk.Misc, look: Look, inspector: Inspector, title: str, text: str) -> None:
        self.window = tk.Toplevel(parent)
        self.window.withdraw()
        self.window.title(title)
        self.window.transient(parent.winfo_toplevel())
        self._parent, self.look, self._inspector = parent.winfo_toplevel(), look, inspector
        self.result: str | None = None
        border = tk.Frame(self.window, background=look.palette.border, padx=1, pady=1)
        border.pack(fill="both", expand=True)
        self.body = ttk.Frame(border, padding=look.px(16))
        self.body.pack(fill="both", expand=True)
        self.body.columnconfigure(0, weight=1, minsize=look.px(440))
        heading = ttk.Label(self.body, text=title, font=look.fonts["title"], wraplength=look.px(440))
        heading.grid(row=0, column=0, sticky="w")
        message = wrapped_label(self.body, "TLabel", text)
        message.configure(wraplength=look.px(440))
        message.grid(row=1, column=0, sticky="ew", pady=(look.px(8), look.px(16)))
        inspector.name("dialog", message)
        self.window.protocol("WM_DELETE_WINDOW", self.window.destroy)
        self.window.bind("<Escape>", lambda _: self.window.destroy())

    def add_buttons(
        self, answers: Sequence[Answer], accept: Callable[[str], bool] = lambda _: True
    ) -> list[ttk.Button]:
        """A row of buttons; pressing one closes the dialog if `accept(name)` agrees. Enter presses the focused one."""
        row = ttk.Frame(self.body)
        row.grid(row=9, column=0, sticky="e")
        buttons = []
        for column, answer in enumerate(answers):
            button = ttk.Button(
                row,
                text=answer.text,
                underline=0,
                style=answer.style,
                command=partial(self.press, answer.name, accept),
            )
            button.grid(row=0, column=column, padx=(self.look.px(8) if column else 0, 0))
            self.window.bind(f"<Alt-{answer.text[0].lower()}>", partial(self._press_by_key, answer.name, accept))
            Tooltip(button, answer.tip)
            self._inspector.name(f"answer.{answer.name}", button)
            buttons.append(button)
        return buttons

    def press(self, name: str, accept: Callable[[str], bool]) -> None:
        """Close the dialog with an answer if `accept(name)` agrees."""
        if accept(name):
            self.result = name
            self.window.destroy()

    def _press_by_key(self, name: str, accept: Callable[[str], bool], _event: object) -> None:
        self.press(name, accept)

    def wait(self, focus: tk.Misc) -> str | None:
        """Show it, with the keyboard on `focus`, until it is answered; None when it was closed unanswered."""
        window, parent = self.window, self._parent
        window.update_idletasks()
        left = parent.winfo_rootx() + (parent.winfo_width() - window.winfo_reqwidth()) // 2
        top = parent.winfo_rooty() + (parent.winfo_height() - window.winfo_reqheight()) // 3
        window.geometry(f"+{max(0, left)}+{max(0, top)}")
        window.deiconify()
        window.wait_visibility()
        window.grab_set()
        focus.focus_force()
        parent.wait_window(window)
        return self.result


def ask(
    parent: tk.Misc, look: Look, inspector: Inspector, title: str, text: str, answers: Sequence[Answer]
) -> str | None:
    """The name of the answer chosen, None when the question was closed. The last answer has the focus."""
    dialog = Dialog(parent, look, inspector, title, text)
    buttons = dialog.add_buttons(answers)
    return dialog.wait(buttons[-1])


def tell(parent: tk.Misc, look: Look, inspector: Inspector, title: str, text: str) -> None:
    """A message to be acknowledged."""
    ask(parent, look, inspector, title, text, [Answer("ok", "OK", "Close this message.", "Accent.TButton")])


def ask_close(parent: tk.Misc, look: Look, inspector: Inspector, name: str, queued: int) -> str | None:
    """What becomes of the training of brain `name` when the window closes: `keep`, `stop`; else the window stays.

    `queued`: how many runs wait for its end.
    """
    text = (
        "The training can go on without the window; opening the window again finds it. "
        "Or let it save and stop first: the window closes when that is done."
    )
    if queued:
        text += f" What is queued ({queued}) waits until a window is open again."
    answers = (
        Answer("cancel", "Cancel", "Leave the window open."),
        Answer("stop", "Stop and save", "Save, stop, then close."),
        Answer("keep", "Keep training", "Close the window only.", "Accent.TButton"),
    )
    return ask(parent, look, inspector, f"“{name}” is still training", text, answers)


def ask_steps(parent: tk.Misc, look: Look, inspector: Inspector, name: str, done: int, proposed: int) -> int | None:
    """Up to which step the brain `name`, trained to `done`, is to be trained; None: not at all."""
    text = f"“{name}” is trained to step {done:,}. Everything but the number of steps stays as its last run had it."
    dialog = Dialog(parent, look, inspector, f"Continue {name}", text)
    answers = [
        Answer("cancel", "Cancel", "Leave the brain as it is."),
        Answer("continue", "Train on", "Start training from the newest checkpoint.", "Accent.TButton"),
    ]

    def check(text: str) -> str | None:
        good = text.strip().isdecimal() and int(text) > done
        return None if good else f"Write a whole number above {done:,}."

    tip = "The total number of steps, those already done included."
    written = ask_line(dialog, inspector, "continue.steps", ("Train up to step", tip), str(proposed), check, answers)
    return int(written) if written is not None else None


def ask_line(
    dialog: Dialog,
    inspector: Inspector,
    name: str,
    label: tuple[str, str],
    proposed: str,
    check: Callable[[str], str | None],
    answers: Sequence[Answer],
) -> str | None:
    """A line that is typed in `dialog`, None when it was closed or its first answer, of two, was chosen.

    `label` is what stands over the field, and its tooltip; `check(text)` says what is wrong with a line, None: nothing.
    The field is told as `name`, the problem beneath it as `problem` with the first part of the name.
    """
    look, accept = dialog.look, answers[-1].name
    ttk.Label(dialog.body, text=label[0]).grid(row=2, column=0, sticky="w")
    value = tk.StringVar(dialog.window, value=proposed)
    entry = ttk.Entry(dialog.body, textvariable=value)
    entry.grid(row=3, column=0, sticky="ew")
    Tooltip(entry, label[1])
    problem = wrapped_label(dialog.body, "Problem.TLabel")
    problem.grid(row=4, column=0, sticky="ew", pady=(0, look.px(16)))
    inspector.name(name, entry)
    inspector.name(f"{name.partition('.')[0]}.problem", problem)

    def is_good(*_: object) -> bool:
        wrong = check(value.get())
        problem.configure(text=wrong or "")
        entry.state(["invalid" if wrong else "!invalid"])
        return wrong is None

    value.trace_add("write", is_good)
    dialog.add_buttons(answers, accept=lambda pressed: pressed != accept or is_good())
    entry.bind("<Return>", lambda _: dialog.press(accept, lambda _: is_good()))
    entry.selection_range(0, "end")
    return value.get() if dialog.wait(entry) == accept else None


def show_text(parent: tk.Misc, look: Look, inspector: Inspector, title: str, text: str) -> None:
    """A longer text to scroll through and copy from, its end in view."""
    dialog = Dialog(parent, look, inspector, title, "The newest lines are at the end.")
    column = int(parent.tk.call("font", "measure", "TkFixedFont", "0"))
    shown = ReadOnlyText(dialog.body, look, "TkFixedFont")
    shown.text.configure(width=min(96, int(0.8 * parent.winfo_toplevel().winfo_width() / column)), height=16)
    shown.grid(row=2, column=0, sticky="nsew", pady=(0, look.px(16)))
    shown.show(text)
    shown.text.see("end")
    _scroll_by_keys(dialog, shown)
    dialog.wait(dialog.add_buttons([Answer("ok", "OK", "Close this text.", "Accent.TButton")])[0])


def show_keys(parent: tk.Misc, look: Look, inspector: Inspector, keys: Sequence[tuple[str, str]]) -> None:
    """A table of keys and what they do, scrolled where the screen is too low for all."""
    dialog = Dialog(parent, look, inspector, "Keys", "Everything can be done from the keyboard.")
    plain, strong, gap = tkfont.nametofont("TkDefaultFont", parent), look.fonts["strong"], look.px(4)
    first = max(strong.measure(key) for key, _ in keys) + look.px(16)
    across = first + max(plain.measure(meaning) for _, meaning in keys) + look.px(16)
    across = min(across, parent.winfo_screenwidth() - look.px(60))
    room = (parent.winfo_screenheight() - look.px(_BESIDE_KEYS)) // (plain.metrics("linespace") + gap)
    table = ReadOnlyText(dialog.body, look)
    table.text.configure(
        width=across // plain.measure("0"), height=max(1, min(len(keys), room)), tabs=(first,), spacing3=gap
    )
    table.text.tag_configure("line", lmargin2=first)  # of one that is wrapped
    table.text.tag_configure("key", font=strong)
    table.show("\n".join(f"{key}\t{meaning}" for key, meaning in keys))
    for line, (key, _) in enumerate(keys, start=1):
        table.text.tag_add("key", f"{line}.0", f"{line}.{len(key)}")
    table.text.tag_add("line", "1.0", "end")
    table.grid(row=2, column=0, sticky="nsew", pady=(0, look.px(16)))
    inspector.name("keys", table.text)
    _scroll_by_keys(dialog, table)
    dialog.wait(dialog.add_buttons([Answer("ok", "OK", "Close this table.", "Accent.TButton")])[0])


def _scroll_by_keys(dialog: Dialog, shown: ReadOnlyText) -> None:
    """Have the arrows and the page keys scroll a text, which does not take the keyboard itself."""
    for key, by, what in (("Up", -1, "units"), ("Down", 1, "units"), ("Prior", -1, "pages"), ("Next", 1, "pages")):
        dialog.window.bind(f"<{key}>", lambda _, by=by, what=what: shown.text.yview_scroll(by, what))  # type: ignore[misc]


def sure_to_kill(parent: tk.Misc, look: Look, inspector: Inspector) -> bool:
    """Whether a training is to be killed, after a question."""
    text = "What was learnt since the newest checkpoint is lost. “Stop and save” ends the training without a loss."
    answers = [
        Answer("kill", "Kill", "End the process at once.", "Danger.TButton"),
        Answer("cancel", "Cancel", "Let it train on."),
    ]
    return ask(parent, look, inspector, "Kill the training?", text, answers) == "kill"
