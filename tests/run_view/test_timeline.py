"""The timeline: each record's sentence and numbers, what stands where in the picture, decisions as data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import aios
from aios.run_view.reasons import plain_reason, reason_numbers
from aios.run_view.sentences import sentence
from aios.run_view.timeline import Decision, as_data, decision_from, told_over
from run_view.logs import Record, adjustment, history_of, start, train

CURVE = [[1e-4, 7.6], [1e-3, 6.0], [5e-3, 5.0], [1e-2, 5.1], [3e-2, None]]
CLIMB = {
    "event": "adaptive_lr_climb", "step": 140, "ts": 1.0, "how": "climb", "lr": 3.33e-3, "edge": 3e-2, "curve": CURVE,
    "search_steps": 12, "reason": "higher rates than 0.005 gained nothing", "lr_min": 3.33e-5, "lr_max": 5e-3,
}  # fmt: skip
RACE = {
    "event": "adaptive_lr_race", "step": 0, "how": "race", "lr": 2e-3, "curve": [[1e-3, 5.25], [2.5e-3, 5.125]],
    "search_steps": 40, "reason": "runs of 15 steps at 2 rates: 0.0025 ended lowest, untouched weights have 7.6",
}  # fmt: skip
INIT = {
    "event": "adaptive_lr_init", "step": 0, "initial_lr": 5e-5, "lr_min": 5e-7, "lr_max": 1e-3, "window_size": 50,
    "use_moe": False, "warmup_steps": 100,
}  # fmt: skip
TROUBLE = {
    "event": "adaptive_lr_trouble", "step": 9, "rung": "skip", "reason": "gradient_explosion (4.6 vs median 0.38)",
    "numbers": {"step": 9.0, "loss": 6.25, "grad_norm": 4.6, "grad_median": 0.38},
}  # fmt: skip
OVERFITTING = {
    "event": "overfitting", "step": 700, "best_step": 300, "best_eval_loss": 4.193, "eval_loss": 4.4867, "noise": 0.2,
    "reason": "overfitting (...)", "done": "finish",
}  # fmt: skip


def change(reason: str, old: float = 1e-3, new: float = 5e-4, **metrics: Any) -> Record:
    return adjustment(3, "decrease", new, old_lr=old, reason=reason, metrics=metrics)


def decided(record: Record) -> Decision:
    found = decision_from(record, int(record["step"]), None)
    assert found is not None
    return found


START_AUTO = start(device="cpu") | {"config": {"auto_adjust_lr": True}}
RESUMED = {"event": "run_resumed", "step": 45, "resumed_from": "b/step-45"}
NO_CLIMB = CLIMB | {"lr": None, "curve": [], "reason": "too few steps for a search (3 of 80)"}
ANNEAL = {"event": "adaptive_lr_anneal", "step": 700, "start": 700, "end": 800, "reason": "end_of_run"}
EXPERTS = {"event": "moe_lr_adjustment", "step": 0, "original_lr": 2e-3, "adjusted_lr": 6.7e-3, "reason": "measured"}
OFF = {"event": "adaptive_lr_disabled", "step": 0, "reason": "deepspeed_scheduler_present"}
FINAL = {"event": "final", "step": 850, "eval_loss": 4.1718, "best_step": 800, "best_eval_loss": 4.1414}
STALLED = {"event": "not_learning", "step": 75, "since": 30, "loss": 7.62, "reference": 5.756, "lr": 1e-8}
SAID: list[tuple[Record, str, str]] = [
    (start(), "start", "Training starts."),
    (START_AUTO, "start", "Training starts on cpu; the learning rate is adjusted as it goes."),
    (RESUMED, "start", "Training goes on from step 45 with what was saved in b/step-45."),
    (
        INIT,
        "warm-up",
        "Warm-up: the learning rate rises to 5e-05 over 100 steps, then it may move between 5e-07 and 0.001.",
    ),
    (
        INIT | {"warmup_steps": 0},
        "start",
        "The learning rate is 5e-05 from here, and may move between 5e-07 and 0.001.",
    ),
    (
        INIT | {"requested_lr": 0.0187},
        "warm-up",
        "Warm-up: the learning rate rises to 5e-05 over 100 steps, not 0.0187: its settings keep it between "
        "5e-07 and 0.001.",
    ),
    (
        INIT | {"warmup_steps": 0, "requested_lr": 0.0187},
        "start",
        "The learning rate is 5e-05 from here, not 0.0187: its settings keep it between 5e-07 and 0.001.",
    ),
    (
        {"event": "adaptive_lr_restored", "step": 50, "from_step": 50, "current_lr": 5e-5, "window_fill": 3},
        "start",
        "What the run had learned about its learning rate is kept.",
    ),
    (
        {"event": "warmup_complete", "step": 100, "lr": 5e-5},
        "warm-up",
        "The warm-up is over: the learning rate has reached 5e-05.",
    ),
    (
        CLIMB,
        "climb",
        "Raised the learning rate from 0.0001 to 0.03 over 5 steps to see what the model bears; "
        "0.00333 is taken: higher rates than 0.005 gained nothing.",
    ),
    (
        CLIMB | {"lr": None, "reason": "the loss did not fall"},
        "climb",
        "Raised the learning rate from 0.0001 to 0.03 over 5 steps to see what the model bears; "
        "none of them stood out: the loss did not fall.",
    ),
    (
        CLIMB | {"steps_per_cycle": 8, "edge": 0.0533},  # ended inside a cycle, whose end would have been a point
        "climb",
        "Raised the learning rate from 0.0001 to 0.03 in 5 cycles of 8 steps, then on to 0.0533, to see what the model "
        "bears; 0.00333 is taken: higher rates than 0.005 gained nothing.",
    ),
    (NO_CLIMB, "climb", "No learning rate was searched for: too few steps for a search (3 of 80)."),
    (
        RACE,
        "race",
        "Tried 2 learning rates from 0.001 to 0.0025 in short runs side by side, all of them taken back; "
        "0.002 is taken: 0.0025 ended lowest, untouched weights have 7.6.",
    ),
    (
        change("plateau (60 steps, patience 20)"),
        "adjustment",
        "Lowered the learning rate by 50 %, from 0.001 to 0.0005, because the loss no longer falls.",
    ),
    (
        change("improving (3.00% per window, cv 0.02)", new=1.024e-3),
        "adjustment",
        "Raised the learning rate by 2.4 %, from 0.001 to 0.00102, because the loss falls steadily.",
    ),
    (
        change("trouble_over (back to the LR of before)", new=2e-3),
        "adjustment",
        "Raised the learning rate by 100 %, from 0.001 to 0.002, because the trouble has passed "
        "(back to the LR of before).",
    ),
    (TROUBLE, "trouble", "Left out one update, because the gradient exploded."),
    (
        TROUBLE | {"rung": "rewind", "reason": "non_finite_loss (3 in a row)"},
        "trouble",
        "Went back to the last good state of the model, because the loss was NaN or infinite.",
    ),
    (
        ANNEAL,
        "anneal",
        "From here the learning rate goes down to zero until step 800, where the run ends, "
        "so that the model can settle.",
    ),
    (
        ANNEAL | {"step": 750},
        "anneal",
        "The learning rate is on its way down to zero until step 800, where the run ends, "
        "so that the model can settle.",
    ),
    (
        ANNEAL | {"reason": "finish_now"},
        "anneal",
        "Finish now: from here the learning rate goes down to zero until step 800, where the run ends, "
        "so that the model can settle.",
    ),
    (
        OVERFITTING,
        "overfitting",
        "Overfitting: the model begins to learn its text by heart (on text it has not seen its loss is 4.4867, "
        "at step 300 it was 4.1930); training goes back to the state of step 300, to anneal from there and end.",
    ),
    (
        STALLED | {"cause": "too_low"},
        "not learning",
        "The model is not learning: since step 30 its loss hardly falls; it is 7.62, and knowing only how often each "
        "token occurs brings it to 5.756. The learning rate 1e-08 looks far too low: give one ten times higher, "
        "or give none under the profile auto, which finds one.",
    ),
    (
        STALLED | {"cause": "stuck", "loss": 5.94, "lr": 0.1},
        "not learning",
        "The model is not learning: since step 30 its loss rests at 5.94, no lower than where knowing only how often "
        "each token occurs brings it (5.756). A learning rate too high, 0.1 here, does that: give a third of it; else "
        "it takes more text, or a longer run.",
    ),
    (
        STALLED | {"lr": 1e-3},  # of a climb's own watch
        "not learning",
        "The model is not learning: since step 30 the loss is 7.62, at the end of the climb it was 5.756; "
        "the learning rate is 0.001 now.",
    ),
    (
        STALLED | {"lr": 1e-3, "back": True},
        "not learning",
        "The model is not learning: since step 30 the loss is 7.62, at the end of the climb it was 5.756; "
        "training goes on from the last good state, and the learning rate is 0.001 now.",
    ),
    (
        STALLED | {"lr": 1e-3, "back": True, "lowered": True},
        "not learning",
        "The model is not learning: since step 30 the loss is 7.62, at the end of the climb it was 5.756; "
        "training goes on from the last good state, and the learning rate is lowered to 0.001.",
    ),
    (
        STALLED | {"lr": 1e-3, "back": False, "lowered": False},
        "not learning",
        "The model is not learning: since step 30 the loss is 7.62, at the end of the climb it was 5.756; "
        "the learning rate stays at 0.001. If the loss does not fall from here on, look at the text, or start again at "
        "a third of that rate.",
    ),
    (EXPERTS, "experts", "Mixture of experts: the learning rate is 0.0067 instead of 0.002 (measured)."),
    (OFF, "start", "The learning rate is not adjusted: DeepSpeed's own scheduler sets it."),
    ({"event": "stopped", "step": 45, "reason": "stop_file"}, "end", "Stopped and saved, as asked."),
    (
        FINAL,
        "end",
        "The run is finished with an evaluation loss of 4.1718; the brain is that of step 800, where it was 4.1414.",
    ),
]


@pytest.mark.parametrize(("record", "kind", "said"), SAID)
def test_each_decision_is_one_plain_sentence(record: Record, kind: str, said: str) -> None:
    decision = decided(record)
    assert (decision.kind, decision.sentence) == (kind, said)


@pytest.mark.parametrize(
    ("record", "numbers"),
    [
        (CLIMB, {"steps of it taken back": "12", "loss at 0.0001": "7.6", "loss at 0.001": "6",
                 "loss at 0.005": "5 (lowest)", "loss at 0.01": "5.1", "loss at 0.03": "broke"}),
        (RACE, {"loss at 0.001": "5.25", "loss at 0.0025": "5.125 (lowest)", "steps that trained nothing": "40"}),
        (change("improving (14.35% per window, -6.3 sigma over 43 steps)", loss_avg=4.7, improvement_rate=0.0, cv=0.03,
                trend=-0.01),
         {"fall of the loss per window": "14.35 %", "its trend, in standard errors": "-6.3", "judged over": "43 steps",
          "mean loss": "4.7", "spread of the loss / its mean": "0.03"}),
        (change("loss_spike (2.451 vs 1.892)", loss_avg=2.4511, cv=None),
         {"mean loss": "2.451", "mean loss before": "1.892", "spread of the loss / its mean": "not finite"}),
        (change("unstable (cv 0.6 > 0.5)", loss_avg=4.0, cv=0.6),
         {"spread of the loss / its mean": "0.6", "most that is allowed": "0.5", "mean loss": "4"}),
        (TROUBLE, {"gradient norm": "4.6", "usual gradient norm": "0.38", "loss": "6.25"}),
        (OVERFITTING, {"evaluation loss": "4.487", "lowest": "4.193", "at step": "300", "chance explains": "0.2"}),
    ],
)  # fmt: skip
def test_its_numbers_have_names_and_none_is_told_twice(record: Record, numbers: dict[str, str]) -> None:
    told = decided(record).numbers
    assert dict(told) == numbers
    assert len(told) == len(numbers)


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({"edge": 12.0, "lr": 2.0, "lr_max": 10.0}, [1, 3, 5, 7, 9, 11, 12, 13, 14]),
        ({"edge": 12.0, "lr": None, "lr_max": None}, [1, 3, 5, 7, 9, 11, 12, 13, 14]),
        ({"event": "adaptive_lr_search", "lr_max": 12.0}, [1, 3, 5, 7, 9, 11, 12, 13, 14]),
        ({"edge": None, "lr": 2.0, "lr_max": 10.0}, [1, 3, 5, 7, 9, 11, 13, 14]),
    ],
    ids=["of its own", "none taken", "of earlier versions", "ended before its first step"],
)
def test_of_a_long_climb_the_points_that_decided_are_told(told: Record, shown: list[int]) -> None:
    record = {"event": "adaptive_lr_climb", "step": 9, "curve": [[rate, abs(rate - 5) + 1.0] for rate in range(1, 15)]}
    *points, left_out = decided(record | told).numbers
    assert [name for name, _ in points] == [f"loss at {rate}" for rate in shown]
    assert left_out == ("rates not listed here", f"{14 - len(shown)}, in the log")


def test_of_a_climb_of_nine_cycles_each_is_told() -> None:
    record = {"event": "adaptive_lr_climb", "step": 9, "curve": [[rate, abs(rate - 5) + 1.0] for rate in range(1, 10)]}
    assert [name for name, _ in decided(record).numbers] == [f"loss at {rate}" for rate in range(1, 10)]


def test_brackets_that_are_no_numbers_we_know_stay_in_the_reason() -> None:
    assert plain_reason("plateau (+2.3 sigma over 86 steps)") == "the loss no longer falls"
    odd = "gradient_explosion (because of Mars)"
    assert (plain_reason(odd), reason_numbers(odd)) == ("the gradient exploded (because of Mars)", [])
    two = "regime_change (loss 5.1); gradient_explosion (2 vs median 1)"
    assert plain_reason(two) == "the data changed; the gradient exploded"
    assert [name for name, _ in reason_numbers(two)] == ["loss", "gradient norm", "usual gradient norm"]


def test_every_event_that_is_logged_has_words_of_its_own() -> None:
    package = Path(aios.__file__).parent
    code = "\n".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py") if "run_view" not in path.parts)
    events = set(re.findall(r'(?:"event": |_emit\(\s*)"(\w+)"', code)) | {"adaptive_lr_climb", "adaptive_lr_race"}
    assert {"run_start", "adaptive_lr_adjustment", "not_learning", "merge"} <= events
    for event in events - {"train", "adaptive_lr_summary"}:
        said = sentence({"event": event, "step": 1, "reason": "r", "curve": CURVE, "lr": 1.0})
        assert said
        assert said[0].isupper()
        assert said.endswith(".") or event == "sample"  # which ends with the model's own words
        assert said != event.replace("_", " ").capitalize() + ": r."  # what is said of an event of other versions


def test_a_history_keeps_its_decisions_and_forgets_those_it_goes_back_behind() -> None:
    records = [start(), train(1), adjustment(4), CLIMB | {"step": 5}, TROUBLE, adjustment(12)]
    history = history_of([*records, {"event": "run_resumed", "step": 8, "config": {"steps": 1000}}])
    assert [(d.kind, d.step) for d in history.decisions] == [
        ("start", 0), ("adjustment", 4), ("climb", 5), ("start", 8),
    ]  # fmt: skip
    assert (history.decision_count, history.adjustment_count) == (4, 1)
    assert [a.step for a in history.adjustments] == [4]


def test_what_happened_in_a_shaded_stretch_is_found_by_its_step() -> None:
    history = history_of([start(), CLIMB, INIT | {"step": 140}, ANNEAL])
    found = {step: told_over(history.phases, history.decisions, step) for step in (10, 139.6, 200, 400, 750)}
    kinds = {step: decision.kind if decision is not None else None for step, decision in found.items()}
    assert kinds == {10: "climb", 139.6: "climb", 200: "warm-up", 400: None, 750: "anneal"}
    assert found[10] == decided(CLIMB)


def test_a_sitting_that_goes_on_to_finish_keeps_its_end() -> None:
    finish = ANNEAL | {"reason": "finish_now"}
    resumed = {"event": "run_resumed", "config": {"steps": 1000}}
    assert history_of([start(), finish, resumed | {"step": 750}]).total_steps == 800
    assert history_of([start(), finish, resumed | {"step": 600}]).total_steps == 1000


def test_decisions_as_data_have_the_keys_of_an_adjustment_and_of_their_record() -> None:
    rows = [json.loads(json.dumps(as_data(decided(r)))) for r in (start(), CLIMB, TROUBLE, adjustment(7) | {"ts": 7.0})]
    for row in rows:
        assert {"step", "decision", "old_lr", "new_lr", "change_pct", "reason", "metrics", "ts"} <= row.keys()
        assert {"event", "kind", "span", "sentence", "numbers"} <= row.keys()
    assert "config" not in rows[0]
    assert (rows[1]["decision"], rows[1]["curve"], rows[1]["old_lr"]) == ("climb", CURVE, None)
    assert (rows[3]["decision"], rows[3]["new_lr"], rows[3]["kind"]) == ("increase", 1.1e-3, "adjustment")
