"""`AutoLRLoop` in a loop of the shape of Accelerate's examples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch.utils.data import DataLoader, IterableDataset, Subset
from transformers import PreTrainedModel, get_constant_schedule

from aios.errors import UserError
from aios.integrations.accelerate import AutoLRLoop
from integrations.tiny_trainers import Vowels, Windows, as_if_trained, bert, gpt2, same, weights

Events = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _one_accelerator_at_a_time() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class Run:
    """What a loop is made of, after `accelerator.prepare`; shuffled, and dropout is on."""

    def __init__(self, model: PreTrainedModel, steps: int, data: Any = None, accumulate: int = 1, **given: Any) -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        self.events: Events = []
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        loader = DataLoader(data or Windows(128), batch_size=4, shuffle=True)
        model.train()
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, optimizer, loader)
        given.setdefault("loader", self.loader)
        self.auto = AutoLRLoop(self.accelerator, self.model, self.optimizer, steps, log_fn=self.events.append, **given)

    def train(self, until: int, epoch: int = 0, skip: int = 0) -> None:
        while self.auto.auto.step_count < until:
            self.loader.set_epoch(epoch)
            rest = self.accelerator.skip_first_batches(self.loader, skip) if skip else self.loader
            epoch, skip = epoch + 1, 0
            for batch in rest:
                with self.accelerator.accumulate(self.model):
                    loss = self.model(**batch).loss
                    self.accelerator.backward(loss)
                    self.auto.step(loss)
                    self.optimizer.zero_grad()
                if self.auto.auto.step_count == until:
                    return


def named(events: Events, event: str) -> Events:
    return [record for record in events if record["event"] == event]


def test_a_fresh_model_climbs_and_learns() -> None:
    run = Run(gpt2(), 100)
    run.train(100)
    losses = [loss for _, loss in named(run.events, "adaptive_lr_climb")[0]["curve"]]
    assert run.auto.finished
    assert min(losses) < losses[0] - 0.3
    numbers = run.auto.numbers()
    assert numbers["auto_lr/climbing"] == 0
    assert numbers["auto_lr/learning_rate"] == numbers["learning_rate"]


def test_the_shorter_accumulation_at_the_end_of_an_epoch_has_a_whole_loss() -> None:
    run = Run(gpt2(), 100, Windows(12), accumulate=2)  # 3 batches an epoch: every other step has but one
    run.train(60)
    early = [loss for _, loss in named(run.events, "adaptive_lr_climb")[0]["curve"][:6]]  # at rates that train nothing
    assert min(early) > 0.95 * max(early)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_race_leaves_nothing_behind(accumulate: int) -> None:
    """The steps that follow are those of a plain loop at the same rates: bit for bit."""
    raced = Run(as_if_trained(bert()), 400, Vowels(128), accumulate)
    rates: list[float] = []
    begin = raced.auto.auto.before_step
    raced.auto.auto.before_step = lambda: rates.append(begin()) or rates[-1]
    raced.train(2)
    assert named(raced.events, "adaptive_lr_race")[0]["search_steps"] > 15
    ours = weights(raced.model)

    plain = Run(as_if_trained(bert()), 400, Vowels(128), accumulate)
    for done, batch in enumerate(plain.loader):
        with plain.accelerator.accumulate(plain.model):
            plain.accelerator.backward(plain.model(**batch).loss)
            if plain.accelerator.sync_gradients:
                plain.accelerator.clip_grad_norm_(plain.model.parameters(), 1.0)
            for group in plain.optimizer.param_groups:
                group["lr"] = rates[done // accumulate]
            plain.optimizer.step()
            plain.optimizer.zero_grad()
        if done + 1 == 2 * accumulate:
            break
    assert same(ours, weights(plain.model))


@pytest.mark.parametrize("at", [20, pytest.param(64, marks=pytest.mark.slow)])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, at: int) -> None:
    unbroken = Run(gpt2(), 80)
    unbroken.train(at)
    unbroken.accelerator.save_state(str(tmp_path))
    unbroken.train(80, epoch=at // 32, skip=at % 32)
    ours = weights(unbroken.model)

    resumed = Run(gpt2(1), 80)
    resumed.accelerator.load_state(str(tmp_path))
    resumed.train(80, epoch=at // 32, skip=at % 32)
    assert same(weights(resumed.model), ours)


def test_a_step_whose_loss_is_not_finite_changes_nothing() -> None:
    run = Run(gpt2(), 20)
    run.train(3)
    before = weights(run.model)
    loss = run.model(**next(iter(run.loader))).loss * math.nan
    run.accelerator.backward(loss)
    run.auto.step(loss)
    assert same(weights(run.model), before)
    run.train(5)
    assert not same(weights(run.model), before)


def test_bad_calls() -> None:
    run = Run(gpt2(), 2)
    with pytest.raises(UserError, match="steers this optimizer already"):
        AutoLRLoop(run.accelerator, run.model, run.optimizer, 2)
    run.train(1)
    with pytest.raises(ValueError, match="training has begun"):
        run.auto.load_state_dict(run.auto.state_dict())
    run.train(2)
    with pytest.raises(ValueError, match="all 2 steps are done"):
        run.train(3)
    with pytest.raises(ValueError, match="trains no parameter of the model"):
        Run(gpt2().requires_grad_(False), 80)


def test_a_bad_call_leaves_the_optimizer_free_for_the_corrected_one() -> None:
    run = Run(gpt2(), 2)
    run.auto.release()
    with pytest.raises(ValueError, match="steps"):
        AutoLRLoop(run.accelerator, run.model, run.optimizer, 0, run.loader)
    with pytest.raises(UserError, match=r"torch\.nn\.ModuleList\(models\)"):
        AutoLRLoop(run.accelerator, [run.model], run.optimizer, 2, run.loader)  # type: ignore[arg-type]
    run.auto = AutoLRLoop(run.accelerator, run.model, run.optimizer, 2, run.loader)
    run.train(2)
    assert run.auto.finished


def test_a_loader_of_one_batch() -> None:
    run = Run(as_if_trained(gpt2()), 330, Subset(Windows(), range(3)))
    run.train(2)
    assert named(run.events, "adaptive_lr_race")[0]["lr"] is not None


def test_fewer_steps_than_a_search_needs(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(gpt2(), 3)
    run.train(3)
    assert run.auto.finished
    assert sum("too few steps" in record.message for record in caplog.records) == 1


def test_another_scheduler_is_overruled(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(gpt2(), 20)
    scheduler = run.accelerator.prepare(get_constant_schedule(run.optimizer))
    rates = []
    for batch in run.loader:
        loss = run.model(**batch).loss
        run.accelerator.backward(loss)
        run.auto.step(loss)
        rates.append(run.optimizer.param_groups[0]["lr"])
        scheduler.step()
        if run.auto.finished:
            break
    assert rates[-1] == 0 or rates[-1] < rates[len(rates) // 2]  # annealed
    assert sum("scheduler that was prepared is overruled" in record.message for record in caplog.records) == 1


class Unsized(IterableDataset[Any]):
    """Windows of which nobody knows how many there are."""

    def __iter__(self) -> Iterator[Any]:
        return (Windows(128)[i] for i in range(128))


def test_a_loader_of_no_length_is_looked_ahead_of(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    model = as_if_trained(gpt2())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(Unsized(), batch_size=4))
    events: Events = []
    auto = AutoLRLoop(accelerator, model, optimizer, 120, loader, log_fn=events.append)
    for batch in loader:
        loss = model(**batch).loss
        accelerator.backward(loss)
        auto.step(loss)
        optimizer.zero_grad()
    assert named(events, "adaptive_lr_race")[0]["lr"] is not None


def test_a_list_of_batches_is_not_looked_ahead_of() -> None:
    run = Run(as_if_trained(gpt2()), 2)
    run.auto.release()
    batches = list(run.loader)
    run.auto = AutoLRLoop(run.accelerator, run.model, run.optimizer, 330, batches, log_fn=run.events.append)
    for batch in batches:
        loss = run.model(**batch).loss
        run.accelerator.backward(loss)
        run.auto.step(loss)
    assert run.auto.auto.step_count == len(batches)
    assert not named(run.events, "adaptive_lr_race")


def test_a_loop_that_has_ended_or_was_let_go_makes_room_for_another(tmp_path: Path) -> None:
    run = Run(gpt2(), 2)
    run.train(2)
    again = AutoLRLoop(run.accelerator, run.model, run.optimizer, 90)
    with pytest.raises(UserError, match="steers this optimizer already"):
        AutoLRLoop(run.accelerator, run.model, run.optimizer, 90)
    again.release()
    run.auto = AutoLRLoop(run.accelerator, run.model, run.optimizer, 90)
    run.train(3)
    run.accelerator.save_state(str(tmp_path))
    assert len(list(tmp_path.glob("custom_checkpoint_*"))) == 1


def test_weights_that_the_loss_has_of_its_own_are_guarded_as_the_models_are() -> None:
    run = Run(gpt2(), 60)
    own = torch.nn.Parameter(torch.zeros(()))
    run.auto.release()
    run.optimizer.add_param_group({"params": [own]})
    run.auto = AutoLRLoop(run.accelerator, run.model, run.optimizer, 60)
    for step in range(40):
        loss = run.model(**next(iter(run.loader))).loss + own.square()
        run.accelerator.backward(loss)
        if step == 30:
            own.grad = torch.full((), math.inf)
        run.auto.step(loss)
        assert math.isfinite(float(own))


class Scores(torch.nn.Linear):
    def forward(self, scored: torch.Tensor) -> torch.Tensor:
        return super().forward(scored)


@pytest.mark.parametrize("keyed", [False, True])
def test_a_model_that_tells_no_loss_of_a_batch_asks_for_one(keyed: bool) -> None:
    rows = [{"scored": row} if keyed else [row] for row in torch.randn(64, 8)]
    accelerator, fresh = Accelerator(cpu=True), Scores(8, 1)
    data = DataLoader(rows, batch_size=8)  # type: ignore[arg-type]
    model, optimizer, loader = accelerator.prepare(fresh, torch.optim.AdamW(fresh.parameters()), data)
    auto = AutoLRLoop(accelerator, model, optimizer, 330, loader)
    loss = model(torch.randn(8, 8)).mean()
    accelerator.backward(loss)
    kind = "dict" if keyed else "list"
    with pytest.raises(UserError, match=rf"the batches are {kind}s, .*loss_of=lambda batch: "):
        auto.step(loss)
