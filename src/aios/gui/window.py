"""The window: form and list of runs on the left, the run on show on the right, and the clock that keeps them true."""

from __future__ import annotations

import time
import tkinter as tk
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tkinter import filedialog
from types import TracebackType
from typing import Any

from aios.brains.brain_list import Brain, State, free_name, list_brains, locate
from aios.brains.printed_output import tail_text
from aios.errors import RunError, UserError
from aios.file_names import LOG_FILE
from aios.gui.arrangement import Arrangement
from aios.gui.automation import Inspector
from aios.gui.background import Background
from aios.gui.brain_care import BrainCare
from aios.gui.command_bar import CommandBar
from aios.gui.dialogs import ask_close, ask_steps, show_keys, show_text, sure_to_kill, tell
from aios.gui.form import FormModel
from aios.gui.form_checks import FormChecks
from aios.gui.form_panel import FormPanel
from aios.gui.look import PALETTES, Look
from aios.gui.menus import KEYS, bind_buttons, build_menus
from aios.gui.placement import is_maximised, place
from aios.gui.preferences import load_form, load_preferences, save_all
from aios.gui.queue_control import QueueControl
from aios.gui.run_feed import RunFeed
from aios.gui.run_panel import RunPanel
from aios.gui.runs_panel import RunsPanel
from aios.gui.settings_files import ask_and_export, ask_and_import
from aios.gui.training_control import TrainingControl, resume_config
from aios.gui.training_process import TrainingProcess, shown_command, training_arguments
from aios.gui.try_panel import TryPanel
from aios.run_view.reading import Outlines
from aios.settings.config import TrainingConfig

TICK_MS = 100
"""Between two looks at the log."""
_CATCH_UP_MS = 5  # while a log is still being taken in: only long enough for the window to answer
_POLL_SECONDS = 0.03
_REFRESH_SECONDS, _STATE_SECONDS, _LIST_SECONDS = 0.2, 0.5, 2.0
_WIDTH, _HEIGHT, _MENU_HEIGHT = 1280, 800, 36


def open_window(target: Path | None, bundle_dir: str | None, theme: str | None, scale: float | None) -> None:
    """Show the window until it is closed."""
    window = Window(bundle_dir, theme, scale)
    if target is not None:
        window.open_target(target)
    else:
        window.attach_running()
    window.run()


