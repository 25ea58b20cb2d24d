"""Try it: a text that a brain goes on with, as it comes; beneath it what the brain said while it was trained."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Sequence
from tkinter import ttk

from aios.brains.brain_list import Brain, State
from aios.errors import UserError
from aios.gui.answer_process import AnswerProcess, answering_step
from aios.gui.automation import Inspector
from aios.gui.field_widgets import wrapped_label
from aios.gui.look import Look
from aios.gui.read_only_text import ReadOnlyText, move_on
from aios.gui.scrolling import ScrollFrame
from aios.gui.tooltip import Tooltip
from aios.gui.wording import in_window_words, label_of
from aios.run_view.events import Sample
from aios.settings.answering import Answering

_LEAST_HEIGHT = 520  # at 96 dpi; in a lower window it scrolls
_POLL_MS = 60
_PROMPT_LINES = 3
_GO, _CANCEL = "Continue the text", "Cancel"
_SAMPLES = "What it said while it was trained"
_NO_SAMPLES = f"A run that was started with “{label_of('sample_every')}” also shows here what it said on its way."
_TIPS = {
    _GO: "Have the brain go on with the text (Enter).",
    _CANCEL: "End the answer; what has come of it stays (Escape).",
}


class TryPanel(ttk.Frame):
    """Asks one brain at a time, by default that of the run on show."""

    def __init__(self, parent: tk.Misc, look: Look, inspector: Inspector) -> None:
        super().__init__(parent)
        self._look, self._inspector = look, inspector
        self._brains: dict[str, Brain] = {}
        self._answer: AnswerProcess | None = None
        self._begun = False
        self.rowconfigure(0, weight=1)
        self.columnconfigure(0, weight=1)
        scroll = ScrollFrame(self, look, look.px(_LEAST_HEIGHT))
        scroll.grid(row=0, column=0, sticky="nsew")
        self._inside = ttk.Frame(scroll.inside, padding=look.px(12))
        self._inside.pack(fill="both", expand=True)
        self._inside.columnconfigure((0, 1), weight=1, uniform="half")
        self._inside.rowconfigure(8, weight=3)
        self._build_brain()
        self._build_prompt()
        self._build_numbers()
        self._build_answer()
        self._build_samples()
        self._refresh()

    def _build_brain(self) -> None:
        ttk.Label(self._inside, text="Brain").grid(row=0, column=0, columnspan=2, sticky="w")
        self._brain_name = tk.StringVar()
        self._choice = ttk.Combobox(self._inside, textvariable=self._brain_name, state="readonly", width=8)
        self._choice.grid(row=1, column=0, columnspan=2, sticky="ew", pady=(self._look.px(2), 0))
        self._choice.bind("<<ComboboxSelected>>", lambda _: self._refresh())
        Tooltip(self._choice, "The brain that is asked: that of the run on show, or any in the folder.")
        self._about = wrapped_label(self._inside, "Muted.TLabel")
        self._about.grid(row=2, column=0, columnspan=2, sticky="ew", pady=(0, self._look.px(8)))
        self._inspector.name("try.brain", self._choice)
        self._inspector.name("try.about", self._about)

    def _build_prompt(self) -> None:
        ttk.Label(self._inside, text=label_of("prompt")).grid(row=3, column=0, columnspan=2, sticky="w")
        self._prompt = tk.Text(self._inside, height=_PROMPT_LINES, width=1, wrap="word", undo=True, relief="flat")
        self._prompt.grid(row=4, column=0, columnspan=2, sticky="ew", pady=(self._look.px(2), self._look.px(8)))
        self._prompt.bind("<Return>", lambda _: self._pressed())
        self._prompt.bind("<Control-Return>", lambda _: self._pressed())
        self._prompt.bind("<Shift-Return>", lambda _: None)  # a line break, as typed
        self._prompt.bind("<Tab>", move_on)
        Tooltip(self._prompt, "A brain goes on with a text, in the manner of what it was trained on; Enter asks it.")
        self._inspector.name("try.prompt", self._prompt)
        self.winfo_toplevel().bind("<<LookChanged>>", lambda _: self._recolour(), add="+")
        self._recolour()

    def _recolour(self) -> None:
        p, look = self._look.palette, self._look
        self._prompt.configure(
            font="TkTextFont", background=p.field, foreground=p.text, insertbackground=p.text,
            selectbackground=p.accent, selectforeground=p.on_accent, highlightthickness=1,
            highlightbackground=p.edge, highlightcolor=p.accent, padx=look.px(8), pady=look.px(4),
        )  # fmt: skip

    def _build_numbers(self) -> None:
        self._numbers = {
            "max_new_tokens": tk.StringVar(value=str(Answering.max_new_tokens)),
            "temperature": tk.StringVar(value=f"{Answering.temperature:g}"),
        }
        for column, (name, tip) in enumerate((
            ("max_new_tokens", "Tokens after which it ends: a token is a word or a part of one."),
            ("temperature", "0: always the likeliest word; 0.8: livelier; above 1: wild."),
        )):  # fmt: skip
            frame = ttk.Frame(self._inside)
            frame.columnconfigure(0, weight=1)
            frame.grid(row=5, column=column, sticky="new", padx=(self._look.px(12) if column else 0, 0))
            ttk.Label(frame, text=label_of(name)).grid(row=0, column=0, sticky="w")
            entry = ttk.Entry(frame, textvariable=self._numbers[name], width=8)
            entry.grid(row=1, column=0, sticky="ew", pady=(self._look.px(2), self._look.px(8)))
            entry.bind("<Return>", lambda _: self._pressed())
            entry.bind("<Escape>", lambda _: self.cancel())
            Tooltip(entry, tip)
            self._inspector.name(f"try.{name}", entry)

    def _build_answer(self) -> None:
        self._go = ttk.Button(self._inside, text=_GO, style="Accent.TButton", command=self._pressed)
        self._go.grid(row=6, column=0, columnspan=2, sticky="ew")
        self._go_tip = Tooltip(self._go, _TIPS[_GO])
        self._said = wrapped_label(self._inside, "Muted.TLabel")
        self._said.grid(row=7, column=0, columnspan=2, sticky="ew", pady=self._look.px(4))
        self._text = ReadOnlyText(self._inside, self._look, "TkTextFont")
        self._text.grid(row=8, column=0, columnspan=2, sticky="nsew")
        for widget in (self._prompt, self._go, self._text.text):
            widget.bind("<Escape>", lambda _: self.cancel())
        for name, shown in (("go", self._go), ("said", self._said), ("text", self._text.text)):
            self._inspector.name(f"try.{name}", shown)

    def _build_samples(self) -> None:
        self._samples_title = wrapped_label(self._inside, "Muted.TLabel", _NO_SAMPLES)
        self._samples_title.grid(row=9, column=0, columnspan=2, sticky="ew", pady=(self._look.px(8), self._look.px(2)))
        self._samples = ReadOnlyText(self._inside, self._look, "TkTextFont")
        self._inspector.name("try.samples", self._samples.text)

    def offer(self, brains: Sequence[Brain]) -> None:
        """The brains that there are; a run on show from elsewhere stays on offer."""
        chosen = self._brains.get(self._brain_name.get())
        self._brains = {brain.name: brain for brain in brains}
        if chosen is not None and chosen.folder not in (b.folder for b in brains) and chosen.folder.is_dir():
            self._brains[chosen.name] = chosen
        self._choice.configure(values=list(self._brains))
        if self._brain_name.get() not in self._brains:
            self._brain_name.set(next(iter(self._brains), ""))
        self._refresh()

    def begin(self) -> None:
        """Put the cursor where the text begins."""
        self._prompt.focus_set()

    def choose(self, brain: Brain | None) -> None:
        """Ask `brain` from now on: its run is on show."""
        if brain is not None:
            self._brains[brain.name] = brain
            self._brain_name.set(brain.name)
            self._refresh()

    def show_samples(self, samples: Sequence[Sample]) -> None:
        """Show the samples that the log of the run on show holds, the newest above."""
        self._inside.rowconfigure(10, weight=2 if samples else 0)
        if not samples:
            self._samples_title.configure(text=_NO_SAMPLES, style="Muted.TLabel")
            self._samples.grid_remove()
            return
        self._samples_title.configure(text=_SAMPLES, style="Strong.TLabel")
        self._samples.grid(row=10, column=0, columnspan=2, sticky="nsew")
        self._samples.show("\n\n".join(f"Step {s.step:,}: {s.prompt.lstrip()}{s.text}" for s in reversed(samples)))

    def _pressed(self) -> str:
        if self._answer is not None:
            self.cancel()
        else:
            self._ask()
        return "break"

    def _ask(self) -> None:
        """Start an answer, or say why there is none."""
        prompt, brain = self._prompt.get("1.0", "end-1c"), self._brains.get(self._brain_name.get())
        if brain is None:
            self._say("Choose a brain first; there is none before a training has begun.", is_problem=True)
        elif not prompt.strip():
            self._say("Write how the text begins, a few words at least.", is_problem=True)
        else:
            try:
                self._answer = AnswerProcess(brain, prompt, self._how())
            except UserError as error:
                self._say(in_window_words(str(error)), is_problem=True)
                return
            self._begun = False
            self._text.show("")
            self._text.add(prompt, muted=True)
            self._say("Opening the brain …")
            self._refresh()
            self.after(_POLL_MS, self._take)

    def _how(self) -> Answering:
        length, temperature = (self._numbers[name].get().strip() for name in ("max_new_tokens", "temperature"))
        if not length.isdecimal():
            raise UserError(f"--max-new-tokens is {length!r}; write a whole number.")
        try:
            return Answering(int(length), float(temperature))
        except ValueError as error:
            raise UserError(f"--temperature is {temperature!r}; write a number, such as 0.8.") from error

    def _take(self) -> None:
        """Show what has come, and look again soon."""
        answer = self._answer
        if answer is None:
            return
        piece = answer.poll()
        if piece:
            self._text.add(piece)
            if not self._begun:
                self._begun = True
                self._say("Writing …")
        if not answer.ended:
            self.after(_POLL_MS, self._take)
            return
        self._answer = None
        self._say(answer.problem or answer.remark or "That is all.", is_problem=answer.problem is not None)
        self._refresh()

    def cancel(self) -> None:
        """End the answer that is on its way, if one is."""
        if self._answer is not None:
            self._answer.cancel()
            self._answer = None
            self._say("Cancelled.")
            self._refresh()

    def _say(self, sentence: str, is_problem: bool = False) -> None:
        self._said.configure(text=sentence, style="Problem.TLabel" if is_problem else "Muted.TLabel")

    def _refresh(self) -> None:
        brain = self._brains.get(self._brain_name.get())
        self._about.configure(text=about(brain))
        text = _GO if self._answer is None else _CANCEL
        if str(self._go.cget("text")) != text:
            self._go.configure(text=text)
            self._go_tip.text = _TIPS[text]


def about(brain: Brain | None) -> str:
    """Which weights answer, in one sentence."""
    if brain is None:
        return "No brain yet: train one, or open a run."
    step = answering_step(brain)
    if step is None:
        return "It has not saved anything yet; it answers from its first checkpoint on."
    if brain.state is State.RUNNING:
        return f"In training; its newest checkpoint, of step {step:,}, answers. The training goes on."
    return f"Trained to step {brain.step:,}; the weights of step {step:,} answer."
