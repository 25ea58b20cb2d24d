"""What a run will be, told before it is started: how often it reads the text, its size, memory and time, and doubts.

The only place where these words are chosen: the terminal and the window say the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from aios.auto_lr.search import SHORTEST_RUN
from aios.data.text_source import check_dataset
from aios.data.token_estimate import estimated_tokens
from aios.quantities import show_bytes, show_duration
from aios.settings.config import TrainingConfig
from aios.settings.estimate import RunSize, adapter_parameters, model_parameters, training_memory
from aios.settings.fits import likely_device, size_of_run

MANY_READINGS = 8
"""Epochs from which a text is said to be too small: twice those that are as good as new text (4, arXiv 2305.16264)."""


@dataclass(frozen=True)
class Forecast:
    """What is known of a run before its first step."""

    config: TrainingConfig
    """What is asked for."""
    tokens: int
    """Of the training text."""
    counted: bool
    """Whether they were counted; else they are an estimate."""
    size: RunSize
    """What memory and work follow from."""
    step_seconds: float | None = None
    """Wall time of an optimizer step; None: not known yet."""

    @property
    def epochs(self) -> float:
        """How often the run reads the text."""
        sequences = self.config.sequences_per_step(self.config.world_size or 1)
        return self.config.steps * sequences * self.config.max_seq_len / max(self.tokens, 1)

    @property
    def facts(self) -> list[str]:
        """Two sentences: the text; size, memory and time."""
        about = "" if self.counted else "About "
        times = f"{self.epochs:.1f}" if self.epochs < 10 else f"{self.epochs:,.0f}"
        read = f"read {100 * self.epochs:.0f} % of them" if self.epochs < 1 else f"read them {times} times"
        tokens = self.tokens if self.counted else _roughly(self.tokens)
        parameters = model_parameters(self.size) + adapter_parameters(self.size)
        memory = show_bytes(int(_roughly(training_memory(self.size))))
        time = "the time is known after the first steps"
        if self.step_seconds is not None:
            seconds = max(1.0, _roughly(self.config.steps * self.step_seconds))
            time = f"about {show_duration(seconds)}, by the speed of earlier runs"
        return [
            f"{about}{tokens:,.0f} tokens of text; {self.config.steps:,} steps {read}.",
            f"{_count(parameters)} parameters; about {memory} of memory; {time}.",
        ]

    @property
    def doubts(self) -> list[str]:
        """What is worth a second thought, a sentence each; none where all is well."""
        config, said = self.config, []
        searches = config.auto_adjust_lr and config.adaptive_lr_profile == "auto"
        if searches and config.steps < SHORTEST_RUN:
            other = " unless --lr says otherwise" if config.lr is None else ""
            said.append(
                f"Too short to search for a learning rate, which takes {SHORTEST_RUN} steps or more: it begins at "
                f"{config.start_lr:g}{other}."
            )
        if self.epochs > MANY_READINGS:
            fewer = max(1, int(config.steps * MANY_READINGS / self.epochs))
            said.append(
                f"So small a text is learned by heart: after {MANY_READINGS} readings there is little left to learn "
                f"from it. Take more text, or up to {fewer:,} steps."
            )
        return said


def forecast(config: TrainingConfig, step_seconds: float | None = None) -> Forecast | None:
    """What can be said of a run from its settings and the first pages of its text; the files were checked before.

    None where the tokenizer cannot be looked into, or the model is another brain's.

    Raises:
        UserError: for a text that cannot be read.
    """
    if config.student_init is not None or config.resume:
        return None
    source = check_dataset(config.dataset_file, config.text_encoding)
    estimated = estimated_tokens(source, config.model)
    if estimated is None:
        return None
    tokens, vocabulary = estimated
    size = size_of_run(config, vocabulary, likely_device(config))
    return Forecast(config, tokens, counted=False, size=size, step_seconds=step_seconds)


def _count(number: int) -> str:
    return f"{number / 1e6:.3g} million" if number >= 1e6 else f"{number:,}"


def _roughly(number: float) -> float:
    """As precise as an estimate is: two digits."""
    return float(f"{number:.2g}")
