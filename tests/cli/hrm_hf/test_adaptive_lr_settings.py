"""The scheduler's settings: what is refused, what is derived, the bounds of a mixture of experts."""

from __future__ import annotations

import ast
import math
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aios.cli.hrm_hf import adaptive_lr
from aios.cli.hrm_hf.adaptive_lr import AdaptiveLRConfig, AdaptiveLRScheduler, default_warmup_steps, preflight_moe_lr

BAD_SETTINGS = [
    *[("initial_lr", value) for value in (0, -1e-3, math.nan, math.inf, True, "1e-3", None)],
    *[("lr_min", 0.0), ("lr_min", 1.0), ("lr_max", 1e-9), ("moe_lr_min", 1.0), ("moe_lr_max", 0.0)],
    *[("window_size", 1), ("window_size", 50.0), ("patience", 0), ("cooldown_steps", -1), ("patience", True)],
    *[("increase_threshold", 0.0005), ("plateau_threshold", 0.0), ("spike_threshold", 1.0)],
    *[("stability_threshold", 0.6), ("instability_threshold", 0.1), ("increase_factor", 0.99)],
    *[
        ("decrease_factor", 0.0),
        ("decrease_factor", 1.1),
        ("spike_factor", 0.0),
        ("max_change_per_step", 0.0),
    ],
    *[("max_change_per_step", 1.1), ("moe_increase_factor", 0.9), ("moe_decrease_factor", 1.5)],
    *[("rate_limit_spikes", 1), ("rate_limit_spikes", "yes")],
]


@pytest.mark.parametrize(("name", "value"), BAD_SETTINGS)
def test_a_bad_setting_is_refused_by_name_and_value(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="is not allowed: must be") as error:
        AdaptiveLRConfig(**{name: value})
    assert name in str(error.value)
    assert repr(value) in str(error.value)


def test_every_setting_has_a_docstring_under_it() -> None:
    tree = ast.parse(Path(adaptive_lr.__file__).read_text())
    (body,) = [n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "AdaptiveLRConfig"]
    settings = [i for i, node in enumerate(body) if isinstance(node, ast.AnnAssign)]
    assert len(settings) == len(fields(AdaptiveLRConfig)) == 20
    assert all(isinstance(getattr(body[i + 1], "value", None), ast.Constant) for i in settings)


def test_numpy_settings_become_plain_numbers() -> None:
    config = AdaptiveLRConfig(initial_lr=np.float32(0.5), window_size=np.int64(10))
    assert (type(config.initial_lr), type(config.window_size)) == (float, int)


def test_derived_settings() -> None:
    config = AdaptiveLRConfig.from_base_lr(None, 400)
    assert (config.initial_lr, config.lr_min, config.lr_max) == pytest.approx((5e-5, 5e-7, 1e-3))
    assert config.window_size == 20
    assert [AdaptiveLRConfig.from_base_lr(1e-3, n).window_size for n in (1, 200, 5000)] == [10, 10, 50]
    assert default_warmup_steps(305) == 30


def test_a_derived_bound_gives_way_to_an_explicit_one() -> None:
    config = AdaptiveLRConfig.from_base_lr(1e-5, 1000, lr_min=1e-3)
    assert (config.lr_min, config.lr_max, config.initial_lr) == (1e-3, 1e-3, 1e-3)
    config = AdaptiveLRConfig.from_base_lr(1e-5, 1000, initial_lr=1e-3)
    assert (config.lr_min, config.lr_max) == pytest.approx((1e-5, 2e-2))
    with pytest.raises(ValueError, match="lr_min"):
        AdaptiveLRConfig.from_base_lr(1e-5, 1000, lr_min=1e-3, lr_max=1e-4)


def test_moe_bounds() -> None:
    config = AdaptiveLRConfig.from_base_lr(5e-4, 1000, use_moe=True)
    assert (config.lr_min, config.lr_max) == (1e-5, 2e-3)
    assert (config.increase_factor, config.decrease_factor) == (1.05, 0.85)
    assert AdaptiveLRConfig.from_base_lr(5e-5, 1000, use_moe=True).lr_max == pytest.approx(1e-3)
    assert config.effective(use_moe=True) == config


@pytest.mark.parametrize(("lr", "moved"), [(1e-7, 1e-5), (1.0, 2e-3)])
def test_an_initial_rate_outside_the_moe_bounds_is_moved_and_said(lr: float, moved: float) -> None:
    for config in (
        AdaptiveLRConfig(initial_lr=lr),
        AdaptiveLRConfig.from_base_lr(lr, 1000),
        AdaptiveLRConfig.from_base_lr(lr, 1000, use_moe=True),
    ):
        events: list[dict] = []
        target = AdaptiveLRScheduler(
            SimpleNamespace(param_groups=[{"lr": 1e-3}]), config, use_moe=True, log_fn=events.append
        )
        assert [event["event"] for event in events] == ["moe_lr_adjustment", "adaptive_lr_init"]
        assert (events[0]["original_lr"], events[0]["adjusted_lr"]) == (lr, moved)
        assert target.get_last_lr() == [moved]
        assert target.config.lr_min <= moved <= target.config.lr_max


def test_preflight_clamp() -> None:
    assert preflight_moe_lr(2e-3)[0] == 1e-3
    assert preflight_moe_lr(9.9e-5)[0] == 1e-4
    assert preflight_moe_lr(2e-3)[1] is not None
    assert preflight_moe_lr(1e-4) == (1e-4, None)
    assert preflight_moe_lr(1.9e-3) == (1.9e-3, None)
