"""What Lightning's users and its own tests ask of a rate finder: the modules, data and optimizers that it takes.

Asked of Lightning's and of `AutoLRCallback`, as in `test_lightning_finder`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import BaseFinetuning
from lightning.pytorch.tuner import Tuner
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from aios.auto_lr import AutoLR
from aios.errors import UserError
from aios.integrations.lightning import AutoLRCallback
from integrations.lightning_finders import BOTH, OURS, RACES, callback, curve
from integrations.tiny_modules import DATA, Digits, Events, Manual, loader, make_trainer, named
from integrations.tiny_trainers import as_if_trained

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers and loggers


@BOTH
def test_two_batches_accumulated_are_one_of_twice_the_size(tmp_path: Path, finder: str) -> None:
    module = Digits(dropout=0)
    as_if_trained(module)  # type: ignore[arg-type]
    whole = curve(tmp_path, finder, module, {"train_dataloaders": loader(64, shuffle=False)})
    halves = curve(tmp_path, finder, module, accumulate_grad_batches=2)
    assert len(halves) == len(whole)
    assert (halves == pytest.approx(whole, rel=1e-3)) is (finder == OURS)  # theirs has the second half's loss alone


class Digital(pl.LightningDataModule):
    def train_dataloader(self) -> Any:
        return loader(shuffle=False)


class Supplied(Digits):
    def train_dataloader(self) -> Any:
        return loader(shuffle=False)


@BOTH
def test_the_batches_may_come_from_a_datamodule_or_from_the_module(tmp_path: Path, finder: str) -> None:
    curves = []
    for module, data in ((Digits(), None), (Digits(), {"datamodule": Digital()}), (Supplied(), {})):
        pl.seed_everything(1)
        as_if_trained(module)  # type: ignore[arg-type]
        curves.append(curve(tmp_path, finder, module, data))
    assert curves[0] == curves[1] == curves[2]


class LeavesOut(Digits):
    """Leaves out the batches whose labels have an even sum."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) if int(batch[1].sum()) % 2 else None


@BOTH
def test_training_step_may_leave_batches_out(tmp_path: Path, finder: str) -> None:
    module = LeavesOut(dropout=0)
    as_if_trained(module)  # type: ignore[arg-type]
    losses = curve(tmp_path, finder, module)
    assert any(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("trained", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_batches_left_out_count_as_steps(tmp_path: Path, trained: bool) -> None:
    """As Lightning counts them: a run that is over is annealed."""
    events: Events = []
    module, ours = LeavesOut(), AutoLRCallback(log_fn=events.append)
    if trained:
        as_if_trained(module)  # type: ignore[arg-type]
    steps = 330 if trained else 120
    trainer = make_trainer(tmp_path, ours, max_steps=steps)
    trainer.fit(module, loader())
    assert ours.auto is not None
    assert trainer.global_step == ours.auto.step_count == steps
    (told,) = named(events, "adaptive_lr_race" if trained else "adaptive_lr_climb")
    assert trainer.optimizers[0].param_groups[0]["lr"] < told["lr"] / 20


class NotANumber(Digits):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (math.nan if batch_idx == 3 else 1)


@BOTH
def test_a_batch_whose_loss_is_not_finite(tmp_path: Path, finder: str) -> None:
    """It tells nothing of any rate: ours takes the lowest that it raced; theirs trains on it, and suggests none."""
    module = NotANumber()
    as_if_trained(module)  # type: ignore[arg-type]
    losses = curve(tmp_path, finder, module)
    assert math.isfinite(losses[-1]) is (finder == OURS)


class Prepared(Digits):
    """Needs what its own hooks prepare."""

    def on_train_start(self) -> None:
        self.smoothing = 0.1

    def on_train_epoch_start(self) -> None:
        self.losses = list[Tensor]()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.batch = batch_idx

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        assert self.batch == batch_idx
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1], label_smoothing=self.smoothing)
        self.losses.append(loss.detach())
        return loss


@BOTH
def test_the_modules_hooks_come_before_its_training_step(tmp_path: Path, finder: str) -> None:
    module = Prepared()
    as_if_trained(module)  # type: ignore[arg-type]
    assert curve(tmp_path, finder, module)


class Grouped(Digits):
    """The head learns ten times as fast."""

    def configure_optimizers(self) -> Any:
        body, head = self.net[0].parameters(), self.net[3].parameters()
        return torch.optim.AdamW([{"params": body}, {"params": head, "lr": 1e-2}], lr=1e-3)


