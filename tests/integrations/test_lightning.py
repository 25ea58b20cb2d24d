"""`AutoLRCallback` under Lightning's own Trainer."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from aios.auto_lr import AutoLRConfig, TroubleConfig
from aios.errors import RunError, UserError
from aios.integrations.lightning import STOPPED, AutoLRCallback
from aios.integrations.look_ahead import generators_of
from integrations.lightning_finders import Kept
from integrations.tiny_modules import DATA, Digits, Events, Manual, loader, make_trainer, named
from integrations.tiny_trainers import adjust_by_hand, as_if_trained, same, weights


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own, about workers and loggers
        yield


class Scheduled(Digits):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_fresh_model_climbs_and_learns(tmp_path: Path, accumulate: int) -> None:
    events: Events = []
    callback, module = AutoLRCallback(log_fn=events.append), Digits()
    trainer = make_trainer(
        tmp_path, callback, LearningRateMonitor("step"), max_steps=120, accumulate_grad_batches=accumulate,
        gradient_clip_val=1.0, logger=CSVLogger(tmp_path), log_every_n_steps=20,
    )  # fmt: skip
    trainer.fit(module, loader(), loader(64))
    assert trainer.global_step == 120
    assert named(events, "adaptive_lr_climb")[0]["lr"] is not None
    assert trainer.callback_metrics["val_loss"] < 0.5  # by default 1.4
    header = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()[0].split(",")
    assert {"auto_lr/learning_rate", "auto_lr/found_lr", "lr-AdamW"} <= set(header)


def test_the_shorter_accumulation_at_the_end_of_an_epoch_has_a_whole_loss(tmp_path: Path) -> None:
    events: Events = []
    trainer = make_trainer(
        tmp_path, AutoLRCallback(log_fn=events.append), max_steps=130, accumulate_grad_batches=2, limit_train_batches=3
    )  # every other step has but one batch, and a cycle has an odd number of steps
    trainer.fit(Digits(), loader())
    early = [loss for _, loss in named(events, "adaptive_lr_climb")[0]["curve"][:2]]  # at rates that train little
    assert min(early) > 0.9 * max(early)


class RateOf(pl.Callback):
    """Uses the rates that another run used."""

    def __init__(self, rates: list[float]) -> None:
        self.rates = list(rates)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        optimizer.param_groups[0]["lr"] = self.rates.pop(0)


class Rates(pl.Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])
        if len(self.seen) == 3:
            trainer.should_stop = True


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_race_leaves_nothing_behind(tmp_path: Path, accumulate: int) -> None:
    """The steps that follow are those of a trainer that never raced, at the same rates: bit for bit."""
    events: Events = []
    raced, plain, rates = Digits(), Digits(), Rates()
    for module in (raced, plain):
        torch.manual_seed(1)
        as_if_trained(module)  # type: ignore[arg-type]
        torch.manual_seed(2)
        steered = [AutoLRCallback(log_fn=events.append), rates] if module is raced else [RateOf(rates.seen)]
        given = {"max_steps": 400} if module is raced else {"max_steps": 3}
        make_trainer(tmp_path, *steered, gradient_clip_val=0.5, accumulate_grad_batches=accumulate, **given).fit(
            module, loader()
        )
    assert named(events, "adaptive_lr_race")[0]["search_steps"] > 15
    assert len(rates.seen) == 3
    assert float(raced.trained.compute()) == 3 * accumulate
    assert same(weights(raced), weights(plain))


@pytest.mark.slow
def test_the_same_callback_serves_several_runs(tmp_path: Path) -> None:
    events: Events = []
    callback = AutoLRCallback(log_fn=events.append)
    for _ in range(2):
        pl.seed_everything(0)  # the order of the batches
        make_trainer(tmp_path, callback).fit(Digits(), loader())
    first, second = named(events, "adaptive_lr_climb")
    assert (first["step"], first["lr"]) == (second["step"], second["lr"])
    assert first["lr"] is not None


def test_the_rate_that_is_logged_is_that_of_the_step(tmp_path: Path) -> None:
    used: list[float] = []

    class Uses(Digits):
        def optimizer_step(self, epoch: Any, batch_idx: Any, optimizer: Any, closure: Any = None) -> None:
            used.append(optimizer.param_groups[0]["lr"])
            optimizer.step(closure=closure)

    told, kept = AutoLRCallback(), Kept()
    make_trainer(tmp_path, told, max_steps=120, logger=kept, log_every_n_steps=1).fit(Uses(), loader())
    rates = [record["auto_lr/learning_rate"] for record in kept.records if "auto_lr/learning_rate" in record]
    assert len(set(rates)) > 20
    assert rates == used


@pytest.mark.parametrize(
    "given",
    [
        {"log_every_n_steps": 0},
        {"barebones": True, "logger": None, "enable_checkpointing": None}
        | {"enable_progress_bar": None, "enable_model_summary": None},
    ],
)
def test_a_trainer_that_never_logs(tmp_path: Path, given: dict[str, Any]) -> None:
    callback = AutoLRCallback()
    make_trainer(tmp_path, callback, max_steps=3, **given).fit(Digits(), loader())
    assert callback.auto is not None
    assert callback.auto.step_count == 3


def test_each_fit_counts_its_own_adjustments(tmp_path: Path) -> None:
    events: Events = []
    callback = AutoLRCallback(log_fn=events.append)
    for _ in range(2):
        kept = Kept()
        make_trainer(tmp_path, callback, max_steps=3, logger=kept, log_every_n_steps=1).fit(Digits(), loader())
        counts = [record["auto_lr/adjustments"] for record in kept.records if "auto_lr/adjustments" in record]
        assert counts == [0.0] * 3
        adjust_by_hand(callback.auto)
    assert len(named(events, "adaptive_lr_adjustment")) == 2


def test_fit_called_twice_is_no_strangers_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer, module = make_trainer(tmp_path, AutoLRCallback(), max_steps=-1, max_epochs=1), Digits()
    trainer.fit(module, loader())
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, loader())
    assert "was not trained with AutoLR" not in caplog.text


def test_accumulation_that_changes_by_epochs_is_counted_as_it_comes(tmp_path: Path) -> None:
    callback = AutoLRCallback()
    trainer = make_trainer(tmp_path, callback, GradientAccumulationScheduler({0: 1, 2: 2}), max_epochs=6)
    trainer.fit(Digits(), loader())
    assert callback.auto is not None
    assert callback.auto.step_count == callback.auto.steps == trainer.global_step


def test_manual_optimization_with_two_optimizers(tmp_path: Path) -> None:
    events: Events = []
    callback = AutoLRCallback(log_fn=events.append)
    handed = Handed(callback)
    trainer = make_trainer(tmp_path, callback, handed, max_steps=200)  # Lightning counts each optimizer's steps
    trainer.fit(Manual(), loader(), loader(64))
    assert callback.auto.steps == 100
    assert callback.auto.step_count == 100
    assert named(events, "adaptive_lr_climb")[0]["lr"] is not None
    assert min(handed.norms) > 1e-2  # the module clips at 1e-3
    assert trainer.callback_metrics["val_loss"] < 1


class Handed(pl.Callback):
    """The losses and norms that the controller was handed."""

    def __init__(self, callback: AutoLRCallback) -> None:
        self.callback, self.losses, self.norms = callback, list[float](), list[float]()

    def on_train_start(self, *_: Any) -> None:
        follow = self.callback.auto.after_step

        def after_step(loss: Tensor, norm: Tensor) -> None:
            self.losses.append(float(loss))
            self.norms.append(float(norm))
            follow(loss, norm)

        self.callback.auto.after_step = after_step


@pytest.mark.parametrize("kind", [Digits, Manual])
def test_a_loss_scale_stays_outside(tmp_path: Path, kind: type[Digits]) -> None:
    callback = AutoLRCallback()
    handed, scaler = Handed(callback), torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaled = MixedPrecision("16-mixed", "cpu", scaler)
    clips = {} if kind is Manual else {"gradient_clip_val": 0.01}
    trainer = make_trainer(tmp_path, callback, handed, max_steps=8, plugins=[scaled], **clips)
    trainer.fit(kind(), loader())
    assert len(handed.losses) == (4 if kind is Manual else 8)
    assert all(2 < loss < 2.6 for loss in handed.losses)  # ln 10 = 2.3
    assert all(0.05 < norm < 5 for norm in handed.norms)
    assert callback.auto.engine.scales_loss


@pytest.mark.slow
@pytest.mark.parametrize("trained", [False, True])
def test_bf16_and_a_compiled_part(tmp_path: Path, trained: bool) -> None:
    events: Events = []
    module = Digits()
    if trained:
        as_if_trained(module)  # type: ignore[arg-type]
    module.net.compile(backend="eager")
    steps = 330 if trained else 120
    trainer = make_trainer(tmp_path, AutoLRCallback(log_fn=events.append), max_steps=steps, precision="bf16-mixed")
    trainer.fit(module, loader(), loader(64))
    assert trainer.global_step == steps
    assert named(events, "adaptive_lr_race" if trained else "adaptive_lr_climb")[0]["lr"] is not None
    assert trainer.callback_metrics["val_loss"] < 0.6


@pytest.mark.parametrize("epochs", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, epochs: int) -> None:
    """Without dropout and shuffling, whose random numbers Lightning does not save."""

    def run(checkpoint: Path | None) -> dict[str, Tensor]:
        keeps = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        module = Digits(dropout=0)
        trainer = make_trainer(tmp_path, AutoLRCallback(), keeps, max_steps=-1, max_epochs=4, enable_checkpointing=True)
        trainer.fit(module, loader(64, shuffle=False), ckpt_path=checkpoint)
        return weights(module)

    unbroken = run(None)
    assert same(run(tmp_path / f"epoch={epochs - 1}.ckpt"), unbroken)


class Spoiled(Digits):
    def loss_of(self, batch: Any) -> Tensor:
        loss = super().loss_of(batch)
        spoils = self.training and self.trainer.global_step >= 10
        return loss * math.nan if spoils else loss


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_whose_loss_is_not_finite_changes_nothing(tmp_path: Path, fused: bool) -> None:
    changed: list[bool] = []

    class SpoiledOnce(Digits):
        def loss_of(self, batch: Any) -> Tensor:
            return super().loss_of(batch) * (math.nan if self.trainer.global_step == 3 else 1)

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-3, fused=fused)

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            self.before = weights(pl_module)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            changed.append(not same(self.before, weights(pl_module)))

    make_trainer(tmp_path, AutoLRCallback(), Watch(), max_steps=6, gradient_clip_val=1.0).fit(SpoiledOnce(), loader())
    assert changed == [True] * 3 + [False] + [True] * 2


def test_a_run_that_cannot_be_saved_ends_with_a_checkpoint(tmp_path: Path) -> None:
    trouble = TroubleConfig(non_finite_patience=4, max_rewinds=1)
    callback = AutoLRCallback(AutoLRConfig(trouble=trouble))
    with pytest.raises(RunError, match="learning rate"):
        make_trainer(tmp_path, callback, max_steps=79).fit(Spoiled(), loader())
    saved = torch.load(tmp_path / STOPPED, weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in saved["state_dict"].values())
    assert saved["global_step"] < 30


def test_a_scheduler_of_the_users_own_is_overruled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    events: Events = []
    trainer = make_trainer(tmp_path, AutoLRCallback(log_fn=events.append), max_steps=80)
    trainer.fit(Scheduled(), loader())
    assert sum("the scheduler of configure_optimizers is overruled" in record.message for record in caplog.records) == 1
    assert trainer.optimizers[0].param_groups[0]["lr"] < named(events, "adaptive_lr_climb")[0]["lr"] / 10  # annealed


def test_bad_calls(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="more than one stateful callback of type `AutoLRCallback`"):
        make_trainer(tmp_path, AutoLRCallback(), AutoLRCallback())

    class JoinsLate(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.callbacks.append(AutoLRCallback())

    with pytest.raises(UserError, match="training has begun"):
        make_trainer(tmp_path, JoinsLate()).fit(Digits(), loader())
    with pytest.raises(UserError, match="no end that Lightning knows of"):
        make_trainer(tmp_path, AutoLRCallback(), max_steps=-1, max_epochs=-1).fit(Digits(), loader())


def test_a_loader_of_one_batch_and_too_few_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = DataLoader(TensorDataset(DATA.tensors[0][:8], DATA.tensors[1][:8]), batch_size=8)
    events: Events = []
    module = Digits()
    as_if_trained(module)  # type: ignore[arg-type]
    rates = Rates()
    make_trainer(tmp_path, AutoLRCallback(log_fn=events.append), rates, max_steps=330).fit(module, one)
    assert named(events, "adaptive_lr_race")[0]["lr"] is not None
    make_trainer(tmp_path, AutoLRCallback(), max_steps=2).fit(Digits(), one)
    assert sum("too few steps" in record.message for record in caplog.records) == 1


class Unsized(IterableDataset[Any]):
    """Digits of which nobody knows how many there are."""

    def __iter__(self) -> Any:
        return iter([DATA[i] for i in range(64)])


def test_data_of_no_length_without_an_end_is_refused_in_one_sentence(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, AutoLRCallback(), max_steps=-1, max_epochs=3)
    with pytest.raises(UserError, match=r"no end that Lightning knows of: give max_steps, or AutoLRCallback\(steps"):
        trainer.fit(Digits(), DataLoader(Unsized(), batch_size=32))


def test_the_generators_of_several_loaders_are_all_brought_back(tmp_path: Path) -> None:
    generators = {name: torch.Generator().manual_seed(number) for number, name in enumerate("ab")}
    several = {name: DataLoader(DATA, batch_size=32, shuffle=True, generator=g) for name, g in generators.items()}
    assert set(map(id, generators_of({**several, "c": [several["a"]]}))) == set(map(id, generators.values()))


class Descending(Digits):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-2)


def test_a_checkpoint_holds_the_weights_that_were_evaluated(tmp_path: Path) -> None:
    kept = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=-1, filename="{step}")
    trainer = make_trainer(
        tmp_path, AutoLRCallback(), kept, max_steps=160, enable_checkpointing=True, val_check_interval=5,
        check_val_every_n_epoch=None,
    )  # fmt: skip
    trainer.fit(Descending(0.0), loader(), loader(shuffle=False))
    assert len(kept.best_k_models) > 20
    for path, told in kept.best_k_models.items():
        module = Descending(0.0)
        module.load_state_dict(torch.load(path, weights_only=False)["state_dict"])
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        (seen,) = pl.Trainer(accelerator="cpu", **quiet).validate(module, loader(shuffle=False), verbose=False)
        assert seen["val_loss"] == pytest.approx(float(told), rel=1e-4), path


def test_what_is_validated_after_training_is_no_evaluation_of_it(tmp_path: Path) -> None:
    events: Events = []
    callback, module = AutoLRCallback(AutoLRConfig(on_overfit="finish"), log_fn=events.append), Digits(0.0)
    trainer = make_trainer(
        tmp_path, callback, max_steps=150, num_sanity_val_steps=0, val_check_interval=15, check_val_every_n_epoch=None
    )
    trainer.fit(module, loader(), loader(shuffle=False))
    assert callback.auto is not None
    ends, best, told = weights(module), callback.auto.evaluations.best, len(events)
    strange = TensorDataset(DATA.tensors[0].flip(1), DATA.tensors[1])
    for _ in range(3):
        trainer.validate(module, DataLoader(strange, 32), verbose=False)
    assert same(weights(module), ends)
    assert callback.auto.evaluations.best == best
    assert len(events) == told
