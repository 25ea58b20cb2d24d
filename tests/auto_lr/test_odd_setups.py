"""`AutoLR` where model, optimizer or loop are not the usual ones."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections import deque
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from aios.auto_lr import AutoLR, AutoLRConfig
from aios.auto_lr.loop.snapshot import Snapshot
from aios.auto_lr.param_groups import GroupSettings
from auto_lr.problems import adamw, classifier, train, train_plainly, trained_classifier
from auto_lr.searches import climb_of, step


def test_a_role_with_a_ratio_on_the_first_group_climbs_as_on_any_other() -> None:
    found = []
    for told in ("embed", "head"):
        model, forward = classifier()
        first, second = (layer for layer in model.modules() if isinstance(layer, nn.Linear))
        groups = [{"params": first.parameters(), "name": "embed"}, {"params": second.parameters(), "name": "head"}]
        events: list[dict[str, Any]] = []
        config = AutoLRConfig(groups={told: GroupSettings(lr_ratio=0.5)})
        auto = AutoLR(model, torch.optim.AdamW(groups, lr=1e-3), 300, config, events.append)
        looked = auto.look(forward)
        climb = climb_of(auto, forward, events)
        assert looked.lr == pytest.approx(climb["lr"], rel=0.5)
        found.append(climb["lr"])
    assert found[0] == pytest.approx(found[1], rel=1.0)


def test_layers_that_the_optimizer_does_not_train_hide_nothing() -> None:
    found = []
    for frozen in (True, False):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()).requires_grad_(not frozen)
        model, events = nn.Sequential(body, nn.Linear(64, 10)), list[dict[str, Any]]()

        def forward(batch: int, model: nn.Module = model) -> Tensor:
            x = torch.randn(32, 16, generator=torch.Generator().manual_seed(batch))
            return F.cross_entropy(model(x), x[:, :10].argmax(1))

        auto = AutoLR(model, torch.optim.AdamW(model[1].parameters(), lr=1e-3), 300, log_fn=events.append)
        found.append(climb_of(auto, forward, events)["lr"])
        assert all(p.grad is None for p in model[1].parameters())
    assert found[0] == found[1] > 1e-4


def test_layers_that_no_loss_reaches_hide_nothing() -> None:
    model, forward = classifier()
    whole = nn.ModuleList([model, *(nn.Linear(16, 16) for _ in range(3))])
    events: list[dict[str, Any]] = []
    auto = AutoLR(whole, adamw(whole), 300, log_fn=events.append)
    assert climb_of(auto, forward, events)["lr"] > 1e-4


class Shelf(torch.optim.SGD):
    """Keeps in its state what torch's own optimizers do not."""

    def step(self, closure: Any = None) -> None:
        """One step of SGD."""
        self.state["steps"] = self.state.get("steps", 0) + 1
        for parameter in self.param_groups[0]["params"]:
            own = self.state[parameter]
            own.setdefault("last", deque(maxlen=2)).append(parameter.detach().clone())
            own.setdefault("pair", (torch.zeros(()), 0))[0].add_(1)
        super().step(closure)


def shelved(optimizer: Shelf) -> list[Any]:
    """What `Shelf` keeps, as plain values."""
    states = [own for own in optimizer.state.values() if isinstance(own, dict)]
    return [optimizer.state["steps"], [[t.tolist() for t in own["last"]] + [float(own["pair"][0])] for own in states]]


def test_state_of_any_kind_comes_back_and_lets_a_run_pass() -> None:
    model, forward = classifier()
    optimizer = Shelf(model.parameters(), lr=1e-2)
    train_plainly(optimizer, forward, 3)
    snapshot, before = Snapshot(model, optimizer), copy.deepcopy(shelved(optimizer))
    for _ in range(2):
        train_plainly(optimizer, forward, 3)
        assert shelved(optimizer) != before
        snapshot.restore()
        assert shelved(optimizer) == before
    model, forward = classifier()
    auto = AutoLR(model, Shelf(model.parameters(), lr=1e-2), 200)
    auto.search(forward)
    assert len(train(auto, forward)[0]) == 200


