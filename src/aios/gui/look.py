"""Colours, fonts and spacing of the window: one light and one dark palette over ttk's `clam` theme."""

from __future__ import annotations

import tkinter as tk
from dataclasses import dataclass
from tkinter import font as tkfont
from tkinter import ttk
from typing import Any

from PIL import Image, ImageDraw, ImageTk

POINTS_PER_INCH = 72
NOMINAL_DPI = 96
_FAMILIES = ("Inter", "Segoe UI", "SF Pro Text", "Cantarell", "Noto Sans", "DejaVu Sans")
_MONOSPACE = ("JetBrains Mono", "Consolas", "Menlo", "Noto Sans Mono", "DejaVu Sans Mono")
_SMALL_POINTS, _TEXT_POINTS, _LARGE_POINTS = 9, 10, 13
"""The three sizes of text: what may be read, what is to be read, what is seen from afar."""


@dataclass(frozen=True)
class Palette:
    """The colours of one theme, as #rrggbb."""

    name: str
    """`light` or `dark`."""
    window: str
    """Behind everything."""
    panel: str
    """Behind groups of widgets."""
    field: str
    """Inside entries and lists."""
    hover: str
    """A button under the pointer."""
    border: str
    """Lines around things."""
    text: str
    """What is to be read."""
    muted: str
    """What may be read."""
    accent: str
    """The main button, ticks, progress, focus."""
    on_accent: str
    """Text on the accent colour."""
    accent_hover: str
    """The main button under the pointer."""
    error: str
    """Problems."""
    error_panel: str
    """Behind the error banner."""
    good: str
    """A run that goes on or has finished."""
    selection: str
    """Behind what is chosen in a list; every colour of text can be read on it."""
    edge: str
    """Around what can be pressed or typed into."""
    disabled: str
    """On what cannot be, for now."""


LIGHT = Palette(
    "light", "#f3f4f7", "#ffffff", "#ffffff", "#e9ecf2", "#c9ced8", "#1d2330", "#5a6373", "#2563c9", "#ffffff",
    "#1a4fa8", "#b3261e", "#fdeceb", "#1f7a3d", "#e4edff", "#818a9b", "#a0a8b5",
)  # fmt: skip
DARK = Palette(
    "dark", "#191c22", "#21252d", "#2a2f39", "#333a46", "#454d5b", "#e7eaf0", "#a5aebd", "#6ba1ff", "#10131a",
    "#8fb8ff", "#ff9a90", "#43282a", "#7bd194", "#2b4067", "#6f7989", "#667080",
)  # fmt: skip
PALETTES = {palette.name: palette for palette in (LIGHT, DARK)}


