"""Errors that reach the person at the keyboard as one sentence, and how the values in it are shown."""

from __future__ import annotations

import re
import reprlib
from typing import Any

_SHOWN_CHARS = 100
_HEAD_CHARS, _TAIL_CHARS = 250, 200
"""What is kept of a line that is too long."""
_LONG_NAME = re.compile(r"(\S{60})\S{140,}(\S{60})")
_SHOWN_BITS = 1000
_NO_MEMORY = ("allocate memory", "out of memory")


class UserError(Exception):
    """Bad usage or bad input: the message names what is wrong, the value, and the remedy (exit code 2)."""


class RunError(Exception):
    """The run itself failed although its input was good: the message says why and what to do (exit code 1)."""


class LostWorkersError(RunError):
    """Another worker of this one's model died or hangs: started again together, they may well go on (exit code 1)."""


class _Brief(reprlib.Repr):
    """Looks at the first few members of the first few levels only, so that nested aliases cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = _SHOWN_CHARS

    def repr_int(self, number: int, level: int) -> str:
        """A whole number; Python refuses to write out very long ones."""
        if number.bit_length() > _SHOWN_BITS:
            return f"a whole number of {number.bit_length()} bits"
        return super().repr_int(number, level)


def shown(value: Any) -> str:
    """`value`, whoever it comes from, as Python writes it, cut to about 100 characters and never read to its end."""
    text = _Brief().repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says, in whatever library's words, that memory has run out."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def one_line(error: BaseException, limit: int = 1000) -> str:
    """The message of `error` as one line of at most `limit` characters: names in it may hold newlines, or thousands of
    letters."""
    line = " ".join(line.strip() for line in str(error).splitlines())
    line = _LONG_NAME.sub(r"\1...\2", line)
    if len(line) <= limit:
        return line
    head = min(_HEAD_CHARS, limit // 2)
    tail = min(_TAIL_CHARS, limit - head - len(" ... "))
    return f"{line[:head]} ... {line[-tail:]}"
