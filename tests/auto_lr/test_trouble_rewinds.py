"""The ladder's upper rungs, its windows, and the states it is saved in."""

import json
import math
import random
from itertools import pairwise
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.auto_lr.robust_window import MAD_TO_SIGMA, RobustWindow
from aios.auto_lr.trouble import Rung, TroubleMonitor
from aios.auto_lr.trouble_config import TroubleConfig
from auto_lr.ladders import Step, feed, normal_steps, rungs, settled

any_float = st.floats(allow_nan=True, allow_infinity=True)


plausible = st.tuples(st.floats(0, 10), st.floats(0, 100))


# --- rewinds, forgiveness, stop -------------------------------------------------------------------------------------


def diverge(monitor: TroubleMonitor, state: dict[str, object]) -> list[Rung]:
    """Good weights, then an LR that breaks them again, until told to rewind or stop."""
    monitor.rewound(state)
    taken = []
    for t in range(200):
        loss, norm = (4.0, 0.8) if t < 4 else (9.0, 20.0)
        taken.append(monitor.observe(t, loss, norm, norm > monitor.skip_above).rung)
        if taken[-1] in (Rung.REWIND, Rung.STOP):
            return taken
    return taken


def test_rewinds_without_progress_end_in_a_stop_with_advice() -> None:
    monitor = settled()
    state = monitor.state_dict()
    for _ in range(monitor.config.max_rewinds):
        assert diverge(monitor, state)[-1] is Rung.REWIND
    assert monitor.rewinds == monitor.config.max_rewinds
    assert diverge(monitor, state)[-1] is Rung.STOP


def test_stop_carries_one_sentence_of_advice() -> None:
    monitor = settled(TroubleConfig(max_rewinds=0, non_finite_patience=1))
    verdict = monitor.observe(7, math.nan, 1.0, True)
    assert verdict.rung is Rung.STOP
    assert verdict.reason.startswith("rewinds_exhausted")
    assert "lower the learning rate" in verdict.advice
    assert all(math.isfinite(value) for value in verdict.numbers.values())


@pytest.mark.parametrize(("level", "left"), [(3.0, 0), (4.0, 2)])
def test_only_progress_beyond_the_old_level_forgives_rewinds(level: float, left: int) -> None:
    monitor = settled()
    state = monitor.state_dict()
    diverge(monitor, state)
    diverge(monitor, state)
    assert monitor.rewinds == 2
    monitor.rewound(state)
    feed(monitor, normal_steps(200, seed=8, level=level))
    assert monitor.rewinds == left


def test_a_rewind_brings_the_windows_of_the_snapshot_back() -> None:
    monitor = settled()
    state, limit = monitor.state_dict(), monitor.skip_above
    feed(monitor, normal_steps(300, seed=9, norm=3.0))
    assert monitor.skip_above > 2 * limit
    monitor.rewound(state)
    assert monitor.skip_above == limit
    assert not monitor.healthy
    feed(monitor, normal_steps(monitor.config.healthy_after, seed=9))
    assert monitor.healthy


# --- vanishing gradient ---------------------------------------------------------------------------------------------


def test_vanishing_gradient_on_a_flat_loss_raises_once_per_window() -> None:
    monitor = settled()
    verdicts = feed(monitor, normal_steps(3 * 128, seed=4, norm=1e-4))
    raises = [number for number, verdict in enumerate(verdicts) if verdict.rung is not Rung.NONE]
    assert set(rungs(verdicts)) == {"raise"}
    assert all(later - earlier == 128 for earlier, later in pairwise(raises))
    assert verdicts[raises[0]].reason.startswith("vanishing_gradient")


def test_small_gradients_of_a_falling_or_solved_loss_do_not_raise() -> None:
    falling = [(loss - 0.004 * t, norm) for t, (loss, norm) in enumerate(normal_steps(500, seed=4, norm=1e-4))]
    assert rungs(feed(settled(), falling)) == []
    rng = random.Random(4)
    solved = [(abs(rng.gauss(0, 1e-3)), 1e-5 * math.exp(rng.gauss(0, 0.5))) for _ in range(500)]
    assert rungs(feed(settled(), solved)) == []


