"""`aios gui` where no window can be shown, and what it remembers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aios.gui.placement import Opening, fits, opening
from aios.gui.preferences import MOST_RECENT, Preferences, load_form, load_preferences, save_all
from aios.places import config_folder
from aios.settings.config import TrainingConfig
from aios.settings.config_file import load_config_file


def gui(*arguments: str, display: str | None, before: str = "pass") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    if display is not None:
        environment["DISPLAY"] = display
    code = (
        f"import sys; {before}; sys.argv = ['aios', 'gui', *{list(arguments)!r}]; from aios.cli.app import main; main()"
    )
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("display", "says"), [(None, "ssh -X"), (":4711", ":4711 cannot be opened")])
def test_without_a_display_it_says_how_to_get_one(display: str | None, says: str) -> None:
    done = gui(display=display)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_tk_it_names_the_package() -> None:
    done = gui(display=":0", before="sys.modules['_tkinter'] = None")
    assert done.returncode == 2
    assert "python3-tk" in done.stderr


def test_a_target_that_is_not_there_is_refused(screen: object, tmp_path: Path) -> None:
    done = gui(str(tmp_path / "nothing"), display=screen.display)  # type: ignore[attr-defined]
    assert done.returncode == 2
    assert "nothing" in done.stderr


def test_what_the_window_remembers_is_a_file_for_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    preferences = Preferences(theme="dark", geometry="800x600+0+0")
    for number in range(MOST_RECENT + 3):
        preferences.remember_dataset(f"{number}.txt")
    config = TrainingConfig(steps=80, use_moe=True)
    save_all(preferences, config)
    assert load_preferences() == preferences
    assert preferences.datasets[0] == f"{MOST_RECENT + 2}.txt"
    assert len(preferences.datasets) == MOST_RECENT
    assert TrainingConfig(**load_form()) == config
    assert load_config_file(config_folder() / "training.toml") == {"steps": 80, "use_moe": True}


@pytest.mark.parametrize(
    "damaged", ["{", "[]", '{"theme": "system"}', '{"datasets": null}', '{"datasets": [1]}', '{"maximised": "no"}']
)
def test_damaged_memories_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "aios").mkdir()
    (tmp_path / "aios" / "window.json").write_text(damaged, encoding="utf-8")
    (tmp_path / "aios" / "training.toml").write_text("steps = 0", encoding="utf-8")
    assert load_preferences() == Preferences()
    assert load_form() == {}


@pytest.mark.parametrize(
    ("geometry", "inside"),
    [
        ("800x600+10+10", True),
        ("800x600+500+0", False),
        ("800x780+0+0", False),  # with its menu bar it is higher
        ("800x600+-5+0", False),
        ("", False),
    ],
)
def test_a_window_is_put_back_only_where_the_screen_has_room(geometry: str, inside: bool) -> None:
    assert fits(geometry, (1280, 800), 36) is inside


def test_a_window_opens_inside_what_is_free() -> None:
    assert opening((1280, 800), (1280, 800), 36, 110) == Opening("1280x764+0+0", maximised=True)
    assert opening((1024, 600), (1280, 800), 36, 110) == Opening("1024x564+0+0", maximised=True)
    large = opening((1920, 1080), (1280, 800), 36, 110)
    assert large == Opening("1280x764+320+103", maximised=False)
