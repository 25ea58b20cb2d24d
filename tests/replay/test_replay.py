"""Replay: the recorded run comes out again, bit for bit; other settings decide as the scheduler itself would."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aios.cli.hrm_hf.adaptive_lr import AdaptiveLRConfig, AdaptiveLRScheduler
from aios.errors import UserError
from aios.replay.recording import Recording, read_recording
from aios.replay.replay import Choice, Replay, parse_settings, replay
from aios.terminal.replay_view import same_decisions
from training_process import THINKING, read_log, run_aios, start_training, train, wait_for_step

FLAGS = (*THINKING, "--steps=60", "--lr=3e-3", "--save-every=15", "--eval-every=0")


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A brain trained by the rules: killed, resumed under other settings, resumed once more afresh."""
    folder = tmp_path_factory.mktemp("resumed")
    process = start_training(folder, *FLAGS)
    wait_for_step(process, folder / "brain", 42)  # behind the windows that end at 16, 26, 36
    process.send_signal(signal.SIGKILL)
    process.communicate()
    settings = folder / "settings.toml"
    settings.write_text("window_size = 7\ncooldown_steps = 5\nincrease_threshold = 0.004\nlr_max = 4e-3\n")
    train(folder, *THINKING, "--resume", f"--adaptive-lr-config={settings}")
    train(folder, *THINKING, "--resume", "--steps=100", "--adaptive-lr-reset-state", "--lr=1e-3")
    return folder / "brain"