class Look:
    """The theme as applied to one window: its palette, its scale, and lengths in pixels."""

    def __init__(self, root: tk.Tk, palette: Palette, scale: float | None = None) -> None:
        """`scale` is 1 at 96 dots per inch; None takes the display's own, but never less than 1."""
        self.root = root
        self.scale = scale or max(1.0, round(root.winfo_fpixels("1i") / NOMINAL_DPI, 2))
        root.tk.call("tk", "scaling", self.scale * NOMINAL_DPI / POINTS_PER_INCH)
        self._ticks: dict[str, ImageTk.PhotoImage] = {}
        self._blanks: list[tk.PhotoImage] = []
        self._set_fonts()
        self.palette = palette
        self.apply(palette)

    def px(self, length: float) -> int:
        """A length in pixels of a 96-dpi screen as pixels of this one."""
        return max(1, round(length * self.scale))

    def blank(self, width: float, height: float) -> tk.PhotoImage:
        """An image of nothing, in pixels of a 96-dpi screen: room where Tk has no padding."""
        image = tk.PhotoImage(master=self.root, width=self.px(width), height=self.px(height))
        self._blanks.append(image)  # Tk forgets an image that nobody holds
        return image

    def apply(self, palette: Palette) -> None:
        """Put the palette on every ttk widget there is and will be; tells the window with <<LookChanged>>."""
        self.palette = palette
        style = ttk.Style(self.root)
        style.theme_use("clam")
        self.root.configure(background=palette.window)
        self._set_classic_defaults()
        self._style_basics(style)
        self._style_buttons(style)
        self._style_fields(style)
        self._style_lists(style)
        self._style_ticks(style)
        self.root.event_generate("<<LookChanged>>")

    def _set_fonts(self) -> None:
        present = set(tkfont.families(self.root))
        family = next((name for name in _FAMILIES if name in present), "TkDefaultFont")
        fixed = next((name for name in _MONOSPACE if name in present), "TkFixedFont")
        for name in ("TkDefaultFont", "TkTextFont", "TkMenuFont", "TkHeadingFont", "TkTooltipFont"):
            tkfont.nametofont(name, self.root).configure(family=family, size=_TEXT_POINTS, weight="normal")
        tkfont.nametofont("TkFixedFont", self.root).configure(family=fixed, size=_SMALL_POINTS)
        self.fonts = {
            "title": tkfont.Font(self.root, family=family, size=_LARGE_POINTS, weight="bold"),
            "strong": tkfont.Font(self.root, family=family, size=_TEXT_POINTS, weight="bold"),
            "small": tkfont.Font(self.root, family=family, size=_SMALL_POINTS),
            "number": tkfont.Font(self.root, family=family, size=_LARGE_POINTS, weight="bold"),
        }

    def _set_classic_defaults(self) -> None:
        """Menus, list boxes of comboboxes and Tk's own file dialog are classic widgets: they take options."""
        p = self.palette
        options = {
            "*Menu.background": p.panel, "*Menu.foreground": p.text, "*Menu.activeBackground": p.accent,
            "*Menu.activeForeground": p.on_accent, "*Menu.relief": "flat", "*Menu.borderWidth": 1,
            "*Menu.disabledForeground": p.muted, "*Menu.selectColor": p.accent,
            "*TCombobox*Listbox.background": p.field, "*TCombobox*Listbox.foreground": p.text,
            "*TCombobox*Listbox.selectBackground": p.accent, "*TCombobox*Listbox.selectForeground": p.on_accent,
            "*Toplevel.background": p.window, "*Canvas.background": p.field, "*Canvas.highlightThickness": 0,
            "*Text.background": p.field, "*Text.foreground": p.text, "*Text.insertBackground": p.text,
            "*Text.selectBackground": p.accent, "*Text.selectForeground": p.on_accent,
        }  # fmt: skip
        for pattern, value in options.items():
            self.root.option_add(pattern, value)

    def _style_basics(self, style: ttk.Style) -> None:
        p, fonts = self.palette, self.fonts
        style.configure(
            ".", background=p.panel, foreground=p.text, bordercolor=p.border, lightcolor=p.panel, darkcolor=p.panel,
            troughcolor=p.window, focuscolor=p.accent, selectbackground=p.accent, selectforeground=p.on_accent,
            insertcolor=p.text, font="TkDefaultFont",
        )  # fmt: skip
        style.map(".", foreground=[("disabled", p.disabled)])
        style.configure("Window.TFrame", background=p.window)
        style.configure("Muted.TLabel", foreground=p.muted, font=fonts["small"])
        style.configure("Doubt.TLabel", foreground=p.text, font=fonts["small"])
        style.configure("Unset.TLabel", foreground=p.muted, background=p.field)
        style.configure("Problem.TLabel", foreground=p.error, font=fonts["small"])
        style.configure("Title.TLabel", font=fonts["title"], background=p.window)
        style.configure("Strong.TLabel", font=fonts["strong"])
        style.configure("Number.TLabel", font=fonts["number"])
        style.configure("Banner.TFrame", background=p.error_panel)
        style.configure("Banner.TLabel", background=p.error_panel, foreground=p.error)
        style.configure("State.TLabel", font=fonts["small"], background=p.window, foreground=p.muted)
        style.configure("Good.State.TLabel", foreground=p.good)
        style.configure("Bad.State.TLabel", foreground=p.error)
        style.configure("Tip.TLabel", background=p.text, foreground=p.panel, padding=self.px(8), font=fonts["small"])
        style.configure(
            "Horizontal.TProgressbar", background=p.accent, troughcolor=p.hover, bordercolor=p.hover,
            lightcolor=p.accent, darkcolor=p.accent, thickness=self.px(8), arrowsize=self.px(8),
        )  # fmt: skip
        style.configure(
            "TScrollbar", background=p.border, troughcolor=p.panel, bordercolor=p.panel, arrowcolor=p.muted,
            lightcolor=p.border, darkcolor=p.border, arrowsize=self.px(12), gripcount=0,
        )  # fmt: skip
        style.map("TScrollbar", background=[("disabled", p.panel), ("active", p.muted)])
        for side in ("Vertical", "Horizontal"):  # without clam's arrows
            thumb = (f"{side}.Scrollbar.thumb", {"expand": "1", "sticky": "nswe"})
            trough: Any = (f"{side}.Scrollbar.trough", {"sticky": "nswe", "children": [thumb]})
            style.layout(f"{side}.TScrollbar", [trough])
        style.configure("Line.TFrame", background=p.border)
        style.configure("TPanedwindow", background=p.window)

    def _style_buttons(self, style: ttk.Style) -> None:
        p, pad = self.palette, (self.px(12), self.px(4))
        style.configure(
            "TButton", background=p.field, foreground=p.text, bordercolor=p.edge, lightcolor=p.field,
            darkcolor=p.field, padding=pad, width=0, focusthickness=self.px(1), anchor="center",
        )  # fmt: skip
        face = [("disabled", p.window), ("pressed", p.border), ("active", p.hover)]
        style.map(
            "TButton", background=face, lightcolor=face, darkcolor=face, foreground=[("disabled", p.disabled)],
            bordercolor=[("disabled", p.window), ("focus", p.accent), ("active", p.muted)],
        )  # fmt: skip
        style.configure(
            "Accent.TButton", background=p.accent, foreground=p.on_accent, bordercolor=p.accent, lightcolor=p.accent,
            darkcolor=p.accent, font=self.fonts["strong"], focuscolor=p.on_accent,
        )  # fmt: skip
        face = [("disabled", p.hover), ("pressed", p.text), ("active", p.accent_hover)]
        style.map(
            "Accent.TButton", background=face, lightcolor=face, darkcolor=face,
            foreground=[("disabled", p.disabled), ("pressed", p.panel)],
            bordercolor=[("disabled", p.hover), ("focus", p.text), ("active", p.accent_hover)],
        )  # fmt: skip
        style.configure(
            "Toolbutton", background=p.panel, foreground=p.muted, bordercolor=p.panel, lightcolor=p.panel,
            darkcolor=p.panel, padding=(self.px(8), self.px(4)), font=self.fonts["small"],
        )  # fmt: skip
        face = [("disabled", p.panel), ("selected", p.selection), ("active", p.hover)]
        style.map(
            "Toolbutton", background=face, lightcolor=face, darkcolor=face,
            foreground=[("disabled", p.disabled), ("selected", p.text)],
            bordercolor=[("disabled", p.panel), ("focus", p.accent), ("selected", p.selection), ("active", p.hover)],
        )  # fmt: skip
        style.configure("Danger.TButton", foreground=p.error)
        style.map("Danger.TButton", foreground=[("disabled", p.disabled)])
        style.configure("Small.TButton", padding=(self.px(8), self.px(2)), font=self.fonts["small"])
        style.configure(
            "Fold.TButton", anchor="w", background=p.panel, bordercolor=p.panel, lightcolor=p.panel, darkcolor=p.panel,
            padding=(self.px(2), self.px(4)),
        )  # fmt: skip
        style.map("Fold.TButton", bordercolor=[("focus", p.accent)])

    def _style_fields(self, style: ttk.Style) -> None:
        p = self.palette
        for widget in ("TEntry", "TCombobox"):
            style.configure(
                widget, fieldbackground=p.field, background=p.field, foreground=p.text, bordercolor=p.edge,
                lightcolor=p.field, darkcolor=p.field, padding=(self.px(8), self.px(4)), arrowcolor=p.muted,
                arrowsize=self.px(12), insertwidth=self.px(1),
            )  # fmt: skip
            style.map(
                widget,
                bordercolor=[("disabled", p.border), ("invalid", p.error), ("focus", p.accent), ("active", p.muted)],
                lightcolor=[("invalid", p.error), ("focus", p.accent)],
                darkcolor=[("invalid", p.error), ("focus", p.accent)],
                fieldbackground=[("disabled", p.window), ("readonly", p.field)],
                foreground=[("disabled", p.disabled), ("readonly", p.text)],
                selectbackground=[("readonly", p.field)], selectforeground=[("readonly", p.text)],
                background=[("active", p.hover)], arrowcolor=[("disabled", p.border)],
            )  # fmt: skip

        style.configure("Small.TCombobox", padding=(self.px(8), self.px(2)))

    def _style_lists(self, style: ttk.Style) -> None:
        p = self.palette
        row = tkfont.nametofont("TkDefaultFont", self.root).metrics("linespace") + self.px(8)
        style.configure(
            "Treeview", background=p.field, fieldbackground=p.field, foreground=p.text, bordercolor=p.border,
            lightcolor=p.field, darkcolor=p.field, rowheight=row,
        )  # fmt: skip
        style.map("Treeview", background=[("selected", p.selection)], foreground=[("selected", p.text)])
        style.map("Treeview", bordercolor=[("focus", p.accent)])
        style.configure("Treeview.Cell", padding=(self.px(8), 0))
        style.configure(
            "Treeview.Heading", background=p.panel, foreground=p.muted, font=self.fonts["small"],
            bordercolor=p.border, lightcolor=p.panel, darkcolor=p.panel, padding=(self.px(8), self.px(4)),
            relief="flat",
        )  # fmt: skip
        style.map("Treeview.Heading", background=[("active", p.hover)])
        style.configure(
            "TNotebook", background=p.window, bordercolor=p.border, lightcolor=p.panel, darkcolor=p.panel,
            tabmargins=(0, 0, 0, 0),
        )  # fmt: skip
        style.configure(
            "TNotebook.Tab", background=p.window, foreground=p.muted, padding=(self.px(16), self.px(8)),
            bordercolor=p.border, lightcolor=p.window,
        )  # fmt: skip
        style.map(
            "TNotebook.Tab", background=[("selected", p.panel)], foreground=[("selected", p.text)],
            lightcolor=[("selected", p.panel)], expand=[("selected", (0, 0, 0, 0))],
            padding=[("selected", (self.px(16), self.px(8)))],
        )  # fmt: skip

    def _style_ticks(self, style: ttk.Style) -> None:
        """Tick boxes drawn to the scale; clam's own do not grow and show a cross."""
        p = self.palette
        states = {"off": (p.field, p.muted, None), "on": (p.accent, p.accent, p.on_accent)}
        states["off-disabled"] = (p.panel, p.border, None)
        for name, (fill, edge, mark) in states.items():
            self._ticks[f"{p.name}-{name}"] = tick_image(self.root, self.px(16), fill, edge, mark)
        element = f"Tick.{p.name}"
        if element not in style.element_names():
            style.element_create(
                element, "image", self._ticks[f"{p.name}-off"],
                ("selected", self._ticks[f"{p.name}-on"]), ("disabled", self._ticks[f"{p.name}-off-disabled"]),
                border=0, sticky="",
            )  # fmt: skip
        label: Any = ("Checkbutton.focus", {"side": "left", "children": [("Checkbutton.label", {"sticky": "nswe"})]})
        inside: list[Any] = [(element, {"side": "left", "sticky": ""}), label]
        style.layout("TCheckbutton", [("Checkbutton.padding", {"sticky": "nswe", "children": inside})])
        style.configure("TCheckbutton", padding=(0, self.px(4)), focuscolor=p.accent)
        style.map("TCheckbutton", background=[("active", p.panel)])
        style.configure("Strong.TCheckbutton", font=self.fonts["strong"])


def tick_image(root: tk.Misc, size: int, fill: str, edge: str, mark: str | None) -> ImageTk.PhotoImage:
    """A rounded box of `size` pixels, with room to its right, and a tick in the colour `mark` unless None."""
    fine = 4  # drawn larger and reduced, for smooth edges
    side = size * fine
    image = Image.new("RGBA", (side + 6 * fine, side), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    line = max(fine, side // 14)
    draw.rounded_rectangle((0, 0, side - 1, side - 1), radius=side // 5, fill=fill, outline=edge, width=line)
    if mark is not None:
        points = [(0.22 * side, 0.52 * side), (0.42 * side, 0.72 * side), (0.78 * side, 0.30 * side)]
        draw.line(points, fill=mark, width=side // 8, joint="curve")
    return ImageTk.PhotoImage(image.resize((size + 6, size), Image.Resampling.LANCZOS), master=root)
