"""What a history makes of records: curves, adjustments, phases, state and the time left."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.run_view.history import MAX_DECISIONS, MAX_EVENTS, RunHistory
from aios.run_view.reading import FollowedRun
from run_view.logs import adjustment, as_bytes, history_of, sample, start, told, train, write


def resumed(step: int, ts: float, steps: int = 1000) -> dict[str, Any]:
    return {**start(steps), "event": "run_resumed", "step": step, "ts": ts, "run_id": "b"}


def curve(history: RunHistory, key: str = "ce", rank: int | None = None) -> dict[int, float]:
    series = history.series(key, rank)
    return {int(step): float(value) for step, value in zip(series.steps, series.mean, strict=True)}


def test_curves_and_groups() -> None:
    history = history_of([start(), train(1, 5.0), train(2, 4.0, lr=[1e-3, 5e-4, 1e-3]), train(3, 3.0, lr=[2e-3, 2e-3])])
    assert curve(history) == {1: 5.0, 2: 4.0, 3: 3.0}
    assert curve(history, "lr") == {1: 1e-3, 2: 1e-3, 3: 2e-3}
    assert curve(history, "lr[1]") == {2: 5e-4, 3: 2e-3}
    assert history.keys == ["ce", "grad_norm", "loss", "lr", "lr[1]", "smooth", "tokens_per_sec"]
    assert len(history.series("no such curve")) == 0
    assert (history.run_id, history.total_steps, history.step, history.state) == ("a", 1000, 3, "running")


def test_nan_is_shown_as_nan() -> None:
    history = history_of([train(1), train(2, None, non_finite=True), train(3)])
    series = history.series("ce")
    assert np.isnan(series.mean).tolist() == [False, True, False]
    assert series.non_finite.tolist() == [0, 1, 0]
    assert list(curve(history, "smooth")) == [1, 3]


def test_lines_out_of_order_are_put_in_place() -> None:
    records = [train(step, float(step)) for step in range(1, 30)]
    history = history_of([start(), *records[::2], *records[1::2][::-1]])
    assert curve(history) == {step: float(step) for step in range(1, 30)}
    assert history.step == 29


@pytest.mark.parametrize("announced", [True, False], ids=["run_resumed", "silently"])
def test_steps_repeated_after_a_resume_replace_the_old(announced: bool) -> None:
    first = [train(step, 5.0) for step in range(1, 11)]
    again = [train(step, 2.0, ts=100.0 + step) for step in range(7, 9)]
    news = [resumed(6, 100.0)] if announced else []
    history = history_of([start(), *first, adjustment(5), adjustment(9), *news, *again])
    assert curve(history) == {**dict.fromkeys(range(1, 7), 5.0), 7: 2.0, 8: 2.0}
    assert [a.step for a in history.adjustments] == [5]
    assert history.adjustment_count == 1
    assert history.step == 8


def test_resume_of_a_long_run_leaves_no_trace_of_the_abandoned_end() -> None:
    history = history_of([start(100_000), *(train(s, 3.0) for s in range(1, 50_001))])
    history.add([train(s, 99.0) for s in range(50_001, 50_400)])
    history.add([resumed(50_005, 1e6), *(train(s, 2.0, ts=1e6 + s) for s in range(50_006, 50_400))])
    series = history.series("ce")
    assert series.high.max() == 3.0
    assert series.mean[-1] == 2.0
    assert (np.diff(series.steps) > 0).all()


def test_another_run_in_the_same_log_begins_anew() -> None:
    history = history_of([start(), train(1), train(2), adjustment(2), start(50), train(1, 9.0, ts=50.0)])
    assert curve(history) == {1: 9.0}
    assert history.adjustments == []
    assert (history.adjustment_count, history.total_steps, history.train_records) == (0, 50, 1)


def test_samples_are_kept_and_those_behind_a_resume_are_repeated() -> None:
    history = history_of([start(), *(sample(step) for step in (2, 4, 6)), {"event": "sample", "step": 7, "text": 1}])
    assert [s.step for s in history.samples] == [2, 4, 6]
    history.add([resumed(4, 9.0), sample(6, text=" anew")])
    assert [(s.step, s.text) for s in history.samples] == [(2, " it goes"), (4, " it goes"), (6, " anew")]
    assert history.other_events[-1].text == "The model goes on from “On”: anew"


def test_workers_have_curves_and_adjustments_of_their_own() -> None:
    records = [train(step, 3.0 + rank, rank=rank) for step in range(1, 5) for rank in range(3)]
    history = history_of([start(), *records, adjustment(4, rank=2), {"event": "eval", "step": 4, "loss": 1.5}])
    assert history.ranks == [0, 1, 2]
    assert [curve(history, rank=rank)[4] for rank in range(3)] == [3.0, 4.0, 5.0]
    assert history.adjustments[0].rank == 2
    assert curve(history, "eval_loss") == {4: 1.5}


def test_worker_that_goes_back_leaves_the_others_alone() -> None:
    records = [train(step, 3.0, rank=rank) for step in range(1, 9) for rank in range(2)]
    again = [train(5, 1.0, ts=100.0, rank=1), adjustment(5, rank=1, ts=101.0)]
    history = history_of([start(), *records, adjustment(7, rank=0), adjustment(7, rank=1), *again])
    assert max(curve(history, rank=0)) == 8
    assert curve(history, rank=1) == {1: 3.0, 2: 3.0, 3: 3.0, 4: 3.0, 5: 1.0}
    assert [(a.step, a.rank) for a in history.adjustments] == [(5, 1), (7, 0)]


def test_phases() -> None:
    search = {"event": "adaptive_lr_search", "step": 30, "used_steps": 30, "suggestion": 1e-3, "reason": "r"}
    init = {"event": "adaptive_lr_init", "step": 30, "warmup_steps": 50}
    anneal = {"event": "adaptive_lr_anneal", "step": 700, "start": 700, "end": 1000, "reason": "end_of_run"}
    history = history_of([start(), search, init, anneal])
    assert [(p.kind, p.start, p.end) for p in history.phases] == [
        ("search", 0, 30), ("warm-up", 30, 80), ("anneal", 700, 1000)
    ]  # fmt: skip
    history.add([resumed(850, 1.0, steps=2000)])
    assert history.phases[-1].end == 850
    history.add([{**anneal, "step": 900, "start": 900, "end": 1100, "reason": "finish_now"}])
    assert history.total_steps == 1100


def test_the_warm_up_of_a_run_that_goes_on_is_where_it_is() -> None:
    climb = {"event": "adaptive_lr_climb", "step": 60, "lr": 1e-3, "search_steps": 4, "reason": "r"}
    init = {"event": "adaptive_lr_init", "step": 60, "warmup_steps": 0}
    longer = [start(), climb, init, resumed(1000, 1.0, steps=1200), {**init, "step": 1000, "warmup_steps": 10}]
    assert [(p.kind, p.start, p.end) for p in history_of(longer).phases] == [("climb", 0, 60), ("warm-up", 1000, 1010)]
    begun = [start(), {**init, "step": 0, "warmup_steps": 50}, resumed(20, 1.0), {**init, "step": 20}]
    within = [*begun[:-1], {**init, "step": 20, "warmup_steps": 30}]
    assert [[(p.start, p.end) for p in history_of(one).phases] for one in (begun, within)] == [[(0, 50)], [(0, 50)]]


def evaluated(step: int, loss: float) -> dict[str, Any]:
    return {"event": "eval", "ts": float(step), "step": step, "loss": loss}


def test_the_best_evaluation_is_one_of_the_data_of_now() -> None:
    def going_on(step: int, data: str) -> dict[str, Any]:
        return {**resumed(step, 1.0), "config": {"steps": 400, "dataset_file": data}}

    history = history_of([{**start(), "config": {"steps": 200, "dataset_file": "a"}}, evaluated(100, 0.04)])
    history.add([going_on(100, "a"), evaluated(120, 0.05)])
    assert history.best_evaluation() == (100, 0.04)
    history.add([going_on(120, "b")])
    assert history.best_evaluation() is None
    history.add([evaluated(200, 5.2), evaluated(220, 5.1), evaluated(240, 5.3)])
    assert history.best_evaluation() == (220, 5.1)
    final = {"event": "final", "step": 240, "best_step": 240, "best_eval_loss": 5.3}
    history.add([final])
    assert history.best_evaluation() == (240, 5.3)  # the run says itself which one it is
    history.add([going_on(240, "b"), evaluated(260, 5.0)])
    assert history.best_evaluation() == (260, 5.0)
    history.add([start(), evaluated(0, 9.0), evaluated(10, math.nan)])
    assert history.best_evaluation() == (0, 9.0)


def test_an_older_log_that_does_not_name_a_setting_had_it_at_its_default() -> None:
    before = {**start(), "config": {"steps": 200, "batch_size": 8}}
    for now, best in (({"ema": 0.0}, (100, 4.0)), ({"ema": 0.999}, (120, 5.0))):
        going_on = {**resumed(100, 1.0), "config": {**before["config"], **now}}
        history = history_of([before, evaluated(100, 4.0), going_on, evaluated(120, 5.0)])
        assert history.best_evaluation() == best


def test_the_anneal_of_a_run_that_goes_on_inside_it_is_shown_from_there() -> None:
    anneal = {"event": "adaptive_lr_anneal", "step": 700, "start": 700, "end": 1000, "reason": "end_of_run"}
    again = [anneal, resumed(850, 1.0), {**anneal, "step": 850}]
    assert [(p.start, p.end) for p in history_of([start(), *again]).phases] == [(700, 1000)]
    shorter = [resumed(850, 1.0, steps=900), {**anneal, "step": 850, "start": 630, "end": 900}]
    assert [(p.start, p.end) for p in history_of([start(), *shorter]).phases] == [(850, 900)]


def test_phases_of_a_climb_that_needs_no_warm_up_and_of_a_race_before_one() -> None:
    climb = {"event": "adaptive_lr_climb", "step": 60, "lr": 1e-3, "search_steps": 4, "reason": "r"}
    race = {"event": "adaptive_lr_race", "step": 0, "lr": 1e-3, "search_steps": 40, "reason": "r"}
    init = {"event": "adaptive_lr_init", "step": 60, "warmup_steps": 0}
    climbed = history_of([start(), climb, init])
    assert [(p.kind, p.start, p.end) for p in climbed.phases] == [("climb", 0, 60)]
    raced = history_of([start(), race, {**init, "step": 0, "warmup_steps": 50}])
    assert [(p.kind, p.start, p.end) for p in raced.phases] == [("warm-up", 0, 50)]
    fallen_back = history_of([start(), climb, {**race, "step": 60}, {**init, "warmup_steps": 50}])
    assert [(p.kind, p.start, p.end) for p in fallen_back.phases] == [("climb", 0, 60), ("warm-up", 60, 110)]


@pytest.mark.parametrize(
    ("last", "state"),
    [
        ({"event": "stopped", "step": 2, "reason": "signal"}, "stopped"),
        ({"event": "stopped", "step": 2, "reason": "trouble"}, "diverged"),
        ({"event": "final", "step": 2, "eval_loss": 1.0}, "finished"),
    ],
)
def test_state_at_the_end_and_after_a_resume(last: dict[str, Any], state: str) -> None:
    history = RunHistory()
    assert history.state == "waiting"
    history.add([start(), train(1), train(2), last])
    assert history.state == state
    assert history.eta_seconds(2.0) is None
    history.add([resumed(2, 10.0)])
    assert (history.state, history.stop_reason) == ("running", None)


def test_eta_is_the_median_step_time_and_a_pause_does_not_move_it() -> None:
    steady = [train(step) for step in range(1, 101)]
    assert history_of([start(), *steady]).eta_seconds(100.0) == pytest.approx(900.0)
    paused = [train(step, ts=step + 5000.0) for step in range(101, 111)]
    history = history_of([start(), *steady, *paused])
    assert history.eta_seconds(5110.0) == pytest.approx(890.0)
    assert history.eta_seconds(5110.5) == pytest.approx(889.5)
    assert history.eta_seconds(9999.0) == pytest.approx(889.0)


def test_eta_is_right_at_once_after_a_resume() -> None:
    history = history_of([start(), *(train(step) for step in range(1, 501)), resumed(400, 90_000.0)])
    assert history.step == 400
    assert history.eta_seconds(90_000.0) is None
    history.add([train(401, ts=90_030.0, step_time_s=4.0)])
    assert history.eta_seconds(90_030.0) == pytest.approx(599 * 4.0)
    history.add([train(402, ts=90_034.0, step_time_s=4.0), train(403, ts=90_038.0, step_time_s=4.0)])
    assert history.eta_seconds(90_038.0) == pytest.approx(597 * 4.0)


def test_eta_of_a_log_that_skips_steps() -> None:
    history = history_of([start(), *(train(step, step_time_s=1.0) for step in range(10, 110, 10))])
    assert history.eta_seconds(100.0) == pytest.approx(900.0)


def test_memory_is_bounded() -> None:
    history = history_of([adjustment(step) for step in range(MAX_DECISIONS + 500)])
    history.add([{"event": "checkpoint", "step": step, "path": "p"} for step in range(MAX_EVENTS + 10)])
    history.add([train(step, float(step % 7)) for step in range(1, 30_000)])
    assert len(history.adjustments) == MAX_DECISIONS
    assert history.adjustments[0].step == 500
    assert history.adjustment_count == MAX_DECISIONS + 500
    assert len(history.other_events) == MAX_EVENTS
    assert max(len(history.series(key)) for key in history.keys) <= 4096


def test_records_of_any_shape_do_no_harm() -> None:
    odd = [
        {}, {"event": "train"}, {"event": "train", "step": "7"}, {"event": "train", "step": -1},
        {"event": "train", "step": True}, {"event": 3, "step": 1}, {"event": "train", "step": 10**400},
        {"event": "train", "step": 1, "loss": "x", "ce": [1], "lr": [], "ts": "now", "rank": "first"},
        {"event": "adaptive_lr_adjustment", "step": 2}, {"event": "adaptive_lr_anneal", "step": 2, "start": "a"},
        {"event": "adaptive_lr_search", "step": 2}, {"event": "run_start", "step": 0, "config": 7},
        {"event": "merge", "step": 2}, {"event": "something_new", "step": 2, "reason": "why not"},
    ]  # fmt: skip
    history = history_of(odd)
    assert history.other_events[-1].text == "Something new: why not."
    assert history.total_steps is None


def test_smoothed_loss_is_calm_and_unbiased() -> None:
    noisy = [train(step, 3.0 + (-1) ** step) for step in range(1, 2001)]
    smooth = history_of(noisy).series("smooth")
    assert smooth.mean[0] == 2.0
    assert np.abs(smooth.mean[20:] - 3.0).max() < 0.25


losses = st.one_of(st.none(), st.floats(0, 20))
events = st.one_of(
    st.builds(train, st.integers(0, 5000), losses, st.floats(0, 1e4), rank=st.sampled_from([None, 0, 1])),
    st.builds(lambda s, lr: train(s, lr=lr), st.integers(0, 40), st.lists(st.sampled_from([1e-3, 2e-3]), max_size=3)),
    st.builds(adjustment, st.integers(0, 5000), rank=st.sampled_from([None, 0, 1])),
    st.builds(resumed, st.integers(0, 5000), st.floats(0, 1e4)),
    st.just(start()),
)


@given(st.lists(events, max_size=60), st.integers(1, 2000))
def test_any_split_of_the_file_into_polls_gives_the_same_history(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], max_bytes: int
) -> None:
    path = write(tmp_path_factory.mktemp("log") / "metrics.jsonl", records)
    run = FollowedRun(path)
    while not run.follower.at_end:
        run.refresh(max_bytes)
    assert told(run.history) == told(history_of(records))


def test_followed_run_forgets_a_replaced_log(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", [start(), train(1), train(2)])
    run = FollowedRun(path)
    assert run.refresh()
    assert not run.refresh()
    path.unlink()
    assert not run.refresh()
    assert run.history.step == 2
    path.write_bytes(as_bytes([start(), train(1, 9.0)]))
    assert run.refresh()
    assert curve(run.history) == {1: 9.0}
    assert math.isclose(run.history.series("ce").high.max(), 9.0)


def test_a_number_too_large_for_a_float_is_infinite_and_harms_nothing() -> None:
    history = history_of([start(), train(1, 5.0), train(2, 10**400), train(3, 3.0)])
    assert curve(history)[3] == 3.0
    assert history.step == 3


@pytest.mark.parametrize(
    "event", ["adaptive_lr_climb", "adaptive_lr_race", "not_learning", "adaptive_lr_anneal", "eval"]
)
@pytest.mark.parametrize("number", [10**400, -(10**30), 1e308, math.inf, math.nan, True, None, "x"])
def test_whatever_stands_for_a_number_becomes_a_short_sentence(event: str, number: object) -> None:
    keys = ("lr", "search_steps", "loss", "reference", "since", "start", "end", "scale", "ppl", "reason")
    history = history_of([start(), {"event": event, "step": 1, "ts": 2.0, **dict.fromkeys(keys, number)}])
    told = [event.text for event in history.other_events] + [decision.sentence for decision in history.decisions]
    assert len(told) == 2  # that of the start as well
    assert all(len(text) < 1000 for text in told)


def test_evaluations_of_the_same_tokens_are_compared_wherever_these_lie() -> None:
    first = {**start(), "config": {"dataset_file": "a", "batch_size": 4, "ema": 0.0}, "eval_id": "0a"}
    for there, digest, ema, best in (("b", "0a", 0.0, 4.0), ("a", "0b", 0.0, 5.0), ("b", "0a", 0.9, 5.0)):
        config = {"dataset_file": there, "batch_size": 4, "ema": ema}
        going_on = {"event": "run_resumed", "ts": 1.0, "step": 100, "config": config, "eval_id": digest}
        history = history_of([first, evaluated(100, 4.0), going_on, evaluated(120, 5.0)])
        found = history.best_evaluation()
        assert found is not None
        assert found[1] == best
