"""The ladder for trouble: what each kind of trouble leads to, and that clean runs lead to nothing."""

import json
import math
import random
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.auto_lr.robust_window import MAD_TO_SIGMA, RobustWindow
from aios.auto_lr.trouble import Rung, TroubleMonitor, Verdict
from aios.auto_lr.trouble_config import TroubleConfig

TRACES = Path(__file__).parent / "traces_trouble"
AT = 160
"""Index in the disturbed traces, and in the synthetic ones below, at which the disturbance begins."""
Step = tuple[float, float]
any_float = st.floats(allow_nan=True, allow_infinity=True)
plausible = st.tuples(st.floats(0, 10), st.floats(0, 100))


def recorded(name: str) -> dict[str, list[Step]]:
    runs = json.loads((TRACES / f"{name}.json").read_text())["runs"]
    return {key: list(zip(run["loss"], run["grad_norm"], strict=True)) for key, run in runs.items()}


def feed(monitor: TroubleMonitor, steps: Iterable[Step]) -> list[Verdict]:
    """Verdicts of a trainer that skips what is above `skip_above` or not finite."""
    verdicts = []
    for number, (loss, norm) in enumerate(steps):
        skipped = norm > monitor.skip_above or not math.isfinite(loss + norm)
        verdicts.append(monitor.observe(number, loss, norm, skipped))
    return verdicts


def rungs(verdicts: Iterable[Verdict]) -> list[str]:
    return [verdict.rung.value for verdict in verdicts if verdict.rung is not Rung.NONE]


def normal_steps(count: int, seed: int = 0, level: float = 4.0, norm: float = 0.8) -> list[Step]:
    rng = random.Random(seed)
    return [(level + rng.gauss(0, 0.15), norm * math.exp(rng.gauss(0, 0.12))) for _ in range(count)]


def settled(config: TroubleConfig | None = None) -> TroubleMonitor:
    monitor = TroubleMonitor(config)
    assert rungs(feed(monitor, normal_steps(AT))) == []
    return monitor


# --- no trouble -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["clean", "clean_held_out"])
def test_recorded_clean_runs_take_no_rung(part: str) -> None:
    for name, steps in recorded(part).items():
        assert rungs(feed(TroubleMonitor(), steps)) == [], name


def test_snapshots_of_clean_runs_are_nearly_always_good() -> None:
    for name, steps in recorded("clean_held_out").items():
        monitor = TroubleMonitor()
        healthy = [monitor.healthy for step in steps if feed(monitor, [step])]
        assert fmean(healthy) > 0.9, name


def test_fast_early_progress_with_growing_gradients_is_no_trouble() -> None:
    rng = random.Random(1)
    early = [
        (5 + 2.6 * math.exp(-t / 18) + rng.gauss(0, 0.1), 0.4 * (1 + t / 12) * math.exp(rng.gauss(0, 0.15)))
        for t in range(100)
    ]
    assert rungs(feed(TroubleMonitor(), early)) == []


def residuals(steps: list[Step], half: int = 15) -> list[Step]:
    """(loss - its level, log norm - its level), the levels being centred running medians."""
    losses, logs = [loss for loss, _ in steps], [math.log(max(norm, 1e-30)) for _, norm in steps]

    def detrended(values: list[float]) -> list[float]:
        windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
        return [value - median(window) for value, window in zip(values, windows, strict=True)]

    return list(zip(detrended(losses), detrended(logs), strict=True))


def bootstrap(noise: list[Step], count: int, rng: random.Random, heavy: bool) -> Iterator[Step]:
    """A long clean run: a falling loss, drifting norms, and blocks of 24 steps of recorded noise upon them.

    `heavy` adds tails that were not recorded: Student's t with 4 degrees of freedom on the loss and 5 on the norm
    itself, and a lognormal factor on the norm.
    """
    for t in range(count):
        if t % 24 == 0:
            at = rng.randrange(len(noise) - 24)
        d_loss, d_log = noise[at + t % 24]
        loss = 2.5 + 4 * math.exp(-t / 400) + d_loss
        norm = math.exp(0.4 * math.sin(t / 700) + d_log)
        if heavy:
            loss += 0.1 * student_t(4, rng)
            norm = abs(norm * math.exp(rng.gauss(0, 0.15)) * (1 + 0.15 * student_t(5, rng)))
        yield loss, norm


def student_t(freedom: int, rng: random.Random) -> float:
    return rng.gauss(0, 1) / math.sqrt(rng.gammavariate(freedom / 2, 2) / freedom)


def false_alarms(per_run: int, heavy: bool) -> tuple[int, int]:
    """(rungs taken, steps) over bootstraps of all recorded clean runs."""
    alarms = steps = 0
    for seed, run in enumerate([*recorded("clean").values(), *recorded("clean_held_out").values()]):
        noise = residuals(run)[100:]
        alarms += len(rungs(feed(TroubleMonitor(), bootstrap(noise, per_run, random.Random(seed), heavy))))
        steps += per_run
    print(f"{alarms} false alarms in {steps} clean steps{' with heavier tails' if heavy else ''}")
    return alarms, steps


@pytest.mark.parametrize("heavy", [False, True])
def test_false_alarms_are_rare(heavy: bool) -> None:
    alarms, steps = false_alarms(5000, heavy)
    assert steps >= 100_000
    assert alarms <= 1


@pytest.mark.slow
@pytest.mark.parametrize("heavy", [False, True])
def test_false_alarm_rate_is_below_one_in_100_000(heavy: bool) -> None:
    alarms, steps = false_alarms(60_000, heavy)
    assert steps >= 1_000_000
    assert alarms / steps < 1e-5


