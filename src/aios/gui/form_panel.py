"""The HRM training panel: the form, and Start with the reason why it is off."""

from __future__ import annotations

import dataclasses
import tkinter as tk
from collections.abc import Callable, Mapping
from tkinter import ttk
from typing import Any

from aios.gui.automation import Inspector
from aios.gui.field_widgets import FieldWidget, wrapped_label
from aios.gui.form import BUNDLED_TEXT, WITH_AUTO_ONLY, FormCheck, FormModel, Text, advanced_fields, field_specs
from aios.gui.look import Look
from aios.gui.scrolling import ScrollFrame
from aios.gui.tooltip import Tooltip
from aios.gui.wording import AUTO_SENTENCE, in_window_words, lr_wording
from aios.settings.config import TrainingConfig
from aios.settings.forecast import Forecast

MAIN_ROWS: tuple[tuple[str, ...], ...] = (
    ("dataset_file",),
    ("preset", "device"),
    ("steps", "batch_size"),
    ("brain_name",),
    ("use_moe",),
)
"""Where the main settings stand, those of the learning rate aside."""
_WIDE_KINDS = ("file", "dataset", "folder", "switch")
_WIDE_TEXTS = ("model", "log_file", "stop_file")
_NEEDS_AUTO = "Only with “Auto-adjust learning rate”."


