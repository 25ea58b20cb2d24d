"""docs/adaptive_lr.md: its example runs and its table tells the truth."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aios.cli.hrm_hf.adaptive_lr import AdaptiveLRConfig, AdaptiveLRScheduler

PAGE = (Path(__file__).parents[3] / "docs" / "adaptive_lr.md").read_text()


def test_the_example_loop_runs_and_adjusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, "docs/adaptive_lr.md", "exec"), names)
    output = capsys.readouterr().out
    assert "adaptive_lr_adjustment" in output
    assert "adaptive_lr_summary" in output
    assert torch.load("checkpoint.pt", weights_only=True)["adaptive_lr"] == names["scheduler"].state_dict()


def test_the_table_lists_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+)", PAGE, re.MULTILINE))
    expected = {field.name: field.default for field in fields(AdaptiveLRConfig)}
    assert {name: json.loads(rows[name]) for name in expected} == expected


def test_the_example_log_lines_have_the_keys_of_real_ones() -> None:
    events: list[dict[str, Any]] = []
    config = AdaptiveLRConfig(window_size=2, cooldown_steps=0, patience=1)
    scheduler = AdaptiveLRScheduler(SimpleNamespace(param_groups=[{"lr": 1.0}]), config, log_fn=events.append)
    for _ in range(4):
        scheduler.step(1.0)
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    shown = [json.loads(line) for line in block.splitlines()]
    assert [list(event) for event in shown] == [list(event) for event in events]
