"""Colours and marks of the pictures: one look for command line and window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class DecisionStyle(NamedTuple):
    """How an adjustment of one kind is marked: never by colour alone."""

    marker: str
    """matplotlib marker."""
    color: str
    """Fill."""


@dataclass(frozen=True)
class Theme:
    """Everything that differs between light and dark."""

    name: str
    """`light` or `dark`."""
    background: str
    """Of the figure and its axes."""
    text: str
    """Labels and the evaluation of a single run."""
    muted: str
    """Axes, ticks, lines of reference."""
    grid: str
    """Grid lines."""
    curves: tuple[str, ...]
    """One colour per run, or per worker of a single run."""
    decisions: Mapping[str, DecisionStyle]
    """Marks by decision."""
    phases: Mapping[str, str]
    """Tint by phase."""
    kinds: Mapping[str, str]
    """Colours in the timeline, by kind of decision; of adjustments it is that of their mark."""
    font_size: float = 10.0
    """Points; labels are of this size, ticks a little smaller."""

    def decision(self, name: str) -> DecisionStyle:
        """The mark of a decision; one that is not known is a grey dot."""
        return self.decisions.get(name, DecisionStyle("o", self.muted))

    def timeline_color(self, label: str) -> str:
        """The colour of a decision in the timeline, by its `label`."""
        return self.kinds.get(label) or self.decision(label.replace(" ", "_")).color


def _decisions(up: str, down: str, brake: str, back: str, search: str) -> dict[str, DecisionStyle]:
    return {
        "increase": DecisionStyle("^", up),
        "decrease": DecisionStyle("v", down),
        "spike_decrease": DecisionStyle("X", brake),
        "trouble_decrease": DecisionStyle("s", brake),
        "rewind_decrease": DecisionStyle("<", back),
        "gradient_increase": DecisionStyle("D", up),
        "trouble_over_increase": DecisionStyle(">", back),
        "search_decrease": DecisionStyle("P", search),
        "challenge_increase": DecisionStyle("*", search),
        "race_increase": DecisionStyle("*", search),
        "race_decrease": DecisionStyle("P", search),
        "learning_decrease": DecisionStyle("P", search),
    }


def _kinds(search: str, warmup: str, trouble: str, anneal: str, end: str) -> dict[str, str]:
    return {
        **dict.fromkeys(("climb", "race", "search", "trial"), search),
        **dict.fromkeys(("trouble", "overfitting", "not learning"), trouble),
        "warm-up": warmup,
        "anneal": anneal,
        "end": end,
    }


# The hues of Okabe and Ito (jfly.uni-koeln.de/color), which colour-blind people can tell apart; darker on white,
# lighter on black, so that each keeps a contrast of at least 3 to 1.
LIGHT = Theme(
    name="light",
    background="#ffffff",
    text="#1f2328",
    muted="#6b7280",
    grid="#e8eaed",
    curves=("#0072b2", "#d55e00", "#00835f", "#b8578f", "#9a6a00", "#2f8fc4", "#4d4d4d"),
    decisions=_decisions("#00835f", "#c77700", "#c8321f", "#8a4fbf", "#2f8fc4"),
    phases={"climb": "#e4effa", "search": "#e4effa", "trial": "#e0f2ec", "warm-up": "#fdf3dc", "anneal": "#f2eefa"},
    kinds=_kinds("#0072b2", "#9a6a00", "#c8321f", "#8a4fbf", "#1f2328"),
)
DARK = Theme(
    name="dark",
    background="#1b1e23",
    text="#e6e8eb",
    muted="#9aa1ab",
    grid="#2e333a",
    curves=("#56b4e9", "#f08a3c", "#2fc79a", "#e29ac6", "#f0d24a", "#8fb4ff", "#c8c8c8"),
    decisions=_decisions("#2fc79a", "#f2b134", "#ff6b57", "#c39bf0", "#8fb4ff"),
    phases={"climb": "#22303f", "search": "#22303f", "trial": "#1f3632", "warm-up": "#383221", "anneal": "#2e2a3c"},
    kinds=_kinds("#8fb4ff", "#f0d24a", "#ff6b57", "#c39bf0", "#e6e8eb"),
)
THEMES = {theme.name: theme for theme in (LIGHT, DARK)}
"""By name."""