class FormPanel(ttk.Frame):
    """Shows a `FormModel` and keeps it up to date; `changed()` is called after every change."""

    def __init__(
        self,
        parent: tk.Misc,
        look: Look,
        inspector: Inspector,
        model: FormModel,
        changed: Callable[[], None],
        start: Callable[[], None],
    ) -> None:
        super().__init__(parent)
        self._look, self._inspector, self._model = look, inspector, model
        self._changed, self._start = changed, start
        self._loading = False
        self._first_problem: str | None = None
        self.fields: dict[str, FieldWidget] = {}
        self.folds: dict[str, Fold] = {}
        self._scroll = ScrollFrame(self, look)
        self._scroll.grid(row=0, column=0, sticky="nsew")
        self.rowconfigure(0, weight=1)
        self.columnconfigure(0, weight=1)
        self._build_main(self._scroll.inside)
        self._build_folds(self._scroll.inside)
        self._build_start(start)
        self.show_model()

    def _build_main(self, inside: ttk.Frame) -> None:
        gap = self._look.px(12)
        inside.columnconfigure(0, weight=1)
        main = ttk.Frame(inside, padding=(gap, gap, gap, 0))
        main.grid(row=0, column=0, sticky="ew")
        self._lay_out(main, MAIN_ROWS)
        rate = ttk.Frame(inside, padding=(gap, 0, gap, 0))
        rate.grid(row=1, column=0, sticky="ew")
        rate.columnconfigure(0, weight=1)
        line = ttk.Frame(rate, style="Line.TFrame", height=1)
        line.grid(row=0, column=0, sticky="ew", pady=(0, self._look.px(8)))
        auto = self._add_field(rate, "auto_adjust_lr")
        auto.widget.configure(style="Strong.TCheckbutton")  # type: ignore[call-arg]
        auto.frame.grid(row=1, column=0, sticky="ew")
        auto.show_hint(None, AUTO_SENTENCE)
        self._add_field(rate, "lr").frame.grid(row=2, column=0, sticky="ew", pady=(self._look.px(8), 0))

    def _build_folds(self, inside: ttk.Frame) -> None:
        gap = self._look.px(12)
        frame = ttk.Frame(inside, padding=(gap, self._look.px(8), gap, gap))
        frame.grid(row=2, column=0, sticky="ew")
        frame.columnconfigure(0, weight=1)
        for row, (title, names) in enumerate(advanced_fields().items()):
            fold = Fold(frame, f"Advanced: {title.lower()}", self._look)
            fold.frame.grid(row=row, column=0, sticky="ew")
            self._inspector.name(f"fold.{title}", fold.button)
            self.folds[title] = fold
            self._lay_out(fold.inside, _paired(names))

    def _build_start(self, start: Callable[[], None]) -> None:
        gap = self._look.px(12)
        ttk.Frame(self, style="Line.TFrame", height=1).grid(row=1, column=0, sticky="ew")
        bottom = ttk.Frame(self, padding=(gap, self._look.px(8), gap, gap))
        bottom.grid(row=2, column=0, sticky="ew")
        bottom.columnconfigure(0, weight=1)
        self._facts = wrapped_label(bottom, "Muted.TLabel")
        self._doubts = wrapped_label(bottom, "Doubt.TLabel")
        Tooltip(self._facts, "An estimate from the settings, the first pages of the text and the runs in the folder.")
        self.reason = wrapped_label(bottom, "Muted.TLabel")
        for row, label in enumerate((self._facts, self._doubts, self.reason)):
            label.grid(row=row, column=0, sticky="ew", pady=(0, self._look.px(8)))
        self._show_forecast(None)
        self.start = ttk.Button(bottom, text="Start training", underline=0, style="Accent.TButton", command=start)
        self.start.grid(row=3, column=0, sticky="ew")
        self._start_tip = Tooltip(self.start, "")
        self.reason.bind("<Button-1>", lambda _: self._go_to_problem())
        self._inspector.name("start", self.start)
        self._inspector.name("reason", self.reason)
        self._inspector.name("facts", self._facts)
        self._inspector.name("doubts", self._doubts)

    def _lay_out(self, frame: ttk.Frame, rows: tuple[tuple[str, ...], ...]) -> None:
        gap = self._look.px(12)
        frame.columnconfigure((0, 1), weight=1, uniform="half")
        for row, names in enumerate(rows):
            for column, name in enumerate(names):
                field = self._add_field(frame, name)
                field.frame.grid(
                    row=row, column=column, columnspan=3 - len(names), sticky="new",
                    padx=(gap if column else 0, 0), pady=(0, self._look.px(8)),
                )  # fmt: skip

    def _add_field(self, parent: tk.Misc, name: str) -> FieldWidget:
        field = FieldWidget(parent, field_specs()[name], self._look, self._inspector, self._edited)
        self.fields[name] = field
        return field

    def _edited(self, name: str, text: Text) -> None:
        if self._loading or self._model.texts.get(name) == text:
            return
        self._model.texts[name] = text
        self._refresh()
        self._changed()

    def load(self, values: Mapping[str, Any]) -> None:
        """Show the config values in `values`, defaults elsewhere."""
        self._model.load(values)
        self.show_model()
        self._changed()

    def show_model(self) -> None:
        """Bring the widgets up to date with the model."""
        self._loading = True
        for name, field in self.fields.items():
            field.show(self._model.texts[name])
        self._loading = False
        self._refresh()

    def begin(self) -> None:
        """Put the cursor into the first field."""
        self.fields[MAIN_ROWS[0][0]].widget.focus_set()

    def offer_datasets(self, recent: list[str]) -> None:
        """What the dataset's list offers besides the bundled text."""
        self.fields["dataset_file"].offer((BUNDLED_TEXT, *recent))

    def _refresh(self) -> None:
        """What depends on other fields: the meaning of the learning rate, and what has no effect without auto."""
        auto = bool(self._model.texts["auto_adjust_lr"])
        self.fields["lr"].show_hint(*lr_wording(auto, str(self._model.texts["adaptive_lr_profile"])))
        preset = TrainingConfig(preset=self._model.texts["preset"]).architecture  # type: ignore[arg-type]
        for part in dataclasses.fields(preset):
            self.fields[part.name].show_unset(f"{getattr(preset, part.name):g}")
        for name in WITH_AUTO_ONLY:
            self.fields[name].enable(auto, _NEEDS_AUTO)

    def show_check(self, check: FormCheck, why_not: str | None, waits: str | None = None) -> None:
        """Show each problem beneath its field; Start is on unless `why_not` says why it is off.

        `waits` says why a run would have to wait: then it is queued.
        """
        for name, field in self.fields.items():
            field.show_problem(check.problems.get(name))
        self._first_problem = next(iter(check.problems), None)
        if check.forecast is not None or check.reason is not None:  # else it is on its way
            self._show_forecast(check.forecast)
        self.reason.configure(
            text=why_not or waits or "Ready to start.",
            style="Problem.TLabel" if check.reason else "Muted.TLabel",
            cursor="hand2" if check.problems else "",
        )
        self.start.state(["disabled" if why_not else "!disabled"])
        self.start.configure(text="Queue training" if waits else "Start training", underline=-1 if waits else 0)
        done = "Let a run with these settings wait its turn" if waits else "Train with these settings"
        self._start_tip.text = f"Off: {why_not}" if why_not else f"{done} (Ctrl+Enter or Alt+S)."
        for title, names in advanced_fields().items():
            self.folds[title].mark(sum(name in check.problems for name in names))

    def _show_forecast(self, forecast: Forecast | None) -> None:
        """Show what the run will be, and what is doubtful about it; None: neither."""
        said = (forecast.facts, forecast.doubts) if forecast is not None else ([], [])
        for label, sentences in zip((self._facts, self._doubts), said, strict=True):
            label.configure(text=in_window_words("\n".join(sentences)))
            if sentences:
                label.grid()
            else:
                label.grid_remove()

    def press_start(self) -> None:
        """Start, or go to the first field that is in the way."""
        if self._first_problem is None:
            self._start()  # it may still be off, while the files are looked at
        else:
            self._go_to_problem()

    def _go_to_problem(self) -> None:
        for title, names in advanced_fields().items():
            if self._first_problem in names:
                self.folds[title].open()
        if self._first_problem is not None:
            self.update_idletasks()
            self.fields[self._first_problem].widget.focus_set()


