"""Which evaluations of a Lightning run are heeded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aios.auto_lr import AutoLRConfig
from aios.integrations.lightning import AutoLRCallback
from integrations.tiny_modules import Digits, loader, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers


class OfTwo(Digits):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val_loss", self.loss_of(batch))


def evaluated(folder: Path, config: AutoLRConfig, monitor: str = "val_loss") -> Any:
    callback = AutoLRCallback(config, monitor=monitor)
    trainer = make_trainer(folder, callback, max_steps=20, val_check_interval=10)
    trainer.fit(OfTwo(), loader(), [loader(), loader(64)])
    return callback.auto.evaluations


def test_where_no_evaluation_has_the_loss_one_sentence_says_what_to_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert evaluated(tmp_path, AutoLRConfig(profile="rules")).best is None
    (told,) = [message for message in caplog.messages if "heed" in message]
    assert told == (
        "AutoLR heeds no evaluation, for none has val_loss: name another loss by AutoLRCallback(monitor=...), such as "
        "val_loss/dataloader_idx_0, val_loss/dataloader_idx_1"
    )


@pytest.mark.parametrize(
    ("on_overfit", "monitor"), [("ignore", "val_loss"), ("keep-best", "val_loss/dataloader_idx_1")]
)
def test_nothing_is_said_where_there_is_nothing_to_set(
    tmp_path: Path, on_overfit: Any, monitor: str, caplog: pytest.LogCaptureFixture
) -> None:
    best = evaluated(tmp_path, AutoLRConfig(profile="rules", on_overfit=on_overfit), monitor).best
    assert (best is None) == (on_overfit == "ignore")
    assert not [message for message in caplog.messages if "heed" in message]
