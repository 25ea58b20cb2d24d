"""Updates left out under loss scaling (fp16): for an overflow, for a reason of ours, for both at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aios.auto_lr import AutoLR
from aios.auto_lr.loop.update import clip_and_update
from auto_lr.problems import adamw, classifier, fingerprint, sgd

CPU_AND_CUDA = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")),
]
MAKERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "fused adamw": lambda model: adamw(model, fused=True),
    "adamw": adamw,
    "fused sgd": lambda model: torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, fused=True),
    "sgd": sgd,
}
INTERVAL = 3
"""Steps without an overflow after which the scale doubles."""
SKIPS = ("overflow", "spike", "overflow and spike", "nan loss", "overflow and nan loss")
EVENTS = ("good", *SKIPS)


class Loop:
    """A training loop with loss scaling to which things happen."""

    def __init__(self, kind: str, device: str = "cpu") -> None:
        self.model, self._forward = classifier()
        self.model.to(device)
        self.optimizer = MAKERS[kind](self.model)
        self.scaler = torch.amp.GradScaler(device, init_scale=1024.0, growth_interval=INTERVAL)
        self.batch = 0

    def forward(self, batch: int) -> Tensor:
        """The loss; the data is made on the CPU."""
        model = self.model
        if next(model.parameters()).device.type == "cpu":
            return self._forward(batch)
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(batch)).cuda()
        return nn.functional.cross_entropy(model(x), (x[:, :10]).argmax(1))

    def step(self, event: str = "good") -> Tensor:
        """One step; returns its loss."""
        loss = self.forward(self.batch)
        self.batch += 1
        self.scaler.scale(loss).backward()
        if "overflow" in event:
            parameter = next(self.model.parameters())
            assert parameter.grad is not None
            parameter.grad[0, 0] = math.inf
        seen = loss * math.nan if "nan loss" in event else loss
        limit = 1e-9 if "spike" in event else math.inf
        clip_and_update(self.model, [self.optimizer], self.scaler, seen, 1.0, limit)
        return loss.detach()

    def weights_and_moments(self) -> list[Any]:
        return fingerprint(self.model, self.optimizer)[:2]


@pytest.mark.parametrize("device", CPU_AND_CUDA)
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("event", SKIPS)
def test_an_update_left_out_changes_no_weight_and_no_moment_and_only_an_overflow_lowers_the_scale(
    kind: str, event: str, device: str
) -> None:
    loop = Loop(kind, device)
    loop.step()
    before, scale = loop.weights_and_moments(), loop.scaler.get_scale()

    loop.step(event)

    assert loop.weights_and_moments() == before
    assert loop.scaler.get_scale() == (scale / 2 if "overflow" in event else scale)
    loop.step()
    assert loop.weights_and_moments() != before


@pytest.mark.parametrize("kind", MAKERS)
@given(events=st.lists(st.sampled_from(EVENTS), max_size=12))
@settings(max_examples=25, deadline=None)
def test_the_scale_follows_overflows_alone_and_the_weights_follow_good_steps_alone(
    kind: str, events: list[str]
) -> None:
    loop, scale, calm = Loop(kind), 1024.0, 0
    for event in events:
        before = loop.weights_and_moments()[0]
        loop.step(event)
        scale, calm = (scale / 2, 0) if "overflow" in event else (scale, calm + 1)
        if calm == INTERVAL:
            scale, calm = scale * 2, 0
        assert loop.scaler.get_scale() == scale
        assert (loop.weights_and_moments()[0] == before) == (event != "good")


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("event", SKIPS)
def test_a_very_first_update_left_out_leaves_nothing_behind(kind: str, event: str) -> None:
    loop, untouched = Loop(kind), Loop(kind)
    loop.step(event)
    untouched.batch = loop.batch
    for _ in range(3):
        loop.step()
        untouched.step()
    weights = [one.weights_and_moments()[0] for one in (loop, untouched)]
    assert torch.equal(*(torch.cat([torch.tensor(w).flatten() for w in one]) for one in weights))


@pytest.mark.parametrize("device", CPU_AND_CUDA)
@pytest.mark.parametrize("kind", MAKERS)
def test_training_goes_on_and_the_loss_falls_among_overflows_and_spikes(kind: str, device: str) -> None:
    loop = Loop(kind, device)
    events = [EVENTS[i // 10 % len(EVENTS)] if i % 10 == 9 else "good" for i in range(400)]
    losses = [float(loop.step(event)) for event in events]
    assert all(torch.isfinite(p).all() for p in loop.model.parameters())
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])


@pytest.mark.parametrize("device", CPU_AND_CUDA)
@pytest.mark.parametrize("event", SKIPS)
def test_nothing_of_an_update_left_out_stays_with_the_optimizer(event: str, device: str) -> None:
    loop = Loop("fused adamw", device)
    loop.step()
    loop.step(event)
    before = loop.weights_and_moments()[0]

    loop.forward(0).backward()
    loop.optimizer.step()

    assert loop.weights_and_moments()[0] != before


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("where", ["optimizer", "scaler"])
def test_a_run_goes_on_behind_an_interrupted_update_as_if_the_batch_came_for_the_first_time(
    where: str, kind: str, scaled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for interrupted in (True, False):
        model, forward = classifier()
        optimizer = MAKERS[kind](model)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
        auto = AutoLR(model, optimizer, 30, scaler=scaler)
        while not auto.finished:
            loss = forward(auto.batch)
            scaler.scale(loss).backward()
            if interrupted and auto.step_count == 10:
                with monkeypatch.context() as broken:
                    name = "step" if where == "optimizer" else "unscale_"
                    broken.setattr(optimizer if where == "optimizer" else scaler, name, interrupt)
                    with pytest.raises(KeyboardInterrupt):
                        auto.step(loss)
                assert not hasattr(optimizer, "found_inf")
                interrupted = False
                continue
            auto.step(loss)
        ends.append((fingerprint(model, optimizer), scaler.get_scale()))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("early", ["unscale_", "step"])
def test_a_scaler_that_was_used_before_the_step_is_named_with_the_remedy(early: str) -> None:
    model, forward = classifier()
    optimizer, scaler = adamw(model), torch.amp.GradScaler("cpu")
    auto = AutoLR(model, optimizer, 30, scaler=scaler)
    loss = forward(0)
    scaler.scale(loss).backward()
    getattr(scaler, early)(optimizer)
    with pytest.raises(ValueError, match=r"^the scaler has .* leave scaler.unscale_, scaler.step and scaler.update to"):
        auto.step(loss)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_fused_update_left_out_makes_the_host_wait_for_nothing() -> None:
    loop = Loop("fused adamw", "cuda")
    loop.step()
    for event in SKIPS:
        loss = loop.forward(0)
        loop.scaler.scale(loss).backward()
        torch.cuda.set_sync_debug_mode("error")  # what is asserted: torch raises where the host waits
        try:
            limit = 1e-9 if "spike" in event else math.inf
            clip_and_update(loop.model, [loop.optimizer], loop.scaler, loss, 1.0, limit)
        finally:
            torch.cuda.set_sync_debug_mode("default")
