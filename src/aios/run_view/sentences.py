"""What a log record says, in one plain sentence: the only place where its words are chosen.

Written for somebody who has never trained a model: what was done, and why. The numbers behind it are named in
`timeline`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aios.errors import shown
from aios.run_view.events import Record, number
from aios.run_view.reasons import plain_reason

Words = Callable[[Record], str]


def sentence(record: Record) -> str | None:
    """The sentence of any record but a training step's; None: not worth a line."""
    event = str(record.get("event"))
    if event in _SILENT:
        return None
    said = _SENTENCES.get(event)
    return said(record) if said is not None else _any_event(event, record)


def value_of(record: Record, key: str, form: str = "") -> str:
    """What stands at `key`, as a word: formatted, if it is a number; `?` for what is neither number nor text."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return "?"
    if isinstance(value, str):
        return value
    return format(value, form) if abs(value) <= sys.float_info.max or isinstance(value, float) else shown(value)


def curve_of(record: Record) -> list[tuple[float, float]]:
    """The (learning rate, loss) that a search has seen, NaN where there was no finite loss; empty where it has none."""
    return [(number({"lr": lr}, "lr"), number({"loss": loss}, "loss")) for lr, loss, *_ in _points(record)]


def has_curve(record: Record) -> bool:
    """Whether `curve_of` has any point."""
    return next(_points(record), None) is not None


def _points(record: Record) -> Iterator[Sequence[Any]]:
    curve = record.get("curve")
    return (p for p in (curve if isinstance(curve, list) else []) if isinstance(p, (list, tuple)) and len(p) >= 2)


def _rate(record: Record, key: str) -> str:
    return value_of(record, key, ".3g")


def _tried(record: Record) -> str:
    rates = [rate for rate, _ in curve_of(record)]
    return f"from {min(rates):.3g} to {max(rates):.3g}"


def _highest(record: Record) -> float:
    return max(rate for rate, _ in curve_of(record))


def _start(record: Record) -> str:
    where = f" on {value_of(record, 'device')}" if record.get("device") is not None else ""
    config = record.get("config")
    auto = config.get("auto_adjust_lr") if isinstance(config, dict) else None
    how = {True: "; the learning rate is adjusted as it goes", False: "; the learning rate is not adjusted"}
    return f"Training starts{where}{how.get(auto, '') if isinstance(auto, bool) else ''}."


def _resumed(record: Record) -> str:
    source = f" with what was saved in {value_of(record, 'resumed_from')}" if record.get("resumed_from") else ""
    return f"Training goes on from step {value_of(record, 'step')}{source}."


def _init(record: Record) -> str:
    lr, steps = _rate(record, "initial_lr"), number(record, "warmup_steps")
    bounds = f"between {_rate(record, 'lr_min')} and {_rate(record, 'lr_max')}"
    other = f"not {_rate(record, 'requested_lr')}: its settings keep it {bounds}"
    kept = record.get("requested_lr") is not None
    if steps > 0:
        rises = f"Warm-up: the learning rate rises to {lr} over {_steps_of(record, 'warmup_steps')}"
        return f"{rises}, {other}." if kept else f"{rises}, then it may move {bounds}."
    return f"The learning rate is {lr} from here, {other if kept else f'and may move {bounds}'}."


def _steps_of(record: Record, key: str) -> str:
    """A number of steps."""
    return f"{value_of(record, key)} step{'' if number(record, key) == 1 else 's'}"


def _asked(record: Record) -> str:
    use = "is used as it is" if record.get("used") else "is not used"
    return f"The learning rate asked for, {_rate(record, 'lr')}, {use}: {value_of(record, 'reason')}."


def _search(record: Record) -> str:
    """Of earlier versions' logs, as `_challenge` and `_challenge_result`."""
    if record.get("suggestion") is None:
        return f"Searched for a learning rate and found none: {value_of(record, 'reason')}."
    return f"Searched for a learning rate; {_rate(record, 'suggestion')} is taken: {value_of(record, 'reason')}."