class Centred(nn.Module):
    """Puts another tensor in the place of its buffer in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 4)
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        """Centre and map."""
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        return self.linear(x - self.mean)


def test_a_buffer_that_a_module_replaces_is_brought_back() -> None:
    model = Centred()
    snapshot = Snapshot(model, torch.optim.SGD(model.parameters(), lr=1e-2))
    for _ in range(2):
        model(torch.ones(3, 16))
        assert model.mean.abs().sum() > 0
        snapshot.restore()
        assert model.mean.abs().sum() == 0


def test_a_group_added_on_the_way_joins_and_survives_a_rewind() -> None:
    model, forward = classifier()
    first, second = (layer for layer in model.modules() if isinstance(layer, nn.Linear))
    optimizer = torch.optim.AdamW(first.parameters(), lr=1e-3)
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, optimizer, 200, log_fn=events.append)
    nan = itertools.chain([1.0] * 150, [float("nan")] * 20, itertools.repeat(1.0))
    while not auto.finished:
        if auto.step_count == 100:
            optimizer.add_param_group({"params": list(second.parameters()), "lr": 2e-3})
        loss = forward(auto.batch) * next(nan)
        loss.backward()
        auto.step(loss)
    assert any(event["event"] == "adaptive_lr_trouble" and event["rung"] == "rewind" for event in events)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[1] == pytest.approx(2 * rates[0])
    (told,) = (event for event in events if event["event"] == "adaptive_lr_group")
    assert (told["step"], told["group"], told["ratio"]) == (101, 1, pytest.approx(2.0))


def test_another_state_may_be_loaded_into_the_optimizer_before_the_first_step() -> None:
    model, forward = classifier()
    before = adamw(model)
    train_plainly(before, forward, 3)
    model, forward = classifier()
    optimizer = adamw(model)
    auto = AutoLR(model, optimizer, 20)
    optimizer.load_state_dict(before.state_dict())
    assert len(train(auto, forward)[0]) == 20


def test_a_scale_that_is_too_high_at_first_hides_no_rate_from_a_race() -> None:
    found = []
    for scale in (256.0, 2.0**30):
        model, forward = trained_classifier()
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        events: list[dict[str, Any]] = []
        auto = AutoLR(model, adamw(model), 400, log_fn=events.append, scaler=scaler)
        for parameter in model.parameters():
            parameter.register_hook(lambda grad: torch.where(grad.abs() > 1e4, torch.inf, grad))  # as fp16 has it
        auto.search(forward)
        (race,) = (event for event in events if event["event"] == "adaptive_lr_race")
        found.append(race["lr"])
    assert found[0] == found[1] is not None


def test_finishing_in_the_climb_says_why_it_ended() -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model), 200, log_fn=events.append)
    auto.search(forward)
    for _ in range(20):
        loss = forward(auto.batch)
        loss.backward()
        auto.step(loss)
    auto.finish_now()
    (climb,) = (event for event in events if event["event"] == "adaptive_lr_climb")
    assert "the run was asked to finish" in climb["reason"]
    assert "None" not in climb["reason"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_host_waits_for_the_device_only_where_a_climb_turns() -> None:
    model, _ = classifier()
    model.cuda()

    def forward(batch: int) -> Tensor:
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(batch)).cuda()
        return F.cross_entropy(model(x), x[:, :10].argmax(1))

    auto, waits = AutoLR(model, adamw(model, fused=True), 300), 0
    auto.search(forward)
    while not auto.finished:
        loss = forward(auto.batch)
        loss.backward()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                auto.step(loss)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits += any("synchroniz" in str(warning.message) for warning in told)
    assert waits < 75  # once for each cycle of the climb, and at its end


def test_weights_of_the_loss_are_clipped_and_taken_back_as_the_models_are() -> None:
    """A loss may have parameters of its own (the noise of each task); the optimizer alone knows them."""
    model, forward = classifier()
    noise = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([*model.parameters(), noise], lr=0.1)

    def loss_of(batch: int) -> Tensor:
        return forward(batch) * torch.exp(-noise) + noise

    auto = AutoLR(model, optimizer, 300, AutoLRConfig(max_grad_norm=1e-3))
    assert auto.look(loss_of).rates
    assert noise.item() == 0.0
    snapshot = auto.engine.snapshot()
    loss = loss_of(0)
    loss.backward()
    auto.step(loss)
    assert 0 < abs(noise.item()) < 1.001e-3 * 0.1
    snapshot.restore()
    assert noise.item() == 0.0


@pytest.mark.parametrize("rows", [32, 128])
def test_a_climb_in_bf16_begins_where_one_in_fp32_does(rows: int) -> None:
    """Its numbers round small updates away, but for those of biases that are zero."""
    first, ends = [], []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(16, 32), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
        for layer in (model[1], model[3]):
            nn.init.zeros_(layer.bias)
        model, events = model.to(dtype), list[dict[str, Any]]()

        def forward(batch: int, model: nn.Module = model) -> Tensor:
            x = torch.randint(16, (rows,), generator=torch.Generator().manual_seed(batch))
            return F.cross_entropy(model(x).float(), (x + 1) % 16)

        climb = climb_of(AutoLR(model, adamw(model), 300, log_fn=events.append), forward, events)
        first.append(climb["curve"][0][0])
        ends.append(forward(0).item())
    assert first[1] == pytest.approx(first[0], rel=0.7)
    assert max(ends) < 0.01


def ends(model: nn.Module, optimizer: torch.optim.Optimizer, loss_of: Any, steps: int, save_every: int = 0) -> float:
    """Loss over many batches after a run with a search, beside whose saves the state of now is kept."""
    auto = AutoLR(model, optimizer, steps)
    auto.search(loss_of)
    while not auto.finished:
        step(auto, loss_of)
        if save_every and auto.step_count % save_every == 0:
            auto.keep_snapshot()
    with torch.no_grad():
        return sum(float(loss_of(batch)) for batch in range(10_000, 10_050)) / 50


MAKES: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": torch.optim.AdamW,
    "adafactor": torch.optim.Adafactor,
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", MAKES)
def test_a_head_that_begins_with_zeros_is_trained_as_any_other(kind: str, frozen: bool) -> None:
    """Nothing behind it has a gradient at first, and one update outweighs all that the weights are: zero."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[2].bias)
    model[0].requires_grad_(not frozen)

    def loss_of(batch: int) -> Tensor:
        x = torch.randn(32, 8, generator=torch.Generator().manual_seed(batch))
        return nn.functional.mse_loss(model(x), x.sin().sum(1, keepdim=True))

    untrained = float(loss_of(0).detach())
    assert ends(model, MAKES[kind](p for p in model.parameters() if p.requires_grad), loss_of, 400) < 0.3 * untrained