@BOTH
@pytest.mark.parametrize("trained", [False, True])
def test_param_groups_keep_their_ratio(tmp_path: Path, finder: str, trained: bool) -> None:
    module, rates = Grouped(), list[float]()
    module.lr = 1e-3  # theirs asks for it
    if trained:
        as_if_trained(module)  # type: ignore[arg-type]

    class Ratio(pl.Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            body, head = optimizer.param_groups
            rates.append(head["lr"] / body["lr"])
            trainer.should_stop = len(rates) == 3

    make_trainer(tmp_path, callback(finder, update_attr=True), Ratio(), max_steps=RACES).fit(module, loader())
    assert rates == pytest.approx([10.0 if finder == OURS else 1.0] * 3)


class Descends(Digits):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def test_gradients_that_were_there_before_do_not_count(tmp_path: Path) -> None:
    """Lightning itself leaves those of each update where they are."""
    curves = []
    for stale in (0.0, 1e3):
        module = Descends(dropout=0)
        as_if_trained(module)  # type: ignore[arg-type]
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, stale)
        pl.seed_everything(1)
        curves.append(curve(tmp_path, OURS, module))
    assert curves[0] == curves[1]


class Once(IterableDataset[Any]):
    """Digits that can be drawn but once."""

    def __init__(self) -> None:
        self.drawn = 0

    def __iter__(self) -> Once:
        return self

    def __next__(self) -> Any:
        self.drawn += 1
        return DATA[self.drawn % len(DATA)]


@BOTH
def test_data_that_can_be_drawn_once(tmp_path: Path, finder: str) -> None:
    data, drawn = Once(), list[int]()

    class Drawn(pl.Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            drawn.append(data.drawn)
            trainer.should_stop = True

    module = Digits()
    as_if_trained(module)  # type: ignore[arg-type]
    batches = DataLoader(data, batch_size=32)
    make_trainer(tmp_path, callback(finder), Drawn(), max_steps=RACES).fit(module, batches)
    assert (drawn[0] <= 2 * 32) is (finder == OURS)


class Thaws(BaseFinetuning):
    """Trains the first layer from the second epoch on."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.net[0])

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.net[0], optimizer, lr=1e-4)


class Thawing(Digits):
    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-3)


def test_a_param_group_that_joins_on_the_way_is_refused_in_a_sentence(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, AutoLRCallback(), Thaws(), max_steps=RACES, limit_train_batches=3)
    with pytest.raises(UserError, match="param group joined the optimizer after training had begun"):
        trainer.fit(Thawing(), loader())


class OneByHand(Digits):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss_of(batch))
        optimizer.step()


def test_what_theirs_refuses(tmp_path: Path) -> None:
    """Ours takes all of it: several optimizers, manual optimization, a module without an attribute for the rate."""
    with pytest.raises(MisconfigurationException, match="single optimizer"):
        Tuner(make_trainer(tmp_path, None)).lr_find(Manual(), loader(), update_attr=False)
    with pytest.raises(AttributeError, match="lr"):
        Tuner(make_trainer(tmp_path, None)).lr_find(Digits(), loader())
    by_hand = Tuner(make_trainer(tmp_path, None)).lr_find(OneByHand(), loader(), num_training=20, update_attr=False)
    assert by_hand.suggestion() is None


def test_a_model_without_gradients(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trains no parameter of the model"):
        make_trainer(tmp_path, AutoLRCallback()).fit(Digits().requires_grad_(False), loader())


def test_batches_left_out_take_no_step_of_the_climb(tmp_path: Path) -> None:
    """The edge that is told is the highest rate that was tried, and a state saved in between is gone on with."""
    events: Events = []
    module, ours, tried = LeavesOut(), AutoLRCallback(log_fn=events.append), list[float]()

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            assert ours.auto is not None
            if ours.auto.climbing:
                tried.append(trainer.optimizers[0].param_groups[0]["lr"])
                other = LeavesOut()
                auto = AutoLR(other, other.configure_optimizers(), 200)
                auto.load_state_dict(ours.auto.state_dict())

    trainer = make_trainer(tmp_path, ours, Watch(), max_steps=200)
    trainer.fit(module, loader())
    (told,) = named(events, "adaptive_lr_climb")
    assert told["lr"] is not None
    assert max(tried) == pytest.approx(told["edge"])
