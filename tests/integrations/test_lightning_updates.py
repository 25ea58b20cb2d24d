"""Updates that the module makes in its own way, under automatic optimization."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from aios.integrations.lightning import AutoLRCallback
from integrations.test_lightning import Handed
from integrations.test_lightning_trials import StopAfter
from integrations.tiny_modules import Digits, Events, loader, make_trainer, named
from integrations.tiny_trainers import as_if_trained

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers


class EveryOther(Digits):
    """Steps as Lightning's documentation of `optimizer_step` does, and keeps its losses."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.losses = list[float]()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(float(loss))
        return loss

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any = None) -> None:
        if batch_idx % 2:
            optimizer.step(closure=closure)
        else:
            closure()


@pytest.mark.parametrize("told", [True, False])
def test_a_module_that_steps_in_every_other_batch(tmp_path: Path, caplog: pytest.LogCaptureFixture, told: bool) -> None:
    events: Events = []
    callback, module = AutoLRCallback(steps=84 if told else None, log_fn=events.append), EveryOther()
    handed = Handed(callback)
    trainer = make_trainer(tmp_path, callback, handed, max_steps=-1, max_epochs=3)  # of 56 batches
    trainer.fit(module, loader())
    pairs = zip(module.losses[::2], module.losses[1::2], strict=True)
    assert handed.losses == pytest.approx([(one + other) / 2 for one, other in pairs])
    assert len(handed.losses) == 84
    assert bool(named(events, "adaptive_lr_anneal")) is told
    assert caplog.text.count("AutoLRCallback(steps=...)") == (0 if told else 1)


@pytest.mark.parametrize("at_least", [1, 2])
def test_a_training_that_goes_on_behind_its_end_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, at_least: int
) -> None:
    callback = AutoLRCallback(steps=40)
    trainer = make_trainer(tmp_path, callback, max_steps=-1, max_epochs=2, min_epochs=at_least, limit_train_batches=40)
    trainer.fit(Digits(), loader())
    assert callback.auto is not None
    assert callback.auto.step_count == 40
    assert trainer.global_step == 40 * at_least
    assert caplog.text.count("Lightning trains on (min_epochs or min_steps)") == at_least - 1


CLIP = 1e-3


class Descends(Digits):
    """Each update of SGD moves the weights by the rate times the norm of the gradient."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Configured(Descends):
    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=CLIP, gradient_clip_algorithm="norm")


class BeforeStep(Descends):
    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.log("clipped", 1.0)
        nn.utils.clip_grad_norm_(self.parameters(), CLIP)


class AfterBackward(Descends):
    def on_after_backward(self) -> None:
        nn.utils.clip_grad_norm_(self.parameters(), CLIP)


def race(folder: Path, module: Digits, **given: Any) -> list[Any]:
    events: Events = []
    torch.manual_seed(1)
    as_if_trained(module)  # type: ignore[arg-type]
    trainer = make_trainer(folder, AutoLRCallback(log_fn=events.append), StopAfter(2), max_steps=330, **given)
    trainer.fit(module, loader(shuffle=False))
    (told,) = named(events, "adaptive_lr_race")
    return [number for point in told["curve"] for number in point]


@pytest.mark.parametrize("kind", [Configured, BeforeStep, AfterBackward])
def test_a_race_clips_as_the_module_does(tmp_path: Path, kind: type[Digits]) -> None:
    by_trainer = race(tmp_path, Descends(), gradient_clip_val=CLIP)
    assert race(tmp_path, kind()) == pytest.approx(by_trainer, rel=1e-3)
    assert by_trainer != pytest.approx(race(tmp_path, Descends()), rel=0.1)


def test_a_race_clips_by_value(tmp_path: Path) -> None:
    class ByValue(Descends):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            nn.utils.clip_grad_value_(self.parameters(), CLIP)

    by_trainer = race(tmp_path, Descends(), gradient_clip_val=CLIP, gradient_clip_algorithm="value")
    assert by_trainer == race(tmp_path, ByValue())
    assert by_trainer != pytest.approx(race(tmp_path, Descends()), rel=0.1)


class SeesGradients(Descends):
    """Its hook needs what `training_step` has set, and tells the norm to something that no trial puts back."""

    def __init__(self, norms: Any) -> None:
        super().__init__()
        self.tell = norms.put

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.rows = len(batch[0])
        return super().training_step(batch, batch_idx)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self.tell(float(nn.utils.get_total_norm(gradients)) * self.rows / 32)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_hook_of_an_update_on_trial_finds_what_it_needs(tmp_path: Path, scaled: bool) -> None:
    norms: SimpleQueue[float] = SimpleQueue()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    given = {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]} if scaled else {}
    race(tmp_path, SeesGradients(norms), **given)
    assert norms.qsize() > 15
    assert all(0.01 < norms.get() < 50 for _ in range(norms.qsize()))
