"""The reason of a decision, as the controller logs it: its word in plain words, its brackets as numbers with names."""

from __future__ import annotations

import re

Numbers = list[tuple[str, str]]
"""(name, value), ready to be shown in two columns."""

SPREAD = "spread of the loss / its mean"
MEAN_LOSS = "mean loss"
GRADIENT_NORM = "gradient norm"
USUAL_GRADIENT = "usual gradient norm"

_PLAIN = {
    "improving": "the loss falls steadily",
    "plateau": "the loss no longer falls",
    "worsening": "the loss rises slowly",
    "unstable": "the loss is too noisy",
    "loss_spike": "the loss jumped",
    "non_finite_loss": "the loss was NaN or infinite",
    "non_finite_gradient": "the gradient was NaN or infinite",
    "gradient_explosion": "the gradient exploded",
    "rare_batches": "such gradients come again and again and do no harm: some batches are of a rare kind",
    "vanishing_gradient": "the gradient vanishes while the loss is flat",
    "persistent_trouble": "the trouble did not pass",
    "not_learning": "the loss did not come down at the rate that was found",
    "stalled": "the loss stands still",
    "rewinds_exhausted": "going back did not help",
    "regime_change": "the data changed",
    "trouble_over": "the trouble has passed",
    "foreign_lr": "the rate was changed from outside",
    "foreign_step": "an update was made from outside",
    # only in the logs of earlier versions
    "search_refuted": "the rate of the search did not hold",
    "higher_rate_won": "a higher rate was clearly better on the same batches",
}
_NUMBER = r"([+-]?(?:[\d.]+(?:e[+-]?\d+)?|inf|nan))"
_PIECES: tuple[tuple[re.Pattern[str], Numbers], ...] = tuple(
    (re.compile(pattern.replace("#", _NUMBER)), names)
    for pattern, names in (
        ("#% per window", [("fall of the loss per window", "{} %")]),
        (r"# sigma over (\d+) steps", [("its trend, in standard errors", "{}"), ("judged over", "{} steps")]),
        (r"(\d+) steps", [("without progress for", "{} steps")]),
        (r"patience (\d+)", [("patience", "{} steps")]),
        ("cv #", [(SPREAD, "{}")]),
        ("cv # > #", [(SPREAD, "{}"), ("most that is allowed", "{}")]),
        ("# vs median #", [(GRADIENT_NORM, "{}"), (USUAL_GRADIENT, "{}")]),
        ("# vs #", [(MEAN_LOSS, "{}"), ("mean loss before", "{}")]),
        (r"(\d+) in a row", [("steps in a row", "{}")]),
        ("# of its highest", [("gradient norm / its highest", "{}")]),
        ("loss #", [("loss", "{}")]),
    )
)


def plain_reason(reason: str) -> str:
    """`plateau (60 steps, patience 20)` -> `the loss no longer falls`; brackets without numbers we know stay."""
    return "; ".join(_plain(part) for part in reason.split("; "))


def reason_numbers(reason: str) -> Numbers:
    """`plateau (60 steps, patience 20)` -> what `plain_reason` leaves out of it, by name."""
    return [number for part in reason.split("; ") for number in _bracket(part)]


def _plain(part: str) -> str:
    word, space, rest = part.partition(" ")
    plain = _PLAIN.get(word, word.replace("_", " "))
    return plain if _bracket(part) else plain + space + rest


def _bracket(part: str) -> Numbers:
    """The numbers in the brackets of one reason; none unless all of them are known."""
    word, _, rest = part.partition(" ")
    if word not in _PLAIN or not (rest.startswith("(") and rest.endswith(")")):
        return []
    found: Numbers = []
    for piece in rest[1:-1].split(", "):
        known = next(((names, m) for pattern, names in _PIECES if (m := pattern.fullmatch(piece))), None)
        if known is None:
            return []
        names, match = known
        found += [(name, form.format(value)) for (name, form), value in zip(names, match.groups(), strict=True)]
    return found
