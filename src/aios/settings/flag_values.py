"""A flag by the name of its field, and what is refused of its value; whatever the fields are of."""

from __future__ import annotations

from typing import Any, Literal

from aios.errors import UserError, shown

_NOUNS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes"}


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


def nouns(kinds: tuple[type, ...]) -> str:
    """What a value of one of these types is called: `a whole number`."""
    return " or ".join(_NOUNS[kind] for kind in kinds if kind is not type(None))


def fits(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether `value` is of one of these types; a whole number is a number, too, a bool is neither."""
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


def wrong_type(kinds: tuple[type, ...]) -> str:
    """The rest of a sentence that names the place and a value which is of none of these types."""
    return f"has the wrong type; write {nouns(kinds)}"


def typed(value: Any, kinds: tuple[type, ...], yaml: bool = False) -> Any:
    """`value` as one of these types, a whole number as the number that is wanted.

    `yaml`: whether it was read as YAML 1.1, which takes 5e-5 (no dot) for a text.

    Raises:
        ValueError: the rest of a sentence that names the place and the value.
    """
    if yaml and float in kinds and isinstance(value, str):
        value = _number_of(value)
    if not fits(value, kinds):
        raise ValueError(wrong_type(kinds))
    if float not in kinds or value is None:
        return value
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError("is too large a number; write a smaller one") from error


def _number_of(text: str) -> float | str:
    """The number that a text is; the text itself where it is none."""
    try:
        return float(text)
    except ValueError:
        return text
