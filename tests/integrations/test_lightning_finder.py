"""What Lightning's users and its own tests ask of a rate finder: what a search leaves behind, and what follows it.

Asked of Lightning's and of `AutoLRCallback`: `Tuner.lr_find` runs the callback `LearningRateFinder`. Where that one
does not keep what ours keeps, the test says so.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.tuner import Tuner
from torch import Tensor

from aios.integrations.lightning import AutoLRCallback
from integrations.lightning_finders import BOTH, OURS, RACES, THEIRS, Kept, Trained, callback, curve
from integrations.tiny_modules import Digits, loader, make_trainer
from integrations.tiny_trainers import as_if_trained, same, weights

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers and loggers


class Watch(pl.Callback):
    """What there is when the training proper begins, and the first three batches, after which it ends."""

    def __init__(self) -> None:
        self.called, self.order = Counter[str](), list[int]()
        self.found: dict[str, Any] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *given: Any) -> None:  # as one who prepares no batch
        if not self.order:
            self.found = state_of(trainer, pl_module) | {"callbacks": dict(self.called)}
        self.order.append(int(given[0][1].sum()))
        trainer.should_stop = len(self.order) == 3

    def on_train_epoch_start(self, *_: Any) -> None:
        self.called["epochs"] += 1

    def on_train_batch_end(self, *_: Any) -> None:
        self.called["batches"] += 1

    def on_validation_start(self, *_: Any) -> None:
        self.called["validations"] += 1


def state_of(trainer: Any, module: Any) -> dict[str, Any]:
    loop = trainer.fit_loop
    return {
        "weights": {name: tensor.tolist() for name, tensor in weights(module).items()},
        "other buffers": module.mean.tolist(),
        "optimizer": str(trainer.optimizers[0].state_dict()["state"]),
        "random numbers": [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()],
        "counts": [trainer.global_step, trainer.current_epoch, loop.batch_idx, loop.total_batch_idx, loop.max_steps],
        "validation": [trainer.limit_val_batches, trainer.num_val_batches],
        "metrics": float(module.trained.sum_value),
        "attributes": len(module.outputs),
        "hooks": {name: count for name, count in module.calls.of.items() if name != "training_step"},
        "loggers": [list(logger.records) for logger in trainer.loggers],
        "numbers logged": dict(trainer.callback_metrics),
        "folder": sorted(str(path) for path in Path(trainer.default_root_dir).rglob("*")),
    }


def begun(folder: Path, *finders: pl.Callback) -> dict[str, Any]:
    """What `Watch` finds, with loggers, validation, checkpoints and early stopping about."""
    pl.seed_everything(2)
    module, watch = Trained(), Watch()
    others = [EarlyStopping("val_loss"), ModelCheckpoint(folder, every_n_train_steps=1)]
    given = {"enable_checkpointing": True, "num_sanity_val_steps": 0, "log_every_n_steps": 1}
    trainer = make_trainer(folder, None, *finders, watch, *others, logger=Kept(), max_steps=RACES, **given)
    trainer.fit(module, loader(), loader(256))
    return watch.found | {"order of the batches": watch.order}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By finder, and without one."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("none", THEIRS, OURS)}
    return {
        name: begun(folder, *([] if name == "none" else [callback(name, num_training_steps=60)]))
        for name, folder in folders.items()
    }


@BOTH
@pytest.mark.parametrize(
    ("what", "theirs_keeps"),
    [
        ("weights", True),  # and running statistics
        ("optimizer", True),
        ("counts", True),
        ("validation", True),
        ("callbacks", True),  # none was called
        ("loggers", True),  # none was told anything
        ("folder", True),  # no file is left
        ("other buffers", False),  # those that no checkpoint has
        ("random numbers", False),
        ("order of the batches", False),
        ("metrics", False),  # torchmetrics
        ("attributes", False),  # losses that training_step gathers in a list
        ("hooks", False),  # of the module: validation_step, on_train_epoch_end
        ("numbers logged", False),  # what callbacks read
    ],
)
def test_the_training_begins_as_if_nothing_had_been_searched(
    found: dict[str, dict[str, Any]], finder: str, what: str, theirs_keeps: bool
) -> None:
    kept = found[finder][what] == found["none"][what]
    assert kept is (finder == OURS or theirs_keeps), (found[finder][what], found["none"][what])


class Breaks(Trained):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.calls.of["training_step"] == 9:
            raise RuntimeError("a broken image")
        return super().training_step(batch, batch_idx)


@BOTH
def test_a_search_that_fails_surfaces_and_leaves_the_weights_alone(tmp_path: Path, finder: str) -> None:
    module = Breaks()
    before, logger = weights(module), Kept()
    trainer = make_trainer(tmp_path, callback(finder), max_steps=RACES, logger=logger)
    with pytest.raises(RuntimeError, match="a broken image"):
        trainer.fit(module, loader())
    assert same(weights(module), before)
    assert (trainer.logger is logger) is (finder == OURS)
    assert "log" not in vars(module)


@BOTH
def test_a_second_search_says_the_same(tmp_path: Path, finder: str) -> None:
    module = Digits()
    as_if_trained(module)  # type: ignore[arg-type]
    pl.seed_everything(1)
    first = curve(tmp_path, finder, module)
    pl.seed_everything(1)
    assert curve(tmp_path, finder, module) == first


def validations(folder: Path, *finders: pl.Callback) -> list[tuple[int, int]]:
    """The step and the number of batches of each."""
    seen: list[tuple[int, int]] = []

    class Validations(pl.Callback):
        def on_validation_end(self, trainer: Any, *_: Any) -> None:
            seen.append((trainer.global_step, trainer.num_val_batches[0]))

    stops, keeps = EarlyStopping("val_loss", patience=1, min_delta=9.0), ModelCheckpoint(folder, monitor="val_loss")
    given = {"val_check_interval": 20, "num_sanity_val_steps": 0, "enable_checkpointing": True}
    trainer = make_trainer(folder, None, *finders, Validations(), stops, keeps, max_steps=RACES, **given)
    module = Digits()
    as_if_trained(module)  # type: ignore[arg-type]
    trainer.fit(module, loader(), loader(256))
    assert stops.stopped_epoch == 0
    assert Path(keeps.best_model_path).is_file()
    return seen


@BOTH
def test_validation_early_stopping_and_checkpoints_go_on_as_without(tmp_path: Path, finder: str) -> None:
    seen = validations(tmp_path, callback(finder, num_training_steps=5))
    assert seen == [(20, 7), (40, 7)]


@BOTH
def test_a_resumed_run_is_not_searched_again(tmp_path: Path, finder: str) -> None:
    trained = []
    for steps, checkpoint in ((3, None), (6, tmp_path / "last.ckpt")):
        module, keeps = Trained(), ModelCheckpoint(tmp_path, save_last=True)
        trainer = make_trainer(tmp_path, callback(finder), keeps, max_steps=steps, enable_checkpointing=True)
        trainer.fit(module, loader(), ckpt_path=checkpoint)
        trained.append(module.calls.of["training_step"])
    assert trained[1] == (3 if finder == OURS else 20 + 6)  # theirs forgets the steps that were done, too


@BOTH
def test_a_fast_dev_run_is_no_search(tmp_path: Path, finder: str) -> None:
    module, search = Digits(), callback(finder)
    trainer = make_trainer(tmp_path, search, fast_dev_run=True)
    trainer.fit(module, loader(), loader(64))
    assert trainer.global_step == 1
    assert getattr(search, "optimal_lr", None) is None


def test_theirs_beside_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module, ours = Digits(), AutoLRCallback()
    trainer = make_trainer(tmp_path, ours, max_steps=5)
    looked = Tuner(trainer).lr_find(module, loader(), num_training=20, update_attr=False)
    assert len(looked.results["loss"]) == 20
    assert ours.auto is None
    trainer.fit(module, loader())
    assert ours.auto is not None
    assert ours.auto.step_count == 5
    assert "overruled" not in caplog.text
    make_trainer(tmp_path, callback(THEIRS), AutoLRCallback(), max_steps=2).fit(Digits(), loader())
    assert caplog.text.count("LearningRateFinder is overruled") == 1