class Fold:
    """A heading that shows or hides what is beneath it."""

    def __init__(self, parent: tk.Misc, title: str, look: Look) -> None:
        self.frame = ttk.Frame(parent)
        self.frame.columnconfigure(0, weight=1)
        self._title, self._problems, self._look = title, 0, look
        self.button = ttk.Button(self.frame, style="Fold.TButton", command=self.toggle)
        self.button.grid(row=0, column=0, sticky="ew")
        self.inside = ttk.Frame(self.frame, padding=(look.px(12), look.px(4), 0, look.px(4)))
        Tooltip(self.button, f"Show or hide: {title[0].lower()}{title[1:]}.")
        self._is_open = False
        self._relabel()

    def toggle(self) -> None:
        """Open it if it is closed, and the other way round."""
        if self._is_open:
            self._is_open = False
            self.inside.grid_remove()
        else:
            self._is_open = True
            self.inside.grid(row=1, column=0, sticky="ew")
        self._relabel()

    def open(self) -> None:
        """Open it, if it is not."""
        if not self._is_open:
            self.toggle()

    def mark(self, problems: int) -> None:
        """Say in the heading how many problems are inside."""
        if problems != self._problems:
            self._problems = problems
            self._relabel()

    def _relabel(self) -> None:
        count = f"  ({self._problems} to correct)" if self._problems else ""
        self.button.configure(text=f"{'▾' if self._is_open else '▸'}  {self._title}{count}")


def _paired(names: list[str]) -> tuple[tuple[str, ...], ...]:
    """Rows of two narrow fields or one wide one, in order."""
    rows: list[tuple[str, ...]] = []
    for name in names:
        if rows and len(rows[-1]) == 1 and not _is_wide(name) and not _is_wide(rows[-1][0]):
            rows[-1] = (*rows[-1], name)
        else:
            rows.append((name,))
    return tuple(rows)


def _is_wide(name: str) -> bool:
    return field_specs()[name].kind in _WIDE_KINDS or name in _WIDE_TEXTS
