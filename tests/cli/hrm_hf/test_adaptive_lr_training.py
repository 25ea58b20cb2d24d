"""The scheduler in real training: torch models, optimizers and losses; the four scenarios of the design."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch

from aios.cli.hrm_hf.adaptive_lr import AdaptiveLRConfig, AdaptiveLRScheduler

Events = list[dict[str, Any]]


def regression(noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, torch.nn.Module]:
    """Inputs, targets and an untrained linear model; SGD on all of it is stable up to a rate of about 0.7."""
    torch.manual_seed(0)
    inputs = torch.randn(256, 8)
    targets = inputs @ torch.randn(8, 1) + noise * torch.randn(256, 1)
    model = torch.nn.Linear(8, 1)
    torch.nn.init.zeros_(model.weight)
    return inputs, targets, model


def train(
    lr: float, steps: int, data: tuple[torch.Tensor, torch.Tensor, torch.nn.Module], batch: int = 128, **settings: Any
) -> tuple[AdaptiveLRScheduler, Events, list[float]]:
    """Plain SGD in batches of `batch`; an update with a non-finite loss is skipped. Returns the losses too."""
    inputs, targets, model = data
    events: Events = []
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    use_moe = settings.pop("use_moe", False)
    config = AdaptiveLRConfig.from_base_lr(lr, steps, use_moe, **settings)
    scheduler = AdaptiveLRScheduler(optimizer, config, use_moe, events.append)
    losses = []
    for _ in range(steps):
        rows = torch.randperm(len(inputs))[:batch]
        loss = torch.nn.functional.mse_loss(model(inputs[rows]), targets[rows])
        optimizer.zero_grad()
        if torch.isfinite(loss):
            loss.backward()
            optimizer.step()
        scheduler.step(loss)
        losses.append(loss.item())
    return scheduler, [event for event in events if event["event"] == "adaptive_lr_adjustment"], losses


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_healthy_training_raises_the_rate_then_settles() -> None:
    scheduler, events, losses = train(1e-3, 3000, regression(noise=0.5))
    decisions = [event["decision"] for event in events]
    peak = max(event["new_lr"] for event in events)
    assert decisions[:3] == ["increase"] * 3
    assert peak > 2 * 1e-3
    assert decisions[-1] == "decrease"
    assert scheduler.current_lr < peak
    _, _, untouched = train(1e-3, 3000, regression(noise=0.5), increase_factor=1.0, decrease_factor=1.0)
    assert mean(losses[600:700]) < 0.8 * mean(untouched[600:700])


def test_stuck_training_lowers_the_rate_once_patience_is_spent() -> None:
    inputs, _, model = regression()
    data = (inputs, torch.full((256, 1), 2.0), model)
    model.requires_grad_(False)  # nothing can be learned: the loss stays where it is
    model.bias.requires_grad_(True)
    scheduler, events, _ = train(1e-12, 400, data, window_size=10, patience=60)
    assert events[0]["decision"] == "decrease"
    assert events[0]["step"] == 70  # the first window has no predecessor, then six windows of ten
    assert {event["decision"] for event in events} == {"decrease"}
    assert scheduler.current_lr < 1e-12


def test_diverging_training_is_braked_and_recovers() -> None:
    _, events, losses = train(0.8, 600, regression(), batch=256, window_size=10, cooldown_steps=15)
    assert (events[0]["step"], events[0]["decision"]) == (20, "spike_decrease")
    assert events[0]["new_lr"] == pytest.approx(0.4)
    assert max(losses[:30]) > 10 * losses[0]
    assert losses[-1] < losses[0] / 100
    _, _, unbraked = train(0.8, 600, regression(), batch=256, spike_factor=1.0, decrease_factor=1.0)
    assert not unbraked[-1] < 1e6


def test_a_mixture_of_experts_gets_tighter_bounds_and_gentler_steps() -> None:
    plain, plain_events, _ = train(8e-4, 2000, regression(noise=0.5))
    moe, moe_events, _ = train(8e-4, 2000, regression(noise=0.5), use_moe=True)
    first = moe_events[0]
    assert first["new_lr"] / first["old_lr"] == pytest.approx(1.05)
    assert plain_events[0]["new_lr"] / plain_events[0]["old_lr"] == pytest.approx(1.1)
    assert moe.config.lr_min == 1e-5 > plain.config.lr_min
    assert moe.config.lr_max < plain.config.lr_max
    assert max(moe.lr_history) <= 2e-3
    assert max(moe.lr_history) < max(plain.lr_history)


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.AdamW])
def test_with_real_training_loop(optimizer_class: type[torch.optim.Optimizer]) -> None:
    inputs, targets, _ = regression()
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 2e-3}]
    optimizer = optimizer_class(groups, lr=1e-3)
    scheduler = AdaptiveLRScheduler(optimizer, AdaptiveLRConfig.from_base_lr(1e-3, 400))
    first = last = math.inf
    for step in range(400):
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert scheduler.step(loss) == optimizer.param_groups[0]["lr"]
        assert optimizer.param_groups[1]["lr"] == pytest.approx(2 * scheduler.get_lr())
        first, last = (loss.item() if step == 0 else first), loss.item()
    assert last < first / 2
    assert scheduler.adjustments_made >= 1


def loss_at(step: int) -> float:
    return 3 + math.sin(step) - 0.02 * step if step < 60 else math.nan if step == 73 else 2 + math.cos(step) / 9


def test_checkpoint_resume() -> None:
    """A run saved in the middle of a window with torch.save goes on exactly as if it had never stopped."""

    def build() -> AdaptiveLRScheduler:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
        return AdaptiveLRScheduler(optimizer, AdaptiveLRConfig.from_base_lr(1e-3, 300), start_step=30)

    straight, before, after = build(), build(), build()
    expected = [straight.step(loss_at(step)) for step in range(270)]
    found = [before.step(loss_at(step)) for step in range(77)]
    file = io.BytesIO()
    torch.save({"adaptive_lr": before.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)["adaptive_lr"]
    assert state["window"]
    after.load_state_dict(state)
    assert after.get_last_lr() == [found[-1]]
    found += [after.step(loss_at(step)) for step in range(77, 270)]
    assert found == expected
    assert len(set(expected)) > 3
    assert after.state_dict() == straight.state_dict()


class UnreadableTensor(torch.Tensor):
    """A tensor that says it lives on an accelerator and counts how often it is read back."""

    reads = 0

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    def item(self) -> float:
        UnreadableTensor.reads += 1
        return super().item()

    def tolist(self) -> Any:
        UnreadableTensor.reads += 1
        return super().tolist()


def on_accelerator(value: float) -> torch.Tensor:
    return torch.tensor([value]).as_subclass(UnreadableTensor)


def build_with_window(window_size: int) -> tuple[AdaptiveLRScheduler, Events]:
    events: Events = []
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    config = AdaptiveLRConfig(initial_lr=1e-3, window_size=window_size, patience=1, cooldown_steps=0)
    return AdaptiveLRScheduler(optimizer, config, log_fn=events.append), events


def test_losses_on_an_accelerator_are_read_once_per_window() -> None:
    UnreadableTensor.reads = 0
    scheduler, events = build_with_window(4)
    buffer = on_accelerator(0.0)
    for step in range(8):
        buffer.fill_(step + 1.0)  # the caller reuses its buffer
        scheduler.step(buffer)
        assert UnreadableTensor.reads == (step + 1) // 4
    assert [event["reason"] for event in events[1:]] == ["loss_spike (6.5 vs 2.5)"]


def test_unread_losses_are_saved_with_the_state_and_keep_their_order() -> None:
    scheduler, events = build_with_window(4)
    for loss in (1.0, on_accelerator(2.0), on_accelerator(math.nan), on_accelerator(3.0), 4.0):
        scheduler.step(loss)
    assert scheduler.state_dict()["window"] == [3.0, 4.0]
    scheduler.step(on_accelerator(5.0))
    assert scheduler.state_dict()["window"] == [3.0, 4.0, 5.0]
    fresh, _ = build_with_window(4)
    for loss in (on_accelerator(1.0), 2.0):
        fresh.step(loss)
    assert fresh.state_dict()["window"] == [1.0, 2.0]
    assert [(event["step"], event["reason"]) for event in events[1:]] == [(4, "non_finite_loss")]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_losses_on_a_real_cuda_device_decide_like_plain_numbers() -> None:
    on_device, _ = build_with_window(5)
    plain, _ = build_with_window(5)
    for step in range(60):
        on_device.step(torch.tensor(loss_at(step), dtype=torch.float64, device="cuda", requires_grad=True))
        plain.step(loss_at(step))
    assert on_device.state_dict() == plain.state_dict()


def test_a_tensor_learning_rate_stays_the_same_tensor() -> None:
    rate = torch.tensor(1e-3)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    config = AdaptiveLRConfig(initial_lr=5e-4, window_size=2, cooldown_steps=0)
    scheduler = AdaptiveLRScheduler(optimizer, config)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(5e-4)
    scheduler.step(math.nan)
    assert rate.item() == pytest.approx(2.5e-4)
    assert scheduler.get_last_lr() == pytest.approx([2.5e-4])