# --- what always holds ----------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(1, 20))
def test_window_statistics_agree_with_the_slow_reference(values: list[float], size: int) -> None:
    window = RobustWindow(size)
    for count, value in enumerate(values, 1):
        window.add(value)
        kept = values[max(0, count - size) : count]
        centre = median(kept)
        assert list(window) == kept
        assert window.median() == pytest.approx(centre, rel=1e-12, abs=1e-9)
        spread = MAD_TO_SIGMA * median(abs(x - centre) for x in kept)
        assert window.sigma() == pytest.approx(spread, rel=1e-9, abs=1e-9)


@settings(max_examples=60)
@given(st.lists(st.tuples(any_float, any_float, st.booleans()), max_size=150), st.booleans())
def test_never_raises_and_nothing_non_finite_enters_a_statistic(
    steps: list[tuple[float, float, bool]], warm: bool
) -> None:
    monitor = settled() if warm else TroubleMonitor()
    for number, (loss, norm, skipped) in enumerate(steps):
        verdict = monitor.observe(number, loss, norm, skipped)
        assert all(math.isfinite(value) for value in verdict.numbers.values())
        assert monitor.skip_above > 0
    state = monitor.state_dict()
    windows = [value for value in state.values() if isinstance(value, list)]
    assert all(math.isfinite(number) for window in windows for number in window)
    json.dumps(state, allow_nan=False)


@settings(max_examples=60)
@given(st.lists(plausible, min_size=1, max_size=120), st.data())
def test_resumed_at_any_step_equals_unsplit(steps: list[Step], data: st.DataObject) -> None:
    steps = normal_steps(40) + steps
    split = data.draw(st.integers(0, len(steps)))
    whole, first, second = TroubleMonitor(), TroubleMonitor(), TroubleMonitor()
    expected = feed(whole, steps)
    begun = feed(first, steps[:split])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    rest = feed(second, steps[split:])
    assert [v.rung for v in begun + rest] == [v.rung for v in expected]
    assert [v.reason for v in begun + rest] == [v.reason for v in expected]
    assert second.state_dict() == whole.state_dict()
    assert second.skip_above == whole.skip_above


@given(st.integers(0, 1000), st.floats(10, 1e6))
def test_the_third_outlier_in_a_row_is_let_in(seed: int, factor: float) -> None:
    monitor = TroubleMonitor()
    feed(monitor, normal_steps(60, seed))
    outlier = (4.0 + 0.4 * factor, 0.8 * factor)
    fill = [len(monitor.state_dict()["log_grads"]), len(monitor.state_dict()["residuals"])]
    entered = []
    for number in range(4):
        assert (monitor.skip_above == math.inf) == (number >= 2)
        feed(monitor, [outlier])
        state = monitor.state_dict()
        entered.append([len(state["log_grads"]) - fill[0], len(state["residuals"]) - fill[1]])
    assert entered == [[0, 0], [0, 0], [1, 1], [2, 2]]


def test_nothing_is_skipped_before_enough_is_known() -> None:
    monitor = TroubleMonitor()
    for number, step in enumerate(normal_steps(monitor.config.min_fill)):
        assert monitor.skip_above == math.inf, number
        feed(monitor, [step])
    assert monitor.skip_above < math.inf


def test_a_step_late_still_ends_the_skipping() -> None:
    monitor = settled()
    limit, skipped = monitor.skip_above, []
    for number in range(6):  # on CUDA the update after this one was launched with the limit from before it
        skipped.append(limit < 50.0)
        limit = monitor.skip_above
        monitor.observe(number, 4.0, 50.0, skipped[-1])
    assert skipped == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("window", 10),
        ("window", 128.0),
        ("grad_ratio", math.nan),
        ("collapse", 1.5),
        ("patience", 0),
        ("min_fill", True),
    ],
)
def test_bad_settings_are_named_with_value_and_range(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{field} = {value} is not allowed: must be"):
        TroubleConfig(**{field: value})


def test_foreign_state_is_refused_before_any_change() -> None:
    monitor = settled()
    before = monitor.state_dict()
    for load in (monitor.load_state_dict, monitor.rewound):
        with pytest.raises(ValueError, match="trouble state"):
            load({"version": 1})
    assert monitor.state_dict() == before