def _climb(record: Record) -> str:
    reason = value_of(record, "reason")
    if not curve_of(record):
        return f"No learning rate was searched for: {reason}."
    taken = f"{_rate(record, 'lr')} is taken" if record.get("lr") is not None else "none of them stood out"
    count, cycle = len(curve_of(record)), value_of(record, "steps_per_cycle")
    each = f"in {count} cycles of {cycle} steps" if "steps_per_cycle" in record else f"over {count} steps"
    on = f", then on to {_rate(record, 'edge')}," if number(record, "edge") > 1.001 * _highest(record) else ""
    return f"Raised the learning rate {_tried(record)} {each}{on} to see what the model bears; {taken}: {reason}."


def _race(record: Record) -> str:
    reason, curve = value_of(record, "reason"), curve_of(record)
    if record.get("lr") is None:
        return f"Raced learning rates and found none: {reason}."
    if not curve:
        return f"The learning rate {_rate(record, 'lr')} is taken: {reason}."
    why = reason.partition(": ")[2] or reason  # before it stands what we say ourselves
    raced = f"Tried {len(curve)} learning rates {_tried(record)} in short runs side by side, all of them taken back"
    return f"{raced}; {_rate(record, 'lr')} is taken: {why}."


def _roles(record: Record) -> str:
    share = value_of(record, "factor", ".3g")
    weights = f"The {value_of(record, 'role')} weights of the model"
    return f"{weights} train at {share} times the rate of the rest: {value_of(record, 'reason')}."


def _group(record: Record) -> str:
    share = f"{value_of(record, 'ratio', '.3g')} times the rate of the first"
    return f"Param group {value_of(record, 'group')} joined; it trains at {share}, now {_rate(record, 'lr')}."


def _adjusted(record: Record) -> str:
    old, new = number(record, "old_lr"), number(record, "new_lr")
    because = f", because {plain_reason(value_of(record, 'reason'))}." if record.get("reason") else "."
    if not (old > 0 and math.isfinite(new)) or old == new:
        what = "Changed the learning rate of some parts of the model" if old == new else "Changed the learning rate"
        return what + (f" to {new:.3g}" if math.isfinite(new) and old != new else "") + because
    percent = 100 * abs(new / old - 1)
    share = f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
    verb = "Raised" if new > old else "Lowered"
    return f"{verb} the learning rate by {share} %, from {old:.3g} to {new:.3g}{because}"


def _trouble(record: Record) -> str:
    rung, why = value_of(record, "rung"), plain_reason(value_of(record, "reason"))
    return _RUNGS.get(rung, f"Trouble ({rung}): {{}}.").replace("{}", why)


def _challenge(record: Record) -> str:
    steps = value_of(record, "search_steps" if "search_steps" in record else "used_steps")
    tried = _rate(record, "challenger_lr")
    return f"Tried the learning rate {tried} for {steps} steps and took them back, to compare it with the one in force."


def _challenge_result(record: Record) -> str:
    gain, tried = number(record, "gain"), _rate(record, "challenger_lr")
    loss = f"the loss came out {-100 * gain:+.1f} %, with an error of {value_of(record, 'error', '.1%')}"
    how = "training broke" if math.isnan(gain) else loss
    return f"The learning rate {tried} {'is better' if record.get('won') else 'is not clearly better'}: {how}."


def _anneal(record: Record) -> str:
    before = {"finish_now": "Finish now: ", "overfitting": "To end with the best state: "}
    way = "from here the learning rate goes down"
    if number(record, "start") < number(record, "step"):  # of a run that goes on inside its anneal
        way = "the learning rate is on its way down"
    down = f"{way} to zero until step {value_of(record, 'end')}, where the run ends"
    said = before.get(value_of(record, "reason"), "") + down + ", so that the model can settle."
    return said[0].upper() + said[1:]


