"""The palettes: every pair of text and ground that the window shows can be read (WCAG 2.1, level AA)."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

import aios.gui
from aios.gui.look import PALETTES, Palette
from aios.gui.tooltip import place_beside
from aios.run_view.theme import THEMES

GUI = Path(aios.gui.__file__).parent
TEXT, GRAPHICS = 4.5, 3.0
"""Least contrast of text of normal size, and of lines and marks."""


def luminance(color: str) -> float:
    """Relative luminance of #rrggbb, from 0 to 1 (WCAG 2.1, definition)."""
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, from 1 to 21."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("name", PALETTES)
def test_all_text_can_be_read_on_all_it_stands_on(name: str) -> None:
    p: Palette = PALETTES[name]
    grounds = (p.window, p.panel, p.field, p.hover, p.selection)
    pairs = [*itertools.product((p.text, p.muted, p.error, p.good), grounds)]
    pairs += [(p.on_accent, p.accent), (p.on_accent, p.accent_hover), (p.error, p.error_panel)]
    pairs += [(p.panel, p.text)]  # tooltips, the main button while it is pressed
    assert [(text, ground) for text, ground in pairs if contrast(text, ground) < TEXT] == []


@pytest.mark.parametrize("name", PALETTES)
def test_what_can_be_used_has_an_edge_that_can_be_seen(name: str) -> None:
    p = PALETTES[name]
    pairs = [*itertools.product((p.edge, p.accent, p.error), (p.window, p.panel, p.field))]
    assert [(edge, ground) for edge, ground in pairs if contrast(edge, ground) < GRAPHICS] == []


@pytest.mark.parametrize("name", PALETTES)
def test_states_look_different(name: str) -> None:
    p = PALETTES[name]
    faces = (p.field, p.hover, p.window, p.border)  # at rest, under the pointer, off, pressed
    assert len(set(faces)) == len(faces)
    assert contrast(p.text, p.field) > 3 * contrast(p.disabled, p.window)


@pytest.mark.parametrize("name", THEMES)
def test_curves_and_marks_can_be_seen_in_the_window(name: str) -> None:
    theme, ground = THEMES[name], PALETTES[name].panel
    drawn = [*theme.curves, *(style.color for style in theme.decisions.values())]
    assert [color for color in drawn if contrast(color, ground) < GRAPHICS] == []
    assert min(contrast(color, ground) for color in (theme.text, theme.muted)) >= TEXT


def test_a_tip_stands_where_it_was_asked_for_and_never_on_its_widget() -> None:
    screen, size = (1280, 800), (300, 40)
    assert place_beside((100, 400, 80, 20), size, screen, above=False) == (100, 424)
    assert place_beside((100, 400, 80, 20), size, screen, above=True) == (100, 356)
    assert place_beside((100, 10, 80, 20), size, screen, above=True) == (100, 34)  # no room over it
    assert place_beside((100, 770, 80, 20), size, screen, above=False) == (100, 726)  # none under it
    assert place_beside((1200, 400, 80, 20), size, screen, above=False) == (980, 424)
    assert place_beside((880, 10, 380, 780), size, screen, above=False) == (576, 10)  # as high as the screen


def test_gaps_are_on_one_scale() -> None:
    lengths = re.findall(r"\bpx\((\d+)\)", "".join(file.read_text(encoding="utf-8") for file in GUI.glob("*.py")))
    assert {int(length) for length in lengths if int(length) <= 24} <= {1, 2, 4, 8, 12, 16, 24}
