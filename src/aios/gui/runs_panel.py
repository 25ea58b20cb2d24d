"""The brains there are: sorted by any column, opened, compared, continued, renamed, annotated, deleted."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable, Mapping
from functools import partial
from tkinter import font as tkfont
from tkinter import ttk

from aios.brains.brain_list import Brain, State
from aios.brains.columns import COLUMNS, Column, Order, ordered
from aios.brains.notes import read_notes
from aios.gui.automation import Inspector
from aios.gui.column_widths import NAME, middle_ellipsis, widths
from aios.gui.field_widgets import wrapped_label
from aios.gui.look import Look
from aios.gui.preferences import Preferences
from aios.gui.queue_control import QueueControl
from aios.gui.queue_panel import QueuePanel
from aios.gui.scrolling import put_with_scrollbars
from aios.gui.tooltip import Tooltip

_MARKS = {State.RUNNING: "good", State.FAILED: "bad", State.KILLED: "bad"}
_BUTTONS = (
    ("open", "Open", "Show the selected run: its curves, its adjustments, and its controls (Enter)."),
    ("compare", "Compare", "Lay the selected runs over each other; one alone is laid over the run on show."),
    ("continue", "Continue…", "Train the selected brain on from its newest checkpoint."),
    ("rename", "Rename…", "Give the selected brain another name (F2)."),
    ("notes", "Notes…", "Write down what is to be remembered of the selected brain (N)."),
    ("delete", "Delete…", "Delete the selected brain, after a question (Delete)."),
    ("folder", "Open folder", "Show the folder of the selected brain in the file manager."),
    ("open-log", "Open log…", "Show a training log (.jsonl) from anywhere (Ctrl+O)."),
)
_ROW_OF_BUTTONS = 3
_KEYS = {"<Double-1>": "open", "<Return>": "open", "<F2>": "rename", "<Key-n>": "notes", "<Delete>": "delete"}
_TIP = (
    "Brains and their state. Enter opens one; Ctrl or Shift with a click selects several. A click on a heading sorts, "
    "as do the arrows left and right; R turns the order round."
)
_LEAST_NAME = 130  # pixels at 96 dpi
_CELL_PADDING, _HEADING_PADDING = 24, 18  # pixels at 96 dpi
_EDGES = 6  # pixels of the list that no column can have
_AROUND = 42  # beside the columns: padding, and a scrollbar


class RunsPanel(ttk.Frame):
    """A list of brains with their state; the buttons act on its selection.

    `acts[name](brains)` is called for them: `open`, `compare`, `continue`, `rename`, `notes`, `delete`, `folder`,
    `open-log`. How it is sorted is kept in the preferences. <<WantedChanged>>: it wants another width.
    """

    def __init__(
        self,
        parent: tk.Misc,
        look: Look,
        inspector: Inspector,
        preferences: Preferences,
        queue: QueueControl,
        acts: Mapping[str, Callable[[list[Brain]], None]],
    ) -> None:
        super().__init__(parent, padding=look.px(12))
        self._look, self._acts, self._preferences = look, acts, preferences
        self._listed: list[Brain] = []
        self._brains: dict[str, Brain] = {}
        self._names: dict[str, str] = {}
        self._needed: dict[str, int] = {}
        self.order = Order(preferences.runs_column, preferences.runs_descending)
        """How the list is sorted."""
        self.folder = wrapped_label(self, "Muted.TLabel")
        self.folder.grid(row=0, column=0, columnspan=2, sticky="ew", pady=(0, look.px(8)))
        self._build_list(inspector)
        self.about = wrapped_label(self, "Muted.TLabel")
        self.about.grid(row=3, column=0, columnspan=2, sticky="ew", pady=look.px(8))
        self._buttons = self._build_buttons(inspector)
        self.queue = QueuePanel(self, look, inspector, queue)
        self.queue.grid(row=5, column=0, columnspan=2, sticky="ew")
        inspector.name("runs-about", self.about)
        self.recolour()
        self._refresh()
        self.queue.show()

    def _build_list(self, inspector: Inspector) -> None:
        self.tree = ttk.Treeview(self, columns=[column.name for column in COLUMNS], show="headings", height=6)
        for column in COLUMNS:
            press = partial(self._sort, column.name)
            self.tree.heading(column.name, anchor="e" if column.is_number else "w", command=press)
            self.tree.column(column.name, anchor="e" if column.is_number else "w", stretch=False)
        put_with_scrollbars(self.tree, row=1)
        self._tip = Tooltip(self.tree, _TIP)
        self.tree.bind("<<TreeviewSelect>>", lambda _: self._refresh())
        self.tree.bind("<FocusIn>", lambda _: self._select_first())
        self.tree.bind("<Configure>", lambda _: self._fit())
        self.tree.bind("<Motion>", self._point_at)
        for key, name in _KEYS.items():
            self.tree.bind(key, partial(self._key, name))
        self.tree.bind("<Left>", lambda _: self._take_order(self.order.moved(-1)))
        self.tree.bind("<Right>", lambda _: self._take_order(self.order.moved(1)))
        self.tree.bind("<Key-r>", lambda _: self._take_order(self.order._replace(descending=not self.order.descending)))
        inspector.name("runs", self.tree)
        inspector.fact("runs-tip", lambda: self._tip.text)
        inspector.fact("runs-headings", self._heading_places)

    def _build_buttons(self, inspector: Inspector) -> dict[str, ttk.Button]:
        row = ttk.Frame(self)
        row.grid(row=4, column=0, columnspan=2, sticky="ew")
        row.columnconfigure(tuple(range(_ROW_OF_BUTTONS)), weight=1, uniform="button")
        buttons = {}
        for at, (name, text, tip) in enumerate(_BUTTONS):
            style = "Danger.TButton" if name == "delete" else "TButton"
            button = ttk.Button(row, text=text, style=style, command=partial(self._press, name))
            line, place = divmod(at, _ROW_OF_BUTTONS)
            button.grid(row=line, column=place, sticky="ew", padx=self._look.px(4), pady=self._look.px(4))
            Tooltip(button, tip)
            inspector.name(f"runs.{name}", button)
            buttons[name] = button
        return buttons

    def _press(self, name: str) -> None:
        chosen = self.selected  # of a double click, the first may have chosen it and the buttons not heard of it yet
        if _allowed(chosen).get(name, True):
            self._acts[name](chosen)

    def _key(self, name: str, event: tk.Event[tk.Misc]) -> None:
        if event.type is not tk.EventType.ButtonPress or self.tree.identify_region(event.x, event.y) == "cell":
            self._press(name)

    @property
    def wanted(self) -> int:
        """The width in pixels at which nothing in the list is cut or scrolled."""
        return sum(self._needed.values()) + self._look.px(_AROUND)

    @property
    def selected(self) -> list[Brain]:
        """The selected brains, in the order of the list."""
        chosen = set(self.tree.selection())
        return [self._brains[row] for row in self.tree.get_children() if row in chosen]

    def show(self, folder: str, brains: list[Brain]) -> None:
        """Show the brains in `folder`, which come with the one written to last first; the selection stays."""
        self.folder.configure(text=f"Brains in {folder}" if brains else f"No brains in {folder} yet.")
        self._listed = brains
        self._arrange()
        self.queue.show()

    def begin(self) -> None:
        """Bring the keyboard into the list."""
        self.tree.focus_set()

    def _select_first(self) -> None:
        """Have a row selected for the keys to start from."""
        rows = self.tree.get_children()
        if rows and not self.tree.selection():
            self.tree.selection_set(rows[0])
            self.tree.focus(rows[0])

    def _arrange(self) -> None:
        rows = {str(brain.folder): brain for brain in ordered(self._listed, self.order)}
        if list(rows) != list(self.tree.get_children()):
            chosen = [row for row in self.tree.selection() if row in rows]
            focused = self.tree.focus()
            self.tree.delete(*self.tree.get_children())
            for row in rows:
                self.tree.insert("", "end", iid=row)
            self.tree.selection_set(chosen)
            self.tree.focus(focused if focused in rows else "")
            self._names.clear()
            if str(self.tk.call("focus")) == str(self.tree):
                self._select_first()
        changed = rows != self._brains or not self._names
        self._brains = rows
        if changed:
            self._fit()
        self._refresh()

    def _sort(self, column: str) -> None:
        self._take_order(self.order.pressed(column))

    def _take_order(self, order: Order) -> str:
        self.order = order
        self._preferences.runs_column, self._preferences.runs_descending = order
        self._arrange()
        self._fit()
        return "break"

    def _fit(self) -> None:
        """Make the columns as wide as what is in them, and show of each name what has room."""
        text = tkfont.nametofont("TkDefaultFont", self)
        wanted, self._needed = self.wanted, {column.name: self._measure(column, text) for column in COLUMNS}
        if self.wanted != wanted:
            self.event_generate("<<WantedChanged>>")
        given = widths(self._needed, self.tree.winfo_width() - _EDGES, self._look.px(_LEAST_NAME))
        for column in COLUMNS:
            if self.tree.column(column.name, "width") != given[column.name]:
                self.tree.column(column.name, width=given[column.name], minwidth=given[column.name])
            self.tree.heading(column.name, text=self.order.heading(column))
        room = given[NAME] - self._look.px(_CELL_PADDING)
        for row, brain in self._brains.items():
            self._names[row] = middle_ellipsis(brain.name, room, text.measure)
            cells = (self._names[row], *(column.text(brain) for column in COLUMNS[1:]))
            if self.tree.item(row, "values") != cells:
                self.tree.item(row, values=cells, tags=(_MARKS.get(brain.state, "plain"),))

    def _measure(self, column: Column, text: tkfont.Font) -> int:
        px = self._look.px
        heading = self._look.fonts["small"].measure(Order(column.name).heading(column)) + px(_HEADING_PADDING)
        cells = (text.measure(column.text(brain)) + px(_CELL_PADDING) for brain in self._brains.values())
        return max(heading, *cells, 0)

    def _point_at(self, event: tk.Event[tk.Misc]) -> None:
        """Tell of the row, or the heading, that the pointer is on."""
        brain = self._brains.get(self.tree.identify_row(event.y))
        if self.tree.identify_region(event.x, event.y) == "heading":
            at = int(self.tree.identify_column(event.x)[1:]) - 1
            self._tip.retell(f"Sort by {COLUMNS[at].tip}." if 0 <= at < len(COLUMNS) else _TIP)
        elif brain is None:
            self._tip.retell(_TIP)
        else:
            box = self.tree.bbox(str(brain.folder))
            _, top, _, height = box if isinstance(box, tuple) else (0, 0, 0, 0)
            notes, shown = read_notes(brain.folder), self._names.get(str(brain.folder))
            name = brain.name if notes or shown != brain.name else ""
            self._tip.retell("\n\n".join(filter(None, (name, notes))), (self.tree.winfo_rooty() + top, height))

    def _heading_places(self) -> dict[str, list[int]]:
        """The middle of each heading on the screen."""
        left, top = self.tree.winfo_rootx(), self.tree.winfo_rooty()
        places, height = {}, self._look.px(12)
        for column in COLUMNS:
            width = int(self.tree.column(column.name, "width"))
            places[column.name] = [left + width // 2, top + height]
            left += width
        return places

    def recolour(self) -> None:
        """Follow a change of the palette."""
        palette = self._look.palette
        for tag, colour in (("good", palette.good), ("bad", palette.error), ("plain", palette.text)):
            self.tree.tag_configure(tag, foreground=colour)

    def _refresh(self) -> None:
        chosen = self.selected
        for name, allowed in _allowed(chosen).items():
            self._buttons[name].state(["!disabled" if allowed else "disabled"])
        self.about.configure(text=_about(chosen))


def _allowed(chosen: list[Brain]) -> dict[str, bool]:
    """Which buttons can be pressed."""
    one = len(chosen) == 1
    at_rest = one and chosen[0].state is not State.RUNNING
    allowed = dict.fromkeys(("open", "notes", "folder"), one) | dict.fromkeys(("rename", "delete"), at_rest)
    return allowed | {"compare": bool(chosen), "continue": one and chosen[0].can_continue}


def _about(chosen: list[Brain]) -> str:
    if not chosen:
        return "Select a brain to open, compare or continue it."
    if len(chosen) > 1:
        return f"{len(chosen)} brains selected."
    line = f"{chosen[0].name}: {chosen[0].state.value}. {chosen[0].sentence}".strip()
    return "\n".join(filter(None, (line, read_notes(chosen[0].folder))))
