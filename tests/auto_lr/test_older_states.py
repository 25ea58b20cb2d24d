"""States that older versions saved are gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from aios.auto_lr import AutoLR, AutoLRConfig
from auto_lr.problems import adamw, classifier, train

OLDER = Path(__file__).parents[1] / "older_checkpoints"


def test_the_first_form_of_auto_lr_goes_on_as_it_did() -> None:
    saved = torch.load(OLDER / "auto_lr.pt", weights_only=True)
    then = json.loads((OLDER / "auto_lr.json").read_text(encoding="utf-8"))
    model, forward = classifier()
    optimizer = adamw(model)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    auto = AutoLR(model, optimizer, 400, AutoLRConfig(count_search=True))
    auto.load_state_dict(saved["auto"])
    losses, lrs = train(auto, forward)
    assert lrs == pytest.approx(then["lrs"])
    assert losses == pytest.approx(then["losses"], rel=1e-3)