class Window:
    """Everything on the screen; `run` returns when it is closed."""

    def __init__(self, bundle_dir: str | None, theme: str | None, scale: float | None) -> None:
        self.preferences = load_preferences()
        self.root = tk.Tk(className="AI-OS")
        self.root.withdraw()
        self.root.title("AI-OS: HRM training")
        self.root.report_callback_exception = self._report
        self.look = Look(self.root, PALETTES[theme or self.preferences.theme], scale)
        self.inspector = Inspector()
        self.background = Background()
        self.control = TrainingControl()
        self.queue = QueueControl(self.background, self._start_queued, self._queue_changed)
        self.outlines = Outlines()
        self.feeds: list[RunFeed] = []
        self._due: dict[str, float] = {}
        self._faults: set[str] = set()
        self._feeds_changed = self._closing = self._shows_run_command = False
        given = load_form() | ({"bundle_dir": bundle_dir} if bundle_dir is not None else {})
        self.model = FormModel(self._with_free_name(given))
        self.checks = FormChecks(self.model, self.background, self._show_check)
        self._build()
        self.checks.changed()

    def _build(self) -> None:
        px, root = self.look.px, self.root
        room = (root.winfo_screenwidth(), root.winfo_screenheight())
        root.minsize(min(px(600), room[0]), min(px(360), room[1]))
        remembered, size = self.preferences, (px(_WIDTH), px(_HEIGHT))
        place(root, remembered.geometry, remembered.maximised, size, px(_MENU_HEIGHT))
        self.layout = Arrangement(root, self.look, self.inspector, self.preferences.form_folded)
        tabs = self.layout.tabs
        self.form = FormPanel(tabs, self.look, self.inspector, self.model, self._form_changed, self.start)
        self.care = BrainCare(root, self.look, self.inspector, self._moved)
        self.runs = RunsPanel(
            tabs, self.look, self.inspector, self.preferences, self.queue,
            {"open": self.show_brains, "compare": self.compare, "continue": self.go_on,
             "open-log": lambda _: self.choose_log(), **self.care.acts},
        )  # fmt: skip
        self.try_panel = TryPanel(tabs, self.look, self.inspector)
        self.run_panel = RunPanel(self.layout.outer, self.look, self.inspector, self.act)
        self.command_bar = CommandBar(self.run_panel.inside, self.look, self.inspector)
        self.run_panel.add(self.command_bar)
        self.layout.fill(self.form, self.runs, self.try_panel, self.run_panel)
        self.form.offer_datasets(self.preferences.datasets)
        self._bind()

    def _bind(self) -> None:
        layout, root = self.layout, self.root
        actions: dict[str, Callable[[], object]] = {
            "open-log": self.choose_log, "import": self.import_settings,
            "export": lambda: ask_and_export(root, self.checks.current),
            "defaults": lambda: self.form.load(self._with_free_name({})), "close": self.close,
            "theme": self.switch_theme, "form": lambda: layout.open(0), "runs": lambda: layout.open(1),
            "try": self.try_it, "run": layout.to_run, "fold": layout.toggle,
            "keys": lambda: show_keys(root, self.look, self.inspector, KEYS),
        }  # fmt: skip
        build_menus(root, self.look, actions | self.run_panel.plot.actions())
        controls = self.run_panel.controls
        bind_buttons(root, {
            "<Control-p>": controls["pause"], "<Alt-p>": controls["pause"], "<Alt-r>": controls["pause"],
            "<Alt-t>": controls["stop"], "<Alt-n>": controls["finish"], "<Alt-k>": controls["kill"],
        })  # fmt: skip
        for key in ("<Control-Return>", "<Alt-s>"):
            root.bind(key, lambda _: self.form.press_start())
        root.protocol("WM_DELETE_WINDOW", self.close)
        self.inspector.watch(root)
        self.inspector.fact("theme", lambda: self.look.palette.name)
        self.inspector.fact("draw_seconds", lambda: round(self.run_panel.plot.draw_seconds, 4))

    def run(self) -> None:
        """Show the window and serve it until it is closed."""
        self._show_state()
        self.root.deiconify()
        self.root.after(1, self._tick)
        self.root.mainloop()

    # The clock

    def _tick(self) -> None:
        """Look at everything that may have changed; each look is short, so the window always answers."""
        try:
            self.background.deliver()
            for feed in self.feeds:
                self._feeds_changed |= feed.poll(_POLL_SECONDS / len(self.feeds))
            if self._feeds_changed and self._is_due("refresh", _REFRESH_SECONDS):
                self._feeds_changed = False
                self.run_panel.refresh()
                self.try_panel.show_samples(self.feeds[0].history.samples)
            self.run_panel.plot.redraw_if_due()
            if self._is_due("state", _STATE_SECONDS):
                self._look_at_training()
            if self._is_due("list", _LIST_SECONDS):
                folder = Path(str(self.model.texts["bundle_dir"]))
                self.background.submit(
                    "list", partial(list_brains, folder, self.outlines), partial(self._show_list, folder)
                )
            self.checks.tick()
            self.inspector.write()
        finally:
            catching_up = any(not feed.caught_up for feed in self.feeds)
            if not self._closing or self.control.running:
                self.root.after(_CATCH_UP_MS if catching_up else TICK_MS, self._tick)
            else:
                self.root.after_idle(self._leave)

    def _is_due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + seconds
        return True

    def _look_at_training(self) -> None:
        was_running = self.control.running
        self.control.refresh()
        self._show_state()
        if was_running and not self.control.running:
            self._due.pop("list", None)
            self.checks.changed()
        elif self.control.running:
            self._feeds_changed = True  # the time left goes on between two steps

    def _show_state(self) -> None:
        self.queue.see(self.control.brain)
        self.run_panel.show_state(self.control.brain, self.control.waiting)
        self._show_command()

    def _show_list(self, folder: Path, brains: list[Brain]) -> None:
        self.runs.show(str(folder), brains)
        self.try_panel.offer(brains)
        if not self._closing:
            self.queue.tick(brains)

    def _queue_changed(self) -> None:
        self.runs.queue.show()
        self._show_check()

    # The form

    def _form_changed(self) -> None:
        self._shows_run_command = False
        self.checks.changed()

    def _show_check(self) -> None:
        self.form.show_check(self.checks.current, self.checks.why_not, self.queue.notice)
        self._show_command()

    def _show_command(self) -> None:
        config = self.checks.current.config
        if self.control.command and (self.control.running or self._shows_run_command):
            self.command_bar.show(self.control.command, "Command of the run on show")
        else:
            command = shown_command(training_arguments(config)) if config is not None else ""
            self.command_bar.show(command, "Command of these settings")

    def _with_free_name(self, given: dict[str, Any]) -> dict[str, Any]:
        """`given` with a brain name that no brain has yet, nor is to have."""
        config = TrainingConfig(**given)
        return given | {"brain_name": free_name(Path(config.bundle_dir), config.brain_name, self.queue.queue.brains)}

    def import_settings(self) -> None:
        """Load the form from a settings file."""
        settings = ask_and_import(self.root)
        if settings is not None:
            self.form.load(settings)

    # The run

    def start(self) -> None:
        """Train with the form's settings once they are checked, or queue the run where another is under way."""
        self.checks.ask(self._train)

    def _train(self, config: TrainingConfig) -> None:
        self.preferences.remember_dataset(config.dataset_file)
        self.form.offer_datasets(self.preferences.datasets)
        waits = self.queue.busy
        if waits:
            self.queue.add(config)
        else:
            self._launch(config)
        self.form.load(self._with_free_name(self.model.values()))
        self._shows_run_command = not waits

    def _launch(self, config: TrainingConfig) -> None:
        self.control.start(config, config.steps if config.resume else None)
        self._show_feeds([RunFeed(config.brain_name, config.log_path)])

    def _start_queued(self, config: TrainingConfig) -> None:
        """Start a run of the queue; it is shown unless the person looks at something else than the run before it."""
        if len(self.feeds) < 2 and self._controlled() in (None, self.queue.last):
            self._launch(config)
        else:
            TrainingProcess.start(config, config.steps if config.resume else None)

    def act(self, name: str) -> None:
        """Do what a control of the run panel stands for."""
        if name == "resume":
            self.control.resume()
        elif name == "try":
            self.try_it()
        elif name == "output":
            self._show_output()
        elif name != "kill" or sure_to_kill(self.root, self.look, self.inspector):
            self.control.ask(name)
        self._show_state()
        self._show_check()

    def try_it(self) -> None:
        """Bring the trial to the front, ready to be typed in."""
        self.layout.open(2)
        self.try_panel.begin()

    def _show_output(self) -> None:
        session = self.control.brain.session if self.control.brain is not None else None
        if session is not None:
            text = "\n".join(tail_text(Path(session.output)).splitlines()[-200:])
            show_text(self.root, self.look, self.inspector, "Output of the training", text)

    def _show_feeds(self, feeds: list[RunFeed]) -> None:
        self.feeds, self._shows_run_command = feeds, True
        self.run_panel.show(feeds)
        self.try_panel.choose(self.control.brain)
        self.layout.show_run(first=not self.root.winfo_viewable())
        self._show_state()
        self._show_check()

    def show_brains(self, brains: list[Brain]) -> None:
        """Show the runs of some brains; the controls belong to the first."""
        if self.control.running and all(b.folder != self._controlled() for b in brains):
            self.control.attach(None)  # it trains on; the list of runs leads back to it
        if brains[0].folder.absolute() != self._controlled():
            self.control.attach(brains[0].folder.absolute())
        self._show_feeds([RunFeed(brain.name, brain.log) for brain in brains])

    def _controlled(self) -> Path | None:
        return self.control.brain.folder.absolute() if self.control.brain is not None else None

    def compare(self, brains: list[Brain]) -> None:
        """Overlay the runs of several brains, or of one and of the run on show."""
        if len(brains) > 1 or not self.feeds:
            self.show_brains(brains)
        elif all(feed.log.absolute() != brains[0].log.absolute() for feed in self.feeds):
            self._show_feeds([*self.feeds, RunFeed(brains[0].name, brains[0].log)])

    def go_on(self, brains: list[Brain]) -> None:
        """Continue a brain: a paused one as far as it was asked for, any other to a step that is asked for here."""
        brain = brains[0]
        unfinished = brain.steps is not None and brain.step < brain.steps
        proposed = brain.steps if unfinished and brain.steps is not None else max(2 * brain.step, 100)
        steps = ask_steps(self.root, self.look, self.inspector, brain.name, brain.step, proposed)
        if steps is not None and self.queue.busy:
            self.queue.add(resume_config(brain, steps))
        elif steps is not None:
            self.show_brains([brain])
            self.control.resume(steps)
            self._show_state()
            self._show_check()

    def choose_log(self) -> None:
        """Show a training log from anywhere."""
        types = [("Training logs", "*.jsonl"), ("All files", "*")]
        path = filedialog.askopenfilename(parent=self.root, title="Open a training log", filetypes=types)
        if path:
            self.open_target(Path(path))

    def open_target(self, target: Path) -> None:
        """Show the run of a brain's folder or a log; one that is a brain's can be controlled."""
        log, folder = locate(target.absolute())
        self.control.attach(folder)
        if self.control.brain is None or self.control.brain.log.absolute() != log:
            self.control.attach(None)
        name = folder.name if target.is_dir() or log.name == LOG_FILE else log.stem
        self._show_feeds([RunFeed(name, log)])

    def attach_running(self) -> None:
        """Show the training that is running, if one is."""
        brains = list_brains(Path(str(self.model.texts["bundle_dir"])), self.outlines)
        running = [brain for brain in brains if brain.state is State.RUNNING]
        if running:
            self.show_brains(running[:1])

    def _moved(self, brain: Brain, folder: Path | None) -> None:
        """Follow a brain into another folder; let go of one that has none any more."""
        self._due.pop("list", None)
        if folder == brain.folder:
            return
        self.checks.changed()
        old, was_controlled = brain.folder.absolute(), self._controlled() == brain.folder.absolute()
        if was_controlled:
            self.control.attach(folder.absolute() if folder is not None else None)
        feeds = [moved for feed in self.feeds if (moved := feed.moved(old, folder)) is not None]
        if was_controlled or feeds != self.feeds:
            self._show_feeds(feeds)
            self.layout.open(1)  # where this was asked for

    # The window itself

    def switch_theme(self) -> None:
        """Light to dark, and back."""
        self.preferences.theme = "light" if self.look.palette.name == "dark" else "dark"
        self.look.apply(PALETTES[self.preferences.theme])
        self.run_panel.plot.recolour()
        self.runs.recolour()

    def close(self) -> None:
        """Close the window; asks what becomes of a training that runs."""
        answer: str | None = "keep"
        if self.control.running:
            name = self.control.brain.name if self.control.brain is not None else ""
            answer = ask_close(self.root, self.look, self.inspector, name, len(self.queue.queue.runs))
        if answer == "stop":
            self.control.ask("stop")
            self._show_state()
            self._closing = True
        elif answer == "keep":
            self._leave()

    def _leave(self) -> None:
        self.preferences.geometry, self.preferences.maximised = self.root.geometry(), is_maximised(self.root)
        self.preferences.form_folded = self.layout.folded
        self.background.close()
        self.try_panel.cancel()
        try:
            save_all(self.preferences, self.checks.current.config)
        finally:
            self.root.destroy()

    def _report(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """What a button or the clock raised: said in the window, and with a traceback where it is our fault."""
        expected = isinstance(error, (UserError, RunError))
        sentence = str(error) if expected else f"{kind.__name__}: {error}"
        if not expected and sentence in self._faults:
            return  # the clock raises the same again and again
        if not expected:
            self._faults.add(sentence)
            traceback.print_exception(kind, error, trace)
        if self.root.winfo_exists():
            tell(self.root, self.look, self.inspector, "That did not work", sentence)
