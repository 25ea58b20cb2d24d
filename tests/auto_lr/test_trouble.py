"""The ladder for trouble: what each kind of trouble leads to, and that clean runs lead to nothing."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest

from aios.auto_lr.trouble import Rung, TroubleMonitor
from aios.auto_lr.trouble_config import TroubleConfig
from auto_lr.ladders import Step, feed, normal_steps, residuals, rungs, settled

TRACES = Path(__file__).parent / "traces_trouble"


def recorded(name: str) -> dict[str, list[Step]]:
    runs = json.loads((TRACES / f"{name}.json").read_text())["runs"]
    return {key: list(zip(run["loss"], run["grad_norm"], strict=True)) for key, run in runs.items()}


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
