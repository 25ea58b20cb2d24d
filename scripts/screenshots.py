"""Make the pictures of docs/gui.md: real trainings in the real window, on a virtual screen.

python scripts/screenshots.py            # about a quarter of an hour on 2 CPU cores
python scripts/screenshots.py --steps 60 # a quick look, not for the docs

Needs the programs Xvfb and xdotool (apt-get install xvfb xdotool). Trainings that --work holds already are not
repeated; the one that is shown in progress always is.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from desktop import App, Screen

ROOT = Path(__file__).parents[1]
SHAPE = {
    "hidden_size": 64,
    "num_heads": 2,
    "h_layers": 1,
    "l_layers": 1,
    "max_seq_len": 64,
    "batch_size": 8,
    "device": "cpu",
    "eval_batches": 4,
    "eval_every": 50,
}
"""Settings of a model that trains hundreds of steps in minutes."""
RUNS = {"auto": [], "fixed-1e-3": ["--no-auto-adjust-lr", "--lr=1e-3"]}
"""Trainings to compare, by brain name."""
PATIENCE = 1800.0


def train_runs(work: Path, steps: int) -> None:
    """Train what is to be compared, unless it is there."""
    shape = [f"--{name.replace('_', '-')}={value}" for name, value in SHAPE.items()]
    for name, flags in RUNS.items():
        if not (work / "artifacts/brains/actv1" / name / "brain.json").exists():
            command = [sys.executable, "-m", "aios", "hrm-hf", "train", *shape, *flags]
            subprocess.run([*command, f"--brain-name={name}", f"--steps={steps}"], cwd=work, check=True)


def open_app(screen: Screen, work: Path, *arguments: str, settings: str = "") -> App:
    """The window as it opens for somebody who left `settings` in the form."""
    config = work / "config" / "aios"
    shutil.rmtree(config, ignore_errors=True)
    config.mkdir(parents=True)
    (config / "training.toml").write_text(settings, encoding="utf-8")
    return App(screen, work, *arguments)


def settle(app: App) -> None:
    """Let the last redraw happen, and take the pointer out of the picture."""
    app.point(640, 796)
    time.sleep(2.0)


def at_rest(screen: Screen, work: Path, steps: int) -> None:
    """The panel before anything was done."""
    with open_app(screen, work) as app:
        app.wait(lambda: app.enabled("start"), "Start to be on")
        settle(app)
        save(screen, "rest")


def in_progress(screen: Screen, work: Path, steps: int) -> None:
    """A training under way, a mark of its learning rate chosen."""
    shutil.rmtree(work / "artifacts/brains/actv1/bible", ignore_errors=True)
    settings = "".join(f"{key} = {value!r}\n" for key, value in {**SHAPE, "brain_name": "bible"}.items())
    with open_app(screen, work, settings=settings.replace("'", '"')) as app:
        app.fill("steps", str(steps))
        app.wait(lambda: app.enabled("start"), "Start to be on")
        app.click("start")
        app.wait(lambda: app.look()["progress"] >= 0.68, "two thirds of the steps", PATIENCE)
        if app.look()["markers"]:
            app.click_at(*app.look()["markers"][-1]["at"])
        settle(app)
        save(screen, "run")
        app.click("stop")
        app.wait(lambda: app.text("state") == "stopped", "the training to stop", PATIENCE)


def two_runs(screen: Screen, work: Path, steps: int) -> None:
    """Two runs laid over each other."""
    with open_app(screen, work) as app:
        compare(app)
        settle(app)
        save(screen, "compare")


def compare(app: App) -> None:
    """Select both trained runs in the list and lay them over each other."""
    app.press("ctrl+2")
    first, second = RUNS
    app.click_row("runs", first)
    app.click_row("runs", second, key="ctrl")
    app.wait(lambda: app.enabled("runs.compare"), "Compare to be on")
    app.click("runs.compare")
    app.wait(lambda: "+" in app.text("title"), "both runs")
    app.wait(lambda: bool(app.look()["markers"]), "the marks")


def try_it(screen: Screen, work: Path, steps: int) -> None:
    """A trained brain that has gone on with a text."""
    with open_app(screen, work, f"artifacts/brains/actv1/{next(iter(RUNS))}") as app:
        app.press("ctrl+4")
        app.wait(lambda: app.widget("try.prompt")["focus"], "the cursor to be where the text begins")
        app.fill("try.prompt", "And the Lord said unto")
        app.press("Return")
        app.wait(lambda: app.text("try.said") == "That is all.", "the answer", PATIENCE)
        settle(app)
        save(screen, "try")


def an_error(screen: Screen, work: Path, steps: int) -> None:
    """A training that failed on data damaged far in, and fields with mistakes in them."""
    shutil.rmtree(work / "artifacts/brains/actv1/damaged", ignore_errors=True)
    (work / "notes.jsonl").write_text('{"text": "In the beginning"}\n' * 10_000 + '{"txet": "God"}\n', encoding="utf-8")
    with open_app(screen, work, settings='dataset_file = "notes.jsonl"\nbrain_name = "damaged"\n') as app:
        app.wait(lambda: app.enabled("start"), "Start to be on")
        app.click("start")
        app.wait(lambda: app.text("state") == "failed", "the training to fail", PATIENCE)
        app.press("ctrl+1")
        app.fill("batch_size", "0")
        app.fill("lr", "fast")
        app.wait(lambda: app.shows("problem.lr"), "the problem")
        settle(app)
        save(screen, "error")


def dark(screen: Screen, work: Path, steps: int) -> None:
    """A finished run in the dark theme, with what hovering over a mark tells."""
    with open_app(screen, work, f"artifacts/brains/actv1/{next(iter(RUNS))}", "--theme", "dark") as app:
        app.wait(lambda: bool(app.look()["markers"]), "the marks")
        settle(app)
        app.point(*app.look()["markers"][len(app.look()["markers"]) // 2]["at"])
        app.wait(lambda: app.shows("plot-card"), "what the mark tells")
        save(screen, "dark")


PICTURES: dict[str, Callable[[Screen, Path, int], None]] = {
    "rest": at_rest,
    "run": in_progress,
    "compare": two_runs,
    "try": try_it,
    "error": an_error,
    "dark": dark,
}


def save(screen: Screen, name: str) -> None:
    """Save the screen as docs/gui/NAME.png."""
    path = ROOT / "docs" / "gui" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    screen.grab(path)
    print(f"{path} ({path.stat().st_size / 1000:.0f} kB)")


def main() -> None:
    """Train what is missing, then take the pictures asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", choices=[[], *PICTURES], help="default: all")
    parser.add_argument("--steps", type=int, default=500, help="steps of each training")
    parser.add_argument("--work", type=Path, help="folder to train in; default: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, Screen() as screen:
        work = (args.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        train_runs(work, args.steps)
        for name in args.pictures or PICTURES:
            PICTURES[name](screen, work, args.steps)


if __name__ == "__main__":
    main()