@pytest.fixture(scope="module")
def auto(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A brain trained under profile `auto`: search and anneal, then longer (it warms up again), then by eager rules."""
    folder = tmp_path_factory.mktemp("auto")
    train(folder, "--adaptive-lr-profile=auto", "--steps=290", "--save-every=100", "--eval-every=0")
    train(folder, "--adaptive-lr-profile=auto", "--resume", "--steps=360")
    settings = folder / "settings.toml"
    settings.write_text("window_size = 5\ncooldown_steps = 0\npatience = 1\nincrease_threshold = 0.0011\n")
    train(folder, "--resume", "--steps=400", f"--adaptive-lr-config={settings}")
    return folder / "brain"


def outcome(replayed: Replay) -> tuple[object, ...]:
    """All of a replay but the time at which it was made."""
    return replayed.steps, replayed.lrs, [(a.step, a.new_lr, a.reason) for a in replayed.adjustments], replayed.notes


def assert_as_recorded(recording: Recording, replayed: Replay) -> None:
    """Every adjustment, and the learning rate of every step."""
    assert same_decisions(recording, replayed)
    assert recording.adjustments
    assert replayed.lrs == [step.lr for step in replayed.steps]
    assert replayed.notes == []


def test_a_resumed_run_comes_out_again(resumed: Path) -> None:
    recording = read_recording(resumed)
    assert [s.first_step for s in recording.sittings] in ([0, 30, 60], [0, 45, 60])
    assert [step.step for step in recording.ordered_steps()] == list(range(1, 101))
    assert len(read_log(resumed, "train")) > 100  # there was something to replace
    assert all(sitting.adjustments for sitting in recording.sittings)
    replayed = replay(recording, Choice())
    assert_as_recorded(recording, replayed)
    assert [step.step for step in replayed.steps] == list(range(7, 101))  # 10 % of 60 steps of warm-up


@pytest.mark.slow
def test_an_auto_run_comes_out_again(auto: Path) -> None:
    recording = read_recording(auto)
    assert recording.sittings[0].search is not None
    assert_as_recorded(recording, replay(recording, Choice()))


def test_a_run_asked_to_finish_in_its_climb_comes_out_again(tmp_path: Path) -> None:
    process = start_training(tmp_path, "--adaptive-lr-profile=auto", "--steps=400", "--eval-every=0")
    wait_for_step(process, tmp_path / "brain", 10)
    (tmp_path / "brain" / "STOP").write_text("FINISH")
    process.communicate()
    (anneal,) = read_log(tmp_path / "brain", "adaptive_lr_anneal")
    (climb,) = read_log(tmp_path / "brain", "adaptive_lr_climb")
    assert anneal["step"] == climb["step"]
    recording = read_recording(tmp_path / "brain")
    replayed = replay(recording, Choice())
    assert same_decisions(recording, replayed)
    assert replayed.lrs == [step.lr for step in replayed.steps]
    assert replayed.notes == []


def test_roles_with_rates_of_their_own_come_out_again(tmp_path: Path) -> None:
    settings = tmp_path / "s.toml"
    head = "window_size = 10\ncooldown_steps = 0\npatience = 1\nincrease_threshold = 0.0011\n"
    settings.write_text(head + "[groups.router]\nlr_ratio = 0.5\ncaution = 0.5\n")
    flags = ("--use-moe", "--num-experts=2", "--steps=36", "--warmup-steps=5", "--lr=1e-3", "--eval-every=0")
    train(tmp_path, *flags, f"--adaptive-lr-config={settings}")
    recording = read_recording(tmp_path / "brain")
    assert recording.adjustments[0].groups["router"]["new_lr"] > 0
    assert_as_recorded(recording, replay(recording, Choice()))


def test_without_the_restored_state_the_run_would_not_come_out_again(resumed: Path) -> None:
    recording = read_recording(resumed)
    recording.sittings[1].restored_lr = None
    assert not same_decisions(recording, replay(recording, Choice()))


@pytest.mark.parametrize(
    "settings", [{"window_size": 17, "cooldown_steps": 0}, {"increase_factor": 1.25, "initial_lr": 2e-3}]
)
def test_other_settings_decide_as_the_scheduler_alone_would(
    tmp_path: Path, resumed: Path, settings: dict[str, Any]
) -> None:
    """One sitting, fed by hand: the readable reference of what a replay is."""
    first = first_sitting(tmp_path, resumed)
    replayed = replay(read_recording(first), Choice(settings=settings))
    optimizer = SimpleNamespace(param_groups=[{"lr": 1.0}])
    scheduler = AdaptiveLRScheduler(optimizer, AdaptiveLRConfig.from_base_lr(3e-3, 60, **settings))
    lrs = []
    for record in [r for r in read_log(first.parent, "train") if r["step"] > 6]:
        lrs.append(scheduler.current_lr)
        scheduler.step(record["ce"])
    assert replayed.lrs == lrs
    assert replayed.end_lr == scheduler.current_lr
    assert len(replayed.adjustments) == scheduler.adjustments_made > 0


def first_sitting(folder: Path, brain: Path) -> Path:
    """The log up to the kill."""
    lines = (brain / "metrics.jsonl").read_text().splitlines(keepends=True)
    end = next(i for i, line in enumerate(lines) if '"run_resumed"' in line)
    path = folder / "metrics.jsonl"
    path.write_text("".join(lines[:end]))
    return path


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """The log with `edit` done to each record."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        edit(record)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_nan_in_the_log_pulls_the_brake(tmp_path: Path, resumed: Path) -> None:
    def lose(record: dict[str, Any]) -> None:
        if record["event"] == "train" and record["step"] == 20:
            record.update(ce=None, non_finite=True)

    replayed = replay(read_recording(edited(first_sitting(tmp_path, resumed), lose)), Choice())
    assert [(a.step, a.decision) for a in replayed.adjustments if a.reason == "non_finite_loss"] == [
        (20, "spike_decrease")
    ]


def test_lines_out_of_order_and_torn_ones_change_nothing(tmp_path: Path, resumed: Path) -> None:
    path = first_sitting(tmp_path, resumed)
    before = replay(read_recording(path), Choice())
    lines = path.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if '"train"' in line and '"step": 12' in line)
    lines[at : at + 2] = reversed(lines[at : at + 2])
    path.write_text("not json\n" + "".join(lines) + '{"event": "tra')
    assert outcome(replay(read_recording(path), Choice())) == outcome(before)


def test_missing_steps_are_told(tmp_path: Path, resumed: Path) -> None:
    path = first_sitting(tmp_path, resumed)
    path.write_text("".join(line for line in path.read_text().splitlines(True) if '"step": 20,' not in line))
    assert any("1 steps are missing" in note for note in replay(read_recording(path), Choice()).notes)


