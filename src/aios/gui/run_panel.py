"""The run on show: who it is and how it stands, its controls, its picture, its decisions, its command."""

from __future__ import annotations

import time
import tkinter as tk
from collections.abc import Callable, Mapping
from functools import partial
from tkinter import ttk

from aios.brains.brain_list import Brain, State
from aios.gui.automation import Inspector
from aios.gui.compare_panel import ComparePanel
from aios.gui.field_widgets import wrapped_label
from aios.gui.figures import Figures
from aios.gui.look import Look
from aios.gui.plot_panel import PlotPanel
from aios.gui.run_feed import RunFeed
from aios.gui.scrolling import ScrollFrame
from aios.gui.timeline_panel import Labelled, TimelinePanel
from aios.gui.tooltip import Tooltip
from aios.run_view.history import RunHistory
from aios.run_view.reading import name_of

_CONTROLS = (
    ("pause", "Pause", 0, "Save and end the training, to go on later (Ctrl+P).", "TButton"),
    ("stop", "Stop and save", 1, "Save and end the training.", "TButton"),
    (
        "finish",
        "Finish now",
        0,
        "Lower the learning rate to zero over a tenth of the run, then end as usual.",
        "TButton",
    ),
    ("kill", "Kill…", 0, "End the process at once, without saving; asks first.", "Danger.TButton"),
)
_TIPS = {text: tip for _, text, _, tip, _ in _CONTROLS}
_TIPS["Resume"] = "Go on from the newest checkpoint (Ctrl+P)."
_BESIDE = 1040  # from this width on, at 96 dpi, all but the picture stands in a column beside it
_COLUMN = 400
_PICTURE_ROW = 3  # of the picture, where all stands beneath each other
_LEAST_EMPTY, _LEAST_STACKED, _LEAST_BESIDE = 700, 840, 480  # height at 96 dpi; in a lower window it scrolls
_RESUMABLE = (State.PAUSED, State.STOPPED, State.KILLED, State.FAILED, State.UNFINISHED)
_GOOD, _BAD = (State.RUNNING, State.FINISHED), (State.FAILED, State.KILLED)


