"""What a run that stands in its warm-up says of itself: the step and the rate it has reached."""

from __future__ import annotations

from typing import Any

import pytest

from aios.auto_lr import AutoLR, AutoLRConfig
from aios.auto_lr.plan import Profile
from auto_lr.problems import adamw, classifier, train


@pytest.mark.parametrize("profile", ["auto", "rules"])
def test_stopped_and_gone_on_with_in_the_warmup_the_log_is_of_the_step_and_rate_reached(profile: Profile) -> None:
    events: list[dict[str, Any]] = []
    config = AutoLRConfig(profile=profile, warmup_steps=20)

    def begun() -> tuple[AutoLR, Any]:
        model, forward = classifier()
        return AutoLR(model, adamw(model, 1e-2), 100, config, events.append), forward

    auto, forward = begun()
    auto.pause_at(5)
    reached = train(auto, forward)[1][-1]
    auto.log_summary()
    assert reached == pytest.approx(1e-2 * 5 / 20)
    assert [e["final_lr"] for e in events if e["event"] == "adaptive_lr_summary"] == [reached]

    later, forward = begun()
    later.load_state_dict(auto.state_dict())
    restored = next(e for e in events if e["event"] == "adaptive_lr_restored")
    assert (restored["step"], restored["from_step"], restored["current_lr"]) == (5, 5, reached)
    assert max(e["step"] for e in events) == 5

    rates = train(later, forward)[1]
    assert rates[0] == pytest.approx(1e-2 * 6 / 20)
    later.log_summary()
    assert events[-1]["step"] == 100