def test_each_worker_of_a_parallel_run_has_its_own(tmp_path: Path, resumed: Path) -> None:
    path = first_sitting(tmp_path, resumed)
    alone = replay(read_recording(path), Choice())
    text = path.read_text()

    def to_worker_1(record: dict[str, Any]) -> None:
        record["rank"] = 1
        if record["event"] == "train":
            record["ce"] += record["step"]  # gets worse and worse

    def to_worker_0(record: dict[str, Any]) -> None:
        record["rank"] = 0

    other = edited(path, to_worker_1).read_text()
    path.write_text(text)
    edited(path, to_worker_0)
    mixed = [
        line for pair in zip(path.read_text().splitlines(True), other.splitlines(True), strict=True) for line in pair
    ]
    path.write_text("".join(mixed))
    assert outcome(replay(read_recording(path), Choice())) == outcome(alone)
    worse = replay(read_recording(path, 1), Choice())
    assert {a.decision for a in worse.adjustments} == {"spike_decrease"}
    with pytest.raises(UserError, match=r"--rank is 2, but .* holds the workers 0, 1"):
        read_recording(path, 2)


def test_a_merge_makes_the_scheduler_forget_its_reference(tmp_path: Path, resumed: Path) -> None:
    path = first_sitting(tmp_path, resumed)
    eager = Choice(settings={"cooldown_steps": 0, "patience": 1, "increase_threshold": 0.001})
    assert 36 in [a.step for a in replay(read_recording(path), eager).adjustments]
    lines = path.read_text().splitlines(True)
    at = next(i for i, line in enumerate(lines) if '"train"' in line and '"step": 26,' in line)
    lines.insert(at + 1, '{"event": "merge", "step": 26}\n')
    path.write_text("".join(lines))
    # The first window behind the merge is compared with none.
    assert 36 not in [a.step for a in replay(read_recording(path), eager).adjustments]


def test_a_worker_started_again_goes_on_as_a_resumed_run(tmp_path: Path, resumed: Path) -> None:
    """Such a worker writes no `run_resumed`: its second `adaptive_lr_init` tells."""
    path = tmp_path / "metrics.jsonl"
    lines = (resumed / "metrics.jsonl").read_text().splitlines(True)
    path.write_text("".join(line for line in lines if '"run_resumed"' not in line))
    before, after = read_recording(resumed), read_recording(path)
    assert [s.first_step for s in after.sittings] == [s.first_step for s in before.sittings]
    assert list(after.ordered_steps()) == list(before.ordered_steps())


def test_a_fixed_run_and_a_changed_settings_file_are_told(tmp_path: Path, resumed: Path) -> None:
    def fix(record: dict[str, Any]) -> None:
        if record["event"] == "run_start":
            record["config"]["auto_adjust_lr"] = False
        if record["event"].startswith("adaptive_lr"):
            record["event"] = "x"

    replayed = replay(read_recording(edited(first_sitting(tmp_path, resumed), fix)), Choice())
    assert replayed.adjustments
    assert any("rate was fixed" in note for note in replayed.notes)
    moved = tmp_path / "moved"
    shutil.copytree(resumed.parent, moved)
    (tmp_path / "s.toml").write_text("window_size = 9\n")

    def elsewhere(record: dict[str, Any]) -> None:
        if record["event"] == "run_resumed":
            record["config"]["adaptive_lr_config"] = str(tmp_path / "s.toml")

    recording = read_recording(edited(moved / "brain" / "metrics.jsonl", elsewhere))
    assert any("window_size" in note and "changed since" in note for note in replay(recording, Choice()).notes)
    (tmp_path / "s.toml").unlink()
    with pytest.raises(UserError, match=r"The run's settings file: .*s.toml.*--adaptive-lr-config"):
        replay(recording, Choice())


def test_settings_from_file_and_flags_with_the_flags_winning(tmp_path: Path, resumed: Path) -> None:
    (tmp_path / "s.toml").write_text("[adaptive_lr]\nwindow_size = 9\npatience = 30\n")
    choice = Choice(settings_file=str(tmp_path / "s.toml"), settings={"window_size": 12})
    config = replay(read_recording(resumed), choice).config
    assert (config.window_size, config.patience, config.cooldown_steps) == (12, 30, 20)


