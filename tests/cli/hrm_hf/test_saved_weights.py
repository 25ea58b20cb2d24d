"""The evaluation loss that is told of saved weights is theirs, also where the save ends a climb past its knee."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aios.core.hrm_models import HRMForCausalLM
from aios.data.dataset import DataConfig, EvalBatches, load_data
from aios.data.tokenizer import load_tokenizer
from aios.runs.brain import list_checkpoints, read_card
from aios.runs.checkpoints import checkpoint_path, load_state
from training_process import read_log, train

CLIMBING = ("--adaptive-lr-profile=auto", "--steps=120", "--eval-every=6")


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A brain that was evaluated and saved every six steps, in its climb, too."""
    folder = tmp_path_factory.mktemp("often")
    train(folder, *CLIMBING, "--save-every=6", "--keep-checkpoints=100")
    return folder / "brain"


def evaluated(checkpoint: Path) -> float:
    """The evaluation loss of saved weights, with the trainer's data and batches of `TINY`."""
    model = HRMForCausalLM.from_pretrained(checkpoint).eval()
    windows = load_data(DataConfig(seq_len=32), load_tokenizer(str(checkpoint))).eval
    total, targets = 0.0, 0.0
    with torch.no_grad():
        for rows in EvalBatches(windows, 4, 2):
            total += float(model(**rows.to(torch.device("cpu"))._asdict()).ce) * rows.targets
            targets += rows.targets
    return total / targets


def test_every_card_tells_the_loss_of_the_weights_beside_it(brain: Path) -> None:
    (climb,) = read_log(brain, "adaptive_lr_climb")
    assert "a checkpoint was due" in climb["reason"]
    told = {}
    for checkpoint in list_checkpoints(brain):
        card = read_card(checkpoint)
        assert card is not None
        told[card.trained_steps] = (card.last_session["eval_loss"], evaluated(checkpoint))
    del told[0]  # saved before the first evaluation
    assert climb["step"] in told
    assert [loss for loss, _ in told.values()] == pytest.approx([own for _, own in told.values()], rel=1e-6)


def test_the_evaluation_where_the_climb_ends_is_heeded(brain: Path) -> None:
    (climb,) = read_log(brain, "adaptive_lr_climb")
    heeded = {r["step"]: r["loss"] for r in read_log(brain, "eval") if r["step"] >= climb["step"]}
    (final,) = read_log(brain, "final")
    assert final["best_eval_loss"] == min(heeded.values()) == pytest.approx(evaluated(brain / "best"), rel=1e-6)
    events = [r["event"] for r in read_log(brain) if r["step"] == climb["step"]]
    assert events.index("adaptive_lr_climb") < events.index("eval") < events.index("checkpoint")


def test_an_evaluation_that_nothing_is_saved_after_leaves_the_climb_alone(brain: Path, tmp_path: Path) -> None:
    train(tmp_path, *CLIMBING, "--save-every=0")
    (broken_off,), (climb,) = (read_log(each, "adaptive_lr_climb") for each in (brain, tmp_path / "brain"))
    assert climb["step"] > broken_off["step"]
    assert "a checkpoint was due" not in climb["reason"]


@pytest.mark.slow
def test_independent_workers_hand_in_the_weights_that_stay(tmp_path: Path) -> None:
    """A climb that ended only after the merge would put weights of before it in the place of the merged ones."""
    several = ("--parallel-independent", "--world-size=2", "--merge-every=6", "--keep-checkpoints=100")
    train(tmp_path, *CLIMBING, "--eval-every=0", *several)
    brain = tmp_path / "brain"
    records = read_log(brain)
    merged = {r["step"]: at for at, r in enumerate(records) if r["event"] == "merge"}
    ended = [(r, at) for at, r in enumerate(records) if r["event"] == "adaptive_lr_climb" and r["step"] in merged]
    assert any("a checkpoint was due" in r["reason"] for r, _ in ended)
    for climb, at in ended:
        assert at < merged[climb["step"]]
        state = load_state(checkpoint_path(brain, climb["step"]))["adaptive_lr"][climb["rank"]]
        assert state["climb"] is None
        assert state["control"]["base_lr"] == climb["lr"]