class RunPanel(ttk.Frame):
    """`act(name)` is called for the controls: `pause`, `resume`, `stop`, `finish`, `kill`, `output`, `try`.

    Where there is room the picture has the whole height, and all that is said of the run stands in a column beside
    it; else the picture stands among the rest.
    """

    def __init__(self, parent: tk.Misc, look: Look, inspector: Inspector, act: Callable[[str], None]) -> None:
        super().__init__(parent, style="Window.TFrame")
        self._look, self._inspector, self._act = look, inspector, act
        self._feeds: list[RunFeed] = []
        self.controls: dict[str, ttk.Button] = {}
        self._tips: dict[str, Tooltip] = {}
        self._places, self._problems = "", False
        self.columnconfigure(0, weight=1)
        self.rowconfigure(0, weight=1)
        self.scroll = ScrollFrame(self, look, look.px(_LEAST_EMPTY), "Window.TFrame")
        self.scroll.grid(row=0, column=0, sticky="nsew")
        self.inside = self.scroll.inside
        self.plot = PlotPanel(self.inside, look, inspector, self._mark_clicked)
        self._build_fold()
        self._column = ttk.Frame(self.inside, style="Window.TFrame")
        self._build_header()
        self._build_banner()
        self._figures = Figures(self.inside, look, inspector)
        self.comparison = ComparePanel(self.inside, look, inspector)
        self.timeline = TimelinePanel(self.inside, look, inspector, self._row_chosen)
        self._parts: list[tuple[ttk.Widget, int]] = [(self._header, 0), (self._banner, 0), (self._figures, 0)]
        self.add(self.comparison, weight=2)
        self.add(self.timeline, weight=1)
        self.inside.bind("<Configure>", lambda event: self._arrange(event.width), add="+")

    def add(self, part: ttk.Widget, weight: int = 0) -> None:
        """Put a child of `inside` under the others; of the column's spare height it gets the share `weight`."""
        self._parts.append((part, weight))
        self._places = ""

    def _arrange(self, width: int) -> None:
        """Picture and column side by side, or all beneath each other; what was gone stays so."""
        places = "beside" if width >= self._look.px(_BESIDE) else "stacked"
        if places == self._places:
            return
        self._places = places
        gap, inside, beside = self._look.px(8), self.inside, places == "beside"
        self._column.grid_forget()
        inside.columnconfigure(0, weight=1)
        inside.rowconfigure(0, weight=1 if beside else 0)
        inside.rowconfigure(_PICTURE_ROW, weight=0 if beside else 1)
        self.plot.grid(row=0 if beside else _PICTURE_ROW, column=0, sticky="nsew", pady=(0, 0 if beside else gap))
        if beside:
            self._column.grid(row=0, column=1, sticky="nsew", padx=(self._look.px(12), 0))
            self._column.columnconfigure(0, weight=1)
        for at, (part, weight) in enumerate(self._parts):
            row = at if at < _PICTURE_ROW else at + 1
            gone = part in self._gone()
            part.grid(row=row, column=0, sticky="nsew", pady=(0, gap), in_=self._column if beside else inside)
            part.lift()
            self._column.rowconfigure(row, weight=weight if beside and not gone else 0)
            if gone:
                part.grid_remove()
        self._column.grid_propagate(False)  # Tk forgets it, and the width, whenever the last part leaves
        self._column.configure(width=self._look.px(_COLUMN))
        self._arrange_header(beside)
        stacked = _LEAST_STACKED if self._feeds else _LEAST_EMPTY
        self.scroll.need(self._look.px(_LEAST_BESIDE if beside else stacked))

    def _build_fold(self) -> None:
        left = ttk.Frame(self.plot.tools)
        left.grid(row=0, column=0)
        self.fold = ttk.Button(left, style="Small.TButton")
        self.fold.grid(row=0, column=0, padx=(0, self._look.px(8)))
        Tooltip(self.fold, "Show or hide the form and the list of runs (Ctrl+B).", above=True)
        self._inspector.name("fold", self.fold)
        try_it = ttk.Button(left, text="Try it", style="Small.TButton", command=lambda: self._act("try"))
        try_it.grid(row=0, column=1, padx=(0, self._look.px(8)))
        Tooltip(try_it, "Have this brain go on with a text of yours (Ctrl+4).", above=True)
        self._inspector.name("try", try_it)

    def show_fold(self, text: str, there: bool) -> None:
        """What stands on the button that folds the form, and whether it is there."""
        self.fold.configure(text=text)
        if there:
            self.fold.grid()
        else:
            self.fold.grid_remove()

    def _build_header(self) -> None:
        self._header = header = ttk.Frame(self.inside, style="Window.TFrame")
        header.columnconfigure(0, weight=1)
        self._title = wrapped_label(header, "Title.TLabel")
        self._title.grid(row=0, column=0, sticky="ew")
        self._state = ttk.Label(header, style="State.TLabel")
        self._state.grid(row=1, column=0, sticky="w")
        self._buttons = ttk.Frame(header, style="Window.TFrame")
        for column, (name, text, underline, tip, style) in enumerate(_CONTROLS):
            button = ttk.Button(
                self._buttons, text=text, underline=underline, style=style, command=partial(self._press, name)
            )
            button.grid(row=0, column=column, sticky="ew", padx=(self._look.px(8) if column else 0, 0))
            self._tips[name] = Tooltip(button, tip, above=True)
            self._inspector.name(name, button)
            self.controls[name] = button
        self._inspector.name("title", self._title)
        self._inspector.name("state", self._state)

    def _build_banner(self) -> None:
        self._banner = ttk.Frame(self.inside, style="Banner.TFrame", padding=self._look.px(8))
        self._banner.columnconfigure(0, weight=1)
        self._banner_text = wrapped_label(self._banner, "Banner.TLabel")
        self._banner_text.grid(row=0, column=0, sticky="ew")
        self._output = ttk.Button(self._banner, text="Show output", command=lambda: self._act("output"))
        self._output.grid(row=0, column=1, padx=(self._look.px(8), 0))
        Tooltip(self._output, "Show the last lines that the training printed.")
        self._inspector.name("banner", self._banner_text)
        self._inspector.name("output", self._output)

    def _arrange_header(self, beside: bool) -> None:
        """Controls beside the title or beneath it."""
        if beside:
            self._buttons.grid(row=2, column=0, columnspan=2, sticky="ew", pady=(self._look.px(8), 0))
        else:
            self._buttons.grid(row=0, column=1, rowspan=2, sticky="e", padx=(self._look.px(8), 0), pady=0)
        self._buttons.columnconfigure(tuple(range(len(_CONTROLS))), weight=1 if beside else 0)

    def _press(self, name: str) -> None:
        is_resume = name == "pause" and str(self.controls["pause"].cget("text")) == "Resume"
        self._act("resume" if is_resume else name)

    @property
    def _compares(self) -> bool:
        return len(self._feeds) > 1

    def _gone(self) -> list[ttk.Widget]:
        """The parts that have nothing to say: of several runs the table tells what the numbers tell of one."""
        nothing: list[ttk.Widget] = [self._figures if self._compares else self.comparison]
        return nothing if self._problems else [*nothing, self._banner]

    def show(self, feeds: list[RunFeed]) -> None:
        """Show other runs; the first is the one that controls and numbers belong to."""
        self._feeds = feeds
        self._figures.begin()
        self._places = ""
        if self.inside.winfo_viewable():
            self._arrange(self.inside.winfo_width())
        self.plot.show(feeds)
        self.timeline.list.forget_choice()
        self.refresh()

    def refresh(self) -> None:
        """Bring figures and timeline up to date with the feeds."""
        history = self._feeds[0].history if self._feeds else RunHistory()
        self._figures.show(history, time.time())
        if self._compares:
            self.comparison.show(self._feeds)
        self.timeline.show(*_collect(self._feeds))
        self.plot.changed()

    def show_state(self, brain: Brain | None, waiting: str | None) -> None:
        """Show how the run stands, what can be done about it, and what went wrong. `waiting`: what was asked of it."""
        label = " + ".join(feed.label for feed in self._feeds)
        self._title.configure(text=label or "No run on show")
        state = brain.state if brain is not None else None
        style = "Good.State.TLabel" if state in _GOOD else "Bad.State.TLabel" if state in _BAD else "State.TLabel"
        self._state.configure(text=waiting or (state.value if state is not None else ""), style=style)
        for name, (enabled, text) in control_states(brain, waiting).items():
            if str(self.controls[name].cget("text")) != text:
                self.controls[name].configure(text=text)
                self._tips[name].text = _TIPS[text]
            self.controls[name].state(["!disabled" if enabled else "disabled"])
        problems = [feed.problem for feed in self._feeds if feed.problem]
        if brain is not None and brain.state in _BAD and brain.sentence:
            problems.insert(0, brain.sentence)
        self._show_problems(problems, brain)
        ended = brain is not None and state is not State.RUNNING
        self.plot.say_of_nothing("The log has no records." if ended else "Waiting for the first record of the log …")

    def _show_problems(self, problems: list[str], brain: Brain | None) -> None:
        self._problems = bool(problems)
        self._banner_text.configure(text="\n".join(problems))
        if not problems:
            self._banner.grid_remove()
            return
        if self._places:
            self._banner.grid()
        if brain is not None and brain.session is not None:
            self._output.grid()
        else:
            self._output.grid_remove()

    def _mark_clicked(self, item: Labelled) -> None:
        shown = (_who(self._feeds, item[0], item[1].rank), item[1])
        self.timeline.list.select(shown)

    def _row_chosen(self, item: Labelled) -> None:
        self.plot.select(item[1])


