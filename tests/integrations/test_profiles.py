"""A profile that goes by the rate it is given searches for none, in any framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aios.auto_lr import AutoLRConfig
from aios.auto_lr.plan import Profile
from aios.integrations.lightning import AutoLRCallback as LightningCallback
from aios.integrations.transformers import AutoLRCallback
from integrations import tiny_modules
from integrations.test_accelerate import Run
from integrations.tiny_modules import Digits
from integrations.tiny_trainers import gpt2, make_trainer

Events = list[dict[str, Any]]
GIVEN = pytest.mark.parametrize("profile", ["rules", "fixed"])


def check_given(events: Events, lr: float) -> None:
    """The optimizer's 1e-3 is what was trained at: rules may have raised it a little."""
    assert not {"adaptive_lr_climb", "adaptive_lr_race"} & {event["event"] for event in events}
    (warm,) = [event for event in events if event["event"] == "warmup_complete"]
    assert warm["lr"] == 1e-3
    assert 5e-4 <= lr <= 2e-3


@GIVEN
def test_transformers(tmp_path: Path, profile: Profile) -> None:
    events: Events = []
    trainer = make_trainer(tmp_path, gpt2(), learning_rate=1e-3)
    AutoLRCallback.attach(trainer, AutoLRConfig(profile=profile), events.append)
    trainer.train()
    check_given(events, trainer.optimizer.param_groups[0]["lr"])


@GIVEN
def test_lightning(tmp_path: Path, profile: Profile) -> None:
    events: Events = []
    callback = LightningCallback(AutoLRConfig(profile=profile), log_fn=events.append)
    trainer = tiny_modules.make_trainer(tmp_path, callback)
    trainer.fit(Digits(), tiny_modules.loader())
    check_given(events, trainer.optimizers[0].param_groups[0]["lr"])


@GIVEN
def test_accelerate(profile: Profile) -> None:
    run = Run(gpt2(), 90, config=AutoLRConfig(profile=profile))
    run.train(90)
    check_given(run.events, run.optimizer.param_groups[0]["lr"])
