"""A conversation on the terminal: a text that person and brain write by turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from aios.cli.hrm_hf.answer import Show, answer, encode
from aios.cli.hrm_hf.trained_brain import TrainedBrain
from aios.settings.answering import Answering

if TYPE_CHECKING:
    from aios.core.hrm_models import HRMCache

QUIT = "/quit"
FORGETS = "What was said first does not fit into the window of {window} tokens any more and is forgotten."


class Conversation:
    """What was said so far, as tokens, and what the model keeps of it.

    The models are trained on plain text, so that a conversation is one: what is said and what is answered are lines
    of it. Text and answer together stay within the window, so that nothing is computed twice.
    """

    def __init__(self, brain: TrainedBrain, how: Answering) -> None:
        self._brain, self._how = brain, how
        self._tokens: list[int] = []
        self._cache: HRMCache | None = None

    def say(self, line: str) -> bool:
        """Add a line; says whether what came first had to be forgotten for it."""
        new_line = "\n" if self._tokens and not self._brain.tokenizer.decode(self._tokens[-1:]).endswith("\n") else ""
        new = encode(self._brain, f"{new_line}{line}\n")
        self._tokens += new
        window = self._brain.window
        fits = window - min(self._how.max_new_tokens, window // 2)
        forgets = len(self._tokens) > fits
        if forgets:
            # Down to half of what fits, so that not every line to come starts the cache anew.
            kept = min(fits, max(len(new), fits // 2))
            self._tokens, self._cache = self._tokens[-kept:], None
        return forgets

    def reply(self, show: Show) -> None:
        """Let the brain go on, and remember what it said."""
        room = min(self._how.max_new_tokens, self._brain.window - len(self._tokens))
        how = dataclasses.replace(self._how, max_new_tokens=room)
        given = answer(self._brain, self._tokens, how, show, self._cache)
        self._tokens += given.tokens
        self._cache = given.cache


def converse(brain: TrainedBrain, how: Answering, hear: Callable[[], str | None], show: Show, remark: Show) -> None:
    """Answer each line that `hear` returns, until it returns None or `/quit`; remarks are no part of the answers."""
    conversation = Conversation(brain, how)
    while (line := hear()) is not None and line.strip() != QUIT:
        if not line.strip():
            continue
        if conversation.say(line):
            remark(FORGETS.format(window=brain.window))
        conversation.reply(show)
        show("\n")