def control_states(brain: Brain | None, waiting: str | None) -> Mapping[str, tuple[bool, str]]:
    """(whether it can be pressed, what stands on it) of each control."""
    running = brain is not None and brain.state is State.RUNNING
    can_resume = brain is not None and brain.state in _RESUMABLE and brain.can_continue
    known = brain is not None and brain.session is not None
    free = running and waiting is None
    return {
        "pause": (free or (can_resume and waiting is None), "Resume" if can_resume else "Pause"),
        "stop": (free, "Stop and save"),
        "finish": (free, "Finish now"),
        "kill": (running and known, "Kill…"),
    }


def _collect(feeds: list[RunFeed]) -> tuple[list[Labelled], int, bool]:
    """(decisions of all feeds in step order, how many were made, whether they need telling apart)."""
    labelled = [(_who(feeds, feed.label, d.rank), d) for feed in feeds for d in feed.history.decisions]
    if len(feeds) > 1:
        labelled.sort(key=lambda item: item[1].step)
    count = sum(feed.history.decision_count for feed in feeds)
    return labelled, count, len({who for who, _ in labelled}) > 1 or len(feeds) > 1


def _who(feeds: list[RunFeed], label: str, rank: int | None) -> str:
    return name_of(label, rank, len(feeds) > 1)