def test_saves_do_not_keep_what_a_high_rate_has_ruined() -> None:
    """A loss that swings within the cycles of its best rates had hidden how clearly it fell before."""
    numbers = torch.Generator().manual_seed(1)
    x = torch.randn(4096, 16, generator=numbers)
    y = (x @ torch.randn(16, 8, generator=numbers) + 0.5 * torch.randn(4096, 8, generator=numbers)).argmax(1)

    def run(save_every: int) -> float:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))

        def loss_of(batch: int) -> Tensor:
            rows = torch.randint(0, 4096, (16,), generator=torch.Generator().manual_seed(batch + 1000))
            return nn.functional.cross_entropy(model(x[rows]), y[rows])

        return ends(model, torch.optim.SGD(model.parameters(), lr=0.1), loss_of, 1000, save_every)

    assert run(100) < 1.2 * run(0) < 0.6


def test_what_is_slow_to_show_that_it_learns_is_not_left_at_a_rate_that_teaches_nothing() -> None:
    """Embeddings, each of them in few batches: neither climb nor race sees a fall."""
    numbers = torch.Generator().manual_seed(0)
    people, things = torch.randn(1000, 4, generator=numbers), torch.randn(500, 4, generator=numbers)
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Embedding(1000, 8), nn.Embedding(500, 8)])
    for table in model:
        nn.init.normal_(table.weight, std=0.1)  # type: ignore[arg-type]

    def loss_of(batch: int) -> Tensor:
        drawn = torch.Generator().manual_seed(batch)
        i, j = (torch.randint(0, n, (64,), generator=drawn) for n in (1000, 500))
        return nn.functional.mse_loss((model[0](i) * model[1](j)).sum(1), (people[i] * things[j]).sum(1))

    assert ends(model, torch.optim.Adam(model.parameters()), loss_of, 1500) < 0.3  # 4.0 untrained


def test_another_default_number_type_is_no_obstacle() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        model, forward = nn.Linear(16, 16), torch.randn(4, 16)
        assert ends(model, torch.optim.AdamW(model.parameters()), lambda _: model(forward).pow(2).mean(), 100) < 0.1
    finally:
        torch.set_default_dtype(torch.float32)


def test_frozen_weights_that_are_kept_elsewhere_do_not_say_where_the_numbers_are() -> None:
    """As where a frozen base is offloaded, and adapters alone are at hand."""
    trained, forward = classifier()
    model = nn.ModuleList([nn.Linear(8, 8, device="meta").requires_grad_(False), trained])
    auto = AutoLR(model, adamw(trained), 100)
    auto.search(forward)
    losses, _ = train(auto, forward)
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