# --- each kind of trouble -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "norm"), [(14.0, 20.0), (1e6, 1e9), (4.1, 50.0)])
def test_one_corrupted_batch_is_one_skip(loss: float, norm: float) -> None:
    monitor = settled()
    verdicts = feed(monitor, [(loss, norm), *normal_steps(200, seed=2)])
    assert rungs(verdicts) == ["skip"]
    assert verdicts[0].reason.startswith("gradient_explosion (")
    assert verdicts[0].numbers["grad_norm"] == norm


def test_recorded_corrupted_batch_is_one_skip() -> None:
    assert rungs(feed(TroubleMonitor(), recorded("disturbed")["corrupt_3e-3"])) == ["skip"]


@pytest.mark.parametrize("bad", [(math.nan, math.nan), (math.inf, math.nan), (4.0, math.inf)])
def test_ten_non_finite_batches_are_ten_skips(bad: Step) -> None:
    monitor = settled()
    before = monitor.skip_above
    verdicts = feed(monitor, [bad] * 10)
    assert rungs(verdicts) == ["skip"] * 10
    kind = "non_finite_gradient" if math.isfinite(bad[0]) else "non_finite_loss"
    assert verdicts[-1].reason == f"{kind} (10 in a row)"
    assert monitor.skip_above == before
    assert rungs(feed(monitor, normal_steps(200, seed=2))) == []


def test_non_finite_without_end_rewinds_then_stops() -> None:
    config = TroubleConfig(max_rewinds=2)
    monitor = settled(config)
    state = monitor.state_dict()
    taken = []
    for step in range(100):
        rung = monitor.observe(step, math.nan, math.nan, True).rung
        taken += [] if rung is Rung.SKIP else [(step, rung)]
        if rung is Rung.REWIND:
            monitor.rewound(state)
    assert taken[:3] == [(19, Rung.REWIND), (39, Rung.REWIND), (59, Rung.STOP)]


def test_third_explosion_within_the_window_cuts_at_once() -> None:
    monitor = settled()
    calm = normal_steps(5, seed=3)
    verdicts = feed(monitor, [(4.0, 30.0), *calm, (4.0, 30.0), *calm, (4.0, 30.0)])
    assert rungs(verdicts) == ["skip", "skip", "cut"]
    assert verdicts[-1].reason.startswith("gradient_explosion")


def test_explosions_far_apart_never_cut() -> None:
    monitor = settled()
    trace = [step for seed in range(10) for step in [(4.0, 30.0), *normal_steps(20, seed)]]
    assert rungs(feed(monitor, trace)) == ["skip"] * 10


def test_higher_gradients_for_good_with_a_calm_loss_cut_at_most_once() -> None:
    monitor = settled()
    assert rungs(feed(monitor, normal_steps(400, seed=3, norm=20.0))) == ["skip", "skip", "cut"]
    assert monitor.healthy
    assert 20 < monitor.skip_above < 400


@pytest.mark.parametrize("name", ["lr100_3e-4", "lr100_1e-3", "lr100_1e-2", "lr100_sgd"])
def test_recorded_lr_times_100_leads_to_cut_then_rewind(name: str) -> None:
    taken = [rung for rung in rungs(feed(TroubleMonitor(), recorded("disturbed")[name])) if rung != "skip"]
    assert taken[:2] == ["cut", "rewind"]


def test_divergence_is_cut_within_ten_steps_and_rewound_within_fifty() -> None:
    monitor = settled()
    worse = [(min(4 + 0.8 * t, 11.0), 0.8 * 1.8 ** min(t, 10)) for t in range(60)]
    taken = [(number, verdict.rung) for number, verdict in enumerate(feed(monitor, worse))]
    assert next(number for number, rung in taken if rung is Rung.CUT) < 10
    assert next(number for number, rung in taken if rung is Rung.REWIND) < 50
    assert not monitor.healthy


@pytest.mark.parametrize("name", ["text_1e-3", "text_1e-2", "text_b1"])
def test_recorded_change_of_text_takes_no_rung_beyond_a_skip(name: str) -> None:
    verdicts = feed(TroubleMonitor(), recorded("disturbed")[name])
    assert set(rungs(verdicts)) <= {"skip"}
    assert any(verdict.reason.startswith("regime_change") for verdict in verdicts)


def change_of_text(seed: int, gradient: float) -> list[Step]:
    rng = random.Random(seed)
    return [
        (4 + 1.5 * math.exp(-t / 150) + rng.gauss(0, 0.15), gradient * math.exp(rng.gauss(0, 0.12))) for t in range(400)
    ]


@pytest.mark.parametrize("gradient", [0.8, 1.6, 3.0])
def test_change_of_text_with_healthy_gradients_lets_the_new_level_in(gradient: float) -> None:
    monitor = settled()
    assert rungs(feed(monitor, change_of_text(5, gradient))) == []
    assert monitor.healthy


def test_change_of_text_mistaken_for_divergence_is_recognised_after_one_rewind() -> None:
    monitor = settled()
    state, taken, new_text = monitor.state_dict(), [], iter(change_of_text(6, 12.0))
    for number, (loss, norm) in enumerate(new_text):
        verdict = monitor.observe(number, loss, norm, norm > monitor.skip_above)
        taken.append(verdict)
        if verdict.rung is Rung.REWIND:
            monitor.rewound(state)
    assert rungs(taken).count("rewind") == 1
    assert "stop" not in rungs(taken)
    assert any(verdict.reason.startswith("regime_change after a rewind") for verdict in taken)


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
