"""One setting in the form: its label, the widget that edits it, and beneath it what is wrong with it."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable
from tkinter import filedialog, ttk

from aios.gui.automation import Inspector
from aios.gui.form import BUNDLED_TEXT, FieldSpec, Text
from aios.gui.look import Look
from aios.gui.tooltip import Tooltip

_LABEL_EDGE = 4  # pixels of a label's width that its text cannot use

Changed = Callable[[str, Text], None]


class FieldWidget:
    """A frame with one field of the form; tells every change, as it is typed, to `changed(name, text)`."""

    def __init__(self, parent: tk.Misc, spec: FieldSpec, look: Look, inspector: Inspector, changed: Changed) -> None:
        self.spec = spec
        self.frame = ttk.Frame(parent)
        self.frame.columnconfigure(0, weight=1)
        self._look = look
        self._inspector = inspector
        self._variable: tk.Variable = tk.BooleanVar() if spec.kind == "switch" else tk.StringVar()
        self._variable.trace_add("write", lambda *_: changed(spec.name, self._variable.get()))
        self._buttons: list[ttk.Button] = []
        self._unset: ttk.Label | None = None
        self.label: ttk.Label | None = None
        if spec.kind != "switch":
            self.label = ttk.Label(self.frame, text=spec.label)
            self.label.grid(row=0, column=0, sticky="w")
        self.widget = self._make_widget()
        self.widget.grid(row=1, column=0, columnspan=3, sticky="ew", pady=(look.px(2), 0))
        self._tip = Tooltip(self.widget, spec.help)
        if self.label is not None:
            Tooltip(self.label, spec.help)
            inspector.name(f"label.{spec.name}", self.label)
        self._problem = wrapped_label(self.frame, "Problem.TLabel")
        self._hint = wrapped_label(self.frame, "Muted.TLabel")
        inspector.name(f"field.{spec.name}", self.widget)
        inspector.name(f"problem.{spec.name}", self._problem)

    def _make_widget(self) -> ttk.Widget:
        spec = self.spec
        if spec.kind == "switch":
            return ttk.Checkbutton(self.frame, text=spec.label, variable=self._variable)
        if spec.kind == "choice":
            return ttk.Combobox(
                self.frame, textvariable=self._variable, values=spec.choices, state="readonly", width=8, height=8
            )
        if spec.kind == "text":
            return ttk.Entry(self.frame, textvariable=self._variable, width=8)
        if spec.kind == "folder":
            self._add_button("Folder…", self._choose_folder, 1)
            return ttk.Entry(self.frame, textvariable=self._variable, width=8)
        self._add_button("File…", self._choose_file, 1)
        if spec.kind == "file":
            return ttk.Entry(self.frame, textvariable=self._variable, width=8)
        self._add_button("Folder…", self._choose_folder, 2)
        if spec.name != "dataset_file":
            return ttk.Entry(self.frame, textvariable=self._variable, width=8)
        return ttk.Combobox(self.frame, textvariable=self._variable, values=(BUNDLED_TEXT,), width=8)

    def _add_button(self, text: str, command: Callable[[], None], column: int) -> None:
        button = ttk.Button(self.frame, text=text, command=command, style="Small.TButton")
        button.grid(row=0, column=column, padx=(self._look.px(4), 0), sticky="e")
        what = "file" if text.startswith("File") else "folder"
        Tooltip(button, f"Choose a {what} for “{self.spec.label}”.")
        self._inspector.name(f"choose-{what}.{self.spec.name}", button)
        self._buttons.append(button)

    def _choose_file(self) -> None:
        chosen = filedialog.askopenfilename(parent=self.frame, title=f"{self.spec.label}: choose a file")
        if chosen:
            self._variable.set(chosen)

    def _choose_folder(self) -> None:
        chosen = filedialog.askdirectory(parent=self.frame, title=f"{self.spec.label}: choose a folder")
        if chosen:
            self._variable.set(chosen)

    def show(self, text: Text) -> None:
        """Show `text`; tells it as a change too."""
        self._variable.set(text)

    def offer(self, choices: tuple[str, ...]) -> None:
        """What a drop-down list offers besides what can be typed."""
        self.widget.configure(values=choices)  # type: ignore[call-arg]

    def show_problem(self, sentence: str | None) -> None:
        """Show what is wrong beneath the field, None: nothing."""
        self._problem.configure(text=sentence or "")
        if sentence:
            self._problem.grid(row=2, column=0, columnspan=3, sticky="ew")
        else:
            self._problem.grid_remove()
        self.widget.state(["invalid" if sentence else "!invalid"])

    def show_hint(self, label: str | None, hint: str) -> None:
        """Change the label (None: as it is) and the line beneath the field."""
        if self.label is not None and label is not None:
            self.label.configure(text=label)
        self._hint.configure(text=hint)
        self._hint.grid(row=3, column=0, columnspan=3, sticky="ew")

    def show_unset(self, text: str) -> None:
        """Have `text`, what an empty field stands for, show faintly in the field while it is empty."""
        if self._unset is None:
            self._unset = ttk.Label(self.widget, style="Unset.TLabel", cursor="xterm")
            self._unset.bind("<Button-1>", lambda _: self.widget.focus_set())
            Tooltip(self._unset, self.spec.help)
            self._inspector.name(f"unset.{self.spec.name}", self._unset)
            self._variable.trace_add("write", lambda *_: self._place_unset())
        self._unset.configure(text=text)
        self._place_unset()

    def _place_unset(self) -> None:
        if self._unset is not None and not self._variable.get():
            self._unset.place(x=self._look.px(8), rely=0.5, anchor="w")
        elif self._unset is not None:
            self._unset.place_forget()

    def enable(self, enabled: bool, why_not: str = "") -> None:
        """Let the field be edited or not; `why_not` is added to its tooltip."""
        for widget in (self.widget, *self._buttons):
            widget.state(["!disabled" if enabled else "disabled"])
        self._tip.text = self.spec.help if enabled else f"{self.spec.help} {why_not}"


def wrapped_label(parent: tk.Misc, style: str, text: str = "") -> ttk.Label:
    """A label whose lines break where its own width ends."""
    label = ttk.Label(parent, text=text, style=style, justify="left", anchor="w")

    def rewrap(event: tk.Event[tk.Misc]) -> None:
        room = max(1, event.width - _LABEL_EDGE)
        if int(str(label.cget("wraplength")) or 0) != room:
            label.configure(wraplength=room)

    label.bind("<Configure>", rewrap)
    return label
