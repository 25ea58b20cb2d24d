"""Errors that reach the person at the keyboard as one sentence."""

from __future__ import annotations


class UserError(Exception):
    """Bad usage or bad input: the message names what is wrong, the value, and the remedy (exit code 2)."""


class RunError(Exception):
    """The run itself failed although its input was good: the message says why and what to do (exit code 1)."""


class LostWorkersError(RunError):
    """Another worker of this one's model died or hangs: started again together, they may well go on (exit code 1)."""