def _overfitting(record: Record) -> str:
    then = f"step {value_of(record, 'best_step')}"
    done = {
        "finish": f"training goes back to the state of {then}, to anneal from there and end",
        "finish_from_here": f"the state of {then} is not there any more, so training anneals from here and ends",
    }.get(value_of(record, "done"), f"training goes on, and the brain of {then} is kept as the best")
    now, best = value_of(record, "eval_loss", ".4f"), value_of(record, "best_eval_loss", ".4f")
    rise = f"on text it has not seen its loss is {now}, at {then} it was {best}"
    return f"Overfitting: the model begins to learn its text by heart ({rise}); {done}."


def _not_learning(record: Record) -> str:
    looks = _NOT_LEARNING.get(str(record.get("cause")), _NOT_LEARNING["no_gain"])  # older logs lack that cause
    loss, reference = value_of(record, "loss", ".4g"), value_of(record, "reference", ".4g")
    back = "training goes on from the last good state, and " if record.get("back") else ""
    lowered = record.get("lowered")  # which older logs lack
    now = "is lowered to {lr}." if lowered is True else _STAYS if lowered is False else "is {lr} now."
    looks = looks.replace("{now}", now)
    names = {"loss": loss, "reference": reference, "since": value_of(record, "since"), "lr": _rate(record, "lr")}
    return "The model is not learning: " + looks.format(**names, back=back)


def _experts(record: Record) -> str:
    rates = f"{_rate(record, 'adjusted_lr')} instead of {_rate(record, 'original_lr')}"
    return f"Mixture of experts: the learning rate is {rates} ({value_of(record, 'reason')})."


def _disabled(record: Record) -> str:
    reason = value_of(record, "reason")
    word, _, rest = reason.partition(" ")
    why = _OFF.get(word, word.replace("_", " ")) + (f" {rest}" if rest else "")
    part = record.get("part")
    what = f"There is no {part} in this run" if isinstance(part, str) else "The learning rate is not adjusted"
    return f"{what}: {why}."


def _evaluation(record: Record) -> str:
    perplexity = number(record, "ppl")
    told = f" (perplexity {perplexity:.1f})" if math.isfinite(perplexity) else ""
    return f"Evaluation loss {value_of(record, 'loss', '.4f')}{told}."


def _stopped(record: Record) -> str:
    reason = value_of(record, "reason")
    return f"Stopped and saved, {_STOPS[reason]}." if reason in _STOPS else f"Stopped and saved ({reason})."


def _final(record: Record) -> str:
    loss = number(record, "eval_loss")
    text = "The run is finished" if math.isnan(loss) else f"The run is finished with an evaluation loss of {loss:.4f}"
    if record.get("best_step") not in (None, record.get("step")):
        best = f"{value_of(record, 'best_step')}, where it was {value_of(record, 'best_eval_loss', '.4f')}"
        text += f"; the brain is that of step {best}"
    if record.get("climb_step") is not None:
        passed = f"the {value_of(record, 'climb_eval_loss', '.4f')} of step {value_of(record, 'climb_step')}"
        text += f"; {passed} was on the way up in the search, whose evaluations do not count"
    return text + "."


def _sample(record: Record) -> str:
    prompt, text = (" ".join(value_of(record, key).split()) for key in ("prompt", "text"))
    return f"The model goes on from “{prompt}”: {text}"


def _merge(record: Record) -> str:
    shares, theirs = record.get("weights"), record.get("worker_eval_losses")
    who = f"Merged {len(shares)} workers" if isinstance(shares, list) else "Merged the workers"
    loss = number(record, "eval_loss")
    if math.isnan(loss):
        return who + "."
    each = [number({"loss": one}, "loss") for one in theirs] if isinstance(theirs, list) else []
    losses = ", ".join("-" if math.isnan(one) else f"{one:.4f}" for one in each)
    return f"{who}: evaluation loss {loss:.4f}" + (f"; before the merge theirs were {losses}." if each else ".")


def _any_event(event: str, record: Record) -> str:
    details = [value_of(record, key) for key in ("reason", "sentence", "message") if isinstance(record.get(key), str)]
    said = ": ".join([event.replace("_", " "), *details])
    return said[:1].upper() + said[1:].rstrip(".") + "."


