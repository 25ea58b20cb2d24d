"""A flag by the name of its field, and what is refused of its value; whatever the fields are of."""

from __future__ import annotations

from typing import Any, Literal

from aios.errors import UserError, shown


def flag_name(field_name: str) -> str:
    """`max_seq_len` -> `--max-seq-len`."""
    return "--" + field_name.replace("_", "-")


def require(condition: bool, name: str, value: Any, allowed: str) -> None:
    """Refuse the value of a flag, named as its field, unless `condition` holds."""
    if not condition:
        raise UserError(f"{flag_name(name)} is {shown(value)}, but it must be {allowed}.")


def is_utf8(text: str) -> bool:
    """Whether a text from the command line can be written as UTF-8: no byte of it was something else."""
    return text.encode(errors="replace") == text.encode(errors="surrogatepass")


def allowed_types(kind: Any) -> tuple[tuple[type, ...], tuple[Any, ...]]:
    """(plain types, literal values) that a field of type `kind` takes."""
    arms = getattr(kind, "__args__", (kind,))
    if getattr(kind, "__origin__", None) is Literal:
        return (), arms
    return tuple(arms), ()
