"""One row of data, whatever file it comes from: of which kind it is, and the text it stands for.

A row is plain text, a prompt with its completion, or a talk in messages. Of the latter two the loss is taken on the
completion, or on the assistant's turns, and on the end-of-text token after each: the rest is there to be read.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from aios.errors import UserError, shown

Kind = Literal["text", "completion", "messages"]

KEYS: dict[Kind, tuple[str, ...]] = {
    "text": ("text",),
    "completion": ("prompt", "completion"),
    "messages": ("messages",),
}
"""The keys that make a row one of a kind; the first kind whose keys are all there counts, other keys do not."""

MAX_ROW = 32 * 1024 * 1024
"""Longest row: bytes of a .jsonl line, else characters of its text."""

FORM_VERSION = 1
"""Raise it whenever a row of instructions would give other text or another mask."""

_ROLES = ("system", "developer", "user", "assistant", "tool")
_NO_KEYS = 'has no string under the key "text", no "prompt" and "completion", no "messages"'


class Part(NamedTuple):
    """A run of text inside a row."""

    text: str
    """As it stands there."""
    learned: bool
    """Whether the loss is taken on it, and on the end-of-text token after it."""
    ends: bool
    """Whether an end-of-text token follows."""


class Place(NamedTuple):
    """Where a row stands, to say so."""

    path: Path
    """The file."""
    unit: str
    """`Line` or `Row`."""
    number: int
    """Counted from 1, as people count."""

    def refuse(self, problem: str, remedy: str) -> NoReturn:
        """Raise UserError: this row has a problem."""
        raise UserError(f"{self.unit} {self.number} of the dataset file {self.path} {problem}; {remedy}.")


def kind_of(names: Container[str]) -> Kind | None:
    """The kind of rows with these keys; None where it is none."""
    return next((kind for kind, keys in KEYS.items() if all(key in names for key in keys)), None)


def row_kind(row: object, place: Place) -> Kind:
    """The kind of a row; UserError where it is none."""
    kind = kind_of(row) if isinstance(row, dict) else None
    if kind is None:
        place.refuse(_NO_KEYS, 'write {"text": "..."}, or those, in each row')
    return kind


def row_parts(row: object, kind: Kind, place: Place) -> list[Part]:
    """The text of a row, which must be of `kind`; nothing for an empty text.

    Raises:
        UserError: naming the row, for one of another kind, or without the strings that its kind has.
    """
    found = row_kind(row, place)
    assert isinstance(row, dict)
    if found != kind:
        place.refuse(f"holds {_keys(found)}, but the dataset began with {_keys(kind)}", "keep each in its own dataset")
    parts = _FORMS[kind](row, place)
    if sum(len(part.text) for part in parts) >= MAX_ROW:
        place.refuse(f"holds more than {MAX_ROW} characters", "split the document")
    _check_characters((part.text for part in parts), place)
    return parts


def _keys(kind: Kind) -> str:
    return " and ".join(f'"{key}"' for key in KEYS[kind])


def _text_parts(row: dict[str, Any], place: Place) -> list[Part]:
    text = row["text"]
    if not isinstance(text, str):
        place.refuse(f'has no string under the key "text" but {shown(text)}', "write a string, or remove it")
    return [Part(text, learned=True, ends=True)] if text else []


def _completion_parts(row: dict[str, Any], place: Place) -> list[Part]:
    for key in KEYS["completion"]:
        if not isinstance(row[key], str):
            place.refuse(f'has no string under the key "{key}" but {shown(row[key])}', "write a string, or remove it")
    if not row["completion"].strip():
        place.refuse("has an empty completion, which teaches nothing", "write one, or remove the row")
    prompt = [Part(row["prompt"], learned=False, ends=False)] if row["prompt"] else []
    return [*prompt, Part(row["completion"], learned=True, ends=True)]


def _message_parts(row: dict[str, Any], place: Place) -> list[Part]:
    """`User: ...` and so on, a line each; an assistant's turn goes on after its colon, and ends like a document."""
    parts: list[Part] = []
    before = ""
    for role, content in _turns(row["messages"], place):
        before += f"{role.capitalize()}:"
        if role == "assistant":
            parts += [Part(before, learned=False, ends=False), Part(f" {content}", learned=True, ends=True)]
            before = ""
        else:
            before += f" {content}\n"
    if not parts:
        place.refuse("has messages without a turn of the assistant", "add one, or remove the row")
    return [*parts, Part(before, learned=False, ends=True)] if before else parts


def _turns(messages: object, place: Place) -> Iterable[tuple[str, str]]:
    """(role, content) of each message."""
    if not isinstance(messages, list):
        place.refuse(f'has no list under the key "messages" but {shown(messages)}', "write one, or remove the row")
    for message in messages:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if role not in _ROLES:
            place.refuse(f"has a message whose role is {shown(role)}", f"the roles are {', '.join(_ROLES)}")
        if not isinstance(content, str):
            place.refuse(f"has a message whose content is {shown(content)}", "write a string, or remove the row")
        if role == "assistant" and not content.strip():
            place.refuse("has an empty turn of the assistant, which teaches nothing", "write one, or remove the row")
        yield role, content


def _check_characters(texts: Iterable[str], place: Place) -> None:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            place.refuse(f"holds half of a surrogate pair ({error.reason})", "mend or remove it")


_FORMS = {"text": _text_parts, "completion": _completion_parts, "messages": _message_parts}