_SILENT = {"train", "adaptive_lr_summary"}
_STOPS = {"stop_file": "as asked", "signal": "on a signal", "trouble": "because training did not recover"}
_OFF = {
    "deepspeed_scheduler_present": "DeepSpeed's own scheduler sets it",
    "no_exact_snapshot": "the state of the training cannot be copied exactly",
}
_RUNGS = {
    "none": "Noticed, and left as it is: {}.",
    "skip": "Left out one update, because {}.",
    "cut": "Trouble, to be answered by a lower learning rate: {}.",
    "raise": "Too little moves, to be answered by a higher learning rate: {}.",
    "rewind": "Went back to the last good state of the model, because {}.",
    "stop": "Gave up: {}.",
}
_SEARCH = "or give none under the profile auto, which finds one"
_STAYS = (
    "stays at {lr}. If the loss does not fall from here on, look at the text, or start again at a third of that rate."
)
_NOT_LEARNING = {
    "no_gain": "since step {since} the loss is {loss}, at the end of the climb it was {reference}; {back}the learning "
    "rate {now}",
    "too_low": "since step {since} its loss hardly falls; it is {loss}, and knowing only how often each token occurs "
    "brings it to {reference}. The learning rate {lr} looks far "
    f"too low: give one ten times higher, {_SEARCH}.",
    "too_high": "since step {since} its loss stays at {loss}, above where it began. The learning rate {lr} looks far "
    f"too high: give one ten times lower, {_SEARCH}.",
    "stuck": "since step {since} its loss rests at {loss}, no lower than where knowing only how often each token "
    "occurs brings it ({reference}). A learning rate too high, {lr} here, does that: give a third of it; else it takes "
    "more text, or a longer run.",
    "broken": "since step {since} its loss is NaN or infinite. Start again at a far lower learning rate than {lr}, or "
    "in fp32.",
}
_SENTENCES: dict[str, Words] = {
    "run_start": _start,
    "run_resumed": _resumed,
    "warmup_complete": lambda r: f"The warm-up is over: the learning rate has reached {_rate(r, 'lr')}.",
    "eval": _evaluation,
    "checkpoint": lambda r: f"Saved in {value_of(r, 'path')}.",
    "stopped": _stopped,
    "final": _final,
    "log_restored": lambda r: f"The log is whole again: {value_of(r, 'reason')}.",
    "merge": _merge,
    "sample": _sample,
    "worker_restarted": lambda r: f"Worker {value_of(r, 'worker')} {value_of(r, 'reason')} and starts again here.",
    "adaptive_lr_init": _init,
    "lr_asked": _asked,
    "evaluations_anew": lambda record: f"Evaluations begin anew: {value_of(record, 'reason')} since those before.",
    "adaptive_lr_search": _search,
    "adaptive_lr_climb": _climb,
    "adaptive_lr_race": _race,
    "adaptive_lr_roles": _roles,
    "adaptive_lr_group": _group,
    "adaptive_lr_adjustment": _adjusted,
    "adaptive_lr_trouble": _trouble,
    "adaptive_lr_challenge": _challenge,
    "adaptive_lr_challenge_result": _challenge_result,
    "adaptive_lr_anneal": _anneal,
    "adaptive_lr_restored": lambda r: "What the run had learned about its learning rate is kept.",
    "adaptive_lr_state_missing": lambda r: "The checkpoint knows nothing of the learning rate; it is adjusted afresh.",
    "adaptive_lr_disabled": _disabled,
    "not_learning": _not_learning,
    "overfitting": _overfitting,
    "moe_lr_adjustment": _experts,
}


def plain(value: Any, form: str = ".4g") -> str:
    """A value of any record, ready to be shown: numbers in `form`, null as what it stands for."""
    if value is None:
        return "not finite"
    return value_of({"value": value}, "value", form) if isinstance(value, (int, float, str)) else shown(value)