def test_settings_are_parsed_by_type() -> None:
    choice = parse_settings(["window_size=20", " lr_max = 1e-3 ", "rate_limit_spikes=true", "profile=auto"])
    assert choice == Choice("auto", None, {"window_size": 20, "lr_max": 1e-3, "rate_limit_spikes": True})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("windw_size=3", ["unknown key 'windw_size'", "did you mean 'window_size'"]),
        ("qqq=1", ["known keys: profile, initial_lr"]),
        ("window_size", ["no `=`", "--set key=value"]),
        ("window_size=3.5", ["window_size=3.5", "a whole number"]),
        ("lr_max=big", ["lr_max=big", "a number"]),
        ("rate_limit_spikes=1", ["rate_limit_spikes=1", "true or false"]),
        ("profile=plain", ["profile=plain", "auto, rules"]),
    ],
)
def test_bad_settings_are_named(text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_settings([text])
    assert all(word in str(caught.value) for word in words)


def test_the_command_says_what_would_have_been_decided(resumed: Path, tmp_path: Path) -> None:
    done = run_aios("hrm-hf", "replay", str(resumed))
    assert done.returncode == 0, done.stderr
    assert "The replay equals the recording" in done.stdout
    assert "under another learning rate they would have been different" in done.stdout
    picture = tmp_path / "lr.png"
    done = run_aios("hrm-hf", "replay", str(resumed / "metrics.jsonl"), "--set", "profile=auto", "-o", str(picture))
    assert done.returncode == 0, done.stderr
    assert "profile auto" in done.stdout
    assert "equals the recording" not in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_holds_both_sides(resumed: Path) -> None:
    done = run_aios("hrm-hf", "replay", str(resumed), "--set=window_size=20", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["settings"]["window_size"] == 20
    assert shown["given"] == {"window_size": 20}
    recorded = read_recording(resumed)
    assert [a["step"] for a in shown["recorded"]["adjustments"]] == [a.step for a in recorded.adjustments]
    assert shown["recorded"]["end_lr"] == recorded.adjustments[-1].new_lr
    assert shown["replayed"]["counts"] != shown["recorded"]["counts"]
    assert shown["same_decisions"] is False
    assert "would have been different" in shown["notes"][-1]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["LOG", "--set", "lr_max=-1"], "lr_max = -1.0 is not allowed"),
        (["LOG", "--set", "lr_min=1", "--set", "lr_max=0.1"], "lr_min = 1.0"),
        (["LOG", "--adaptive-lr-config", "/nowhere.toml"], "/nowhere.toml: cannot be read"),
        (["LOG", "--rank", "1"], "--rank is 1, but"),
        (["LOG", "-o", "/nowhere/x.png"], "no folder /nowhere"),
        (["LOG", "-o", "x.exe"], "x.exe"),
        (["/nowhere.jsonl"], "There is no log /nowhere.jsonl"),
        (["TEXT"], "is no training log"),
        (["HALF"], "holds no training steps"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    tmp_path: Path, resumed: Path, args: list[str], sentence: str
) -> None:
    (tmp_path / "text").write_text("hello\nworld\n")
    (tmp_path / "half").write_text('{"event": "train", "ts": 1.0, "step": 1, "ce": 2.0}\n{"event"')
    places = {"LOG": resumed, "TEXT": tmp_path / "text", "HALF": tmp_path / "half"}
    done = run_aios("hrm-hf", "replay", *(str(places.get(arg, arg)) for arg in args))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert sentence in done.stderr
    assert not Path("x.exe").exists()


@pytest.mark.parametrize(
    ("begun", "scales"),
    [
        ({"config": {}}, False),
        ({"config": {"model_dtype": "fp16"}}, True),  # a log of before, which does not say
        ({"config": {}, "loss_scaling": True}, True),  # fp32 weights on a CUDA device without bf16
        ({"config": {"model_dtype": "fp16"}, "loss_scaling": False}, False),
    ],
)
def test_an_overflow_is_one_where_the_run_scaled_its_loss(tmp_path: Path, begun: dict[str, Any], scales: bool) -> None:
    step = {"event": "train", "step": 1, "loss": 2.0, "ce": 2.0, "lr": 1e-3, "grad_norm": 1.0}
    records = (
        {"event": "run_start", "step": 0, **begun},
        {"event": "adaptive_lr_init", "step": 0},
    )
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in (*records, *records[1:], step)))
    sittings = read_recording(tmp_path / "metrics.jsonl").sittings
    assert [sitting.scales_loss for sitting in sittings] == [scales] * len(sittings)
