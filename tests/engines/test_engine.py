"""The trainer's engines: micro-batches and segments added up, scaled, and exchanged once."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from aios.cli.hrm_hf.optimization import build_optimizers
from aios.core.hrm_models import HRMConfig, HRMForCausalLM
from aios.core.hrm_models.batch import Batch
from aios.engines.device import Precision
from aios.engines.engine import DDPEngine, LocalEngine
from aios.engines.weight_average import WeightAverage
from forked import Forked

VOCABULARY, TIME, MICRO_BATCHES = 41, 16, 2
SCALE = 1024.0


def make_model() -> HRMForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_heads": 2, "h_layers": 1, "l_layers": 1, "halt_max_steps": 3}
    return HRMForCausalLM(HRMConfig(vocab_size=VOCABULARY, max_position_embeddings=TIME, **shape)).train()


def batch(number: int) -> Batch:
    rows = torch.randint(0, VOCABULARY, (2, TIME), generator=torch.Generator().manual_seed(number))
    return Batch(rows, rows)


def accumulated(per_segment: bool) -> tuple[Tensor, list[Tensor]]:
    """The numbers of a step, and the scaled gradients."""
    model = make_model()
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    precision = Precision(torch.float32, None, loss_scaling=True)
    engine = LocalEngine(
        model, build_optimizers(model, 1e-3, 0.1, "adamw"), scaler, torch.device("cpu"), 1.0, precision=precision,
        per_segment=per_segment,
    )  # fmt: skip
    numbers = torch.zeros(4)
    for i in range(MICRO_BATCHES):
        numbers += engine.accumulate(batch(i), torch.zeros(0), MICRO_BATCHES, last=i + 1 == MICRO_BATCHES)
    return engine.average(numbers), [p.grad for p in model.parameters() if p.grad is not None]


def test_segments_micro_batches_and_loss_scaling_add_up_to_the_mean_gradient() -> None:
    plain = make_model()
    for i in range(MICRO_BATCHES):
        (plain(**batch(i)._asdict()).loss / MICRO_BATCHES).backward()
    (whole, of_whole), (by_segment, of_segments) = accumulated(False), accumulated(True)
    torch.testing.assert_close(by_segment, whole)
    expected = [p.grad for p in plain.parameters() if p.grad is not None]
    assert len(of_whole) == len(of_segments) == len(expected)
    for each, other, grad in zip(of_whole, of_segments, expected, strict=True):
        torch.testing.assert_close(each / SCALE, grad)
        torch.testing.assert_close(other / SCALE, grad, rtol=1e-5, atol=1e-6)


def exchange(store: str) -> None:
    """Three steps of a process that stands alone in its group: what is exchanged, and what comes of it."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    model = make_model()
    engine = DDPEngine(
        model, build_optimizers(model, 1e-3, 0.1, "adamw"), torch.amp.GradScaler("cpu", enabled=False),
        torch.device("cpu"), 1.0, precision=Precision(torch.float32, None, loss_scaling=False), per_segment=True,
    )  # fmt: skip
    buckets: list[int] = []

    def count(state, bucket):  # torch reads the annotations, and takes none for right
        buckets.append(bucket.index())
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    engine.ddp.register_comm_hook(None, count)
    for _ in range(3):
        buckets.clear()
        numbers = torch.zeros(6)
        for i in range(MICRO_BATCHES):
            last = i + 1 == MICRO_BATCHES
            numbers += engine.accumulate(batch(i), torch.tensor([0.5, 0.0]), MICRO_BATCHES, last=last)
        averaged = engine.average(numbers)
        torch.testing.assert_close(averaged, numbers)
        assert averaged[4] == 0.5
        assert buckets
        assert len(buckets) == len(set(buckets)), buckets
        for grad, expected in zip([p.grad for p in model.parameters()], accumulated(True)[1], strict=True):
            torch.testing.assert_close(grad, expected / SCALE, rtol=1e-5, atol=1e-6)
        model.zero_grad(set_to_none=True)
    update_after_segments(engine.precision)
    print("done", flush=True)
    os._exit(0)  # gloo's threads and the interpreter can wait for each other at the end (pytorch#179291)


def update_after_segments(precision: Precision) -> None:
    first, second = make_model(), make_model()
    for model, kind in ((first, LocalEngine), (second, DDPEngine)):
        optimizers, off = build_optimizers(model, 1e-3, 0.1, "adamw"), torch.amp.GradScaler("cpu", enabled=False)
        alike = {"precision": precision, "per_segment": True, "updates_segments": True}
        updating = kind(model, optimizers, off, torch.device("cpu"), 1.0, **alike)
        for step in range(2):
            numbers = updating.accumulate(batch(step), torch.tensor([0.5, 0.0]), 1, last=True)
            averaged = updating.average(numbers)
            torch.testing.assert_close(averaged, numbers)
            updating.update(averaged[0], math.inf)
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_ddp_exchanges_gradients_once_per_step(tmp_path: Path) -> None:
    worker = Forked(tmp_path / "worker", exchange, f"{tmp_path}/store")
    assert worker.wait() == 0, worker.errors
    assert worker.said.strip() == "done"


def test_an_update_after_each_segment_trains_as_so_many_steps_do() -> None:
    model, other = make_model(), make_model()
    for each in (model, other):
        each.config.halting = False
    precision, off = Precision(torch.float32, None, loss_scaling=False), torch.amp.GradScaler("cpu", enabled=False)
    engine = LocalEngine(
        model, build_optimizers(model, 1e-3, 0.1, "adamw"), off, torch.device("cpu"), 1.0, precision=precision,
        per_segment=True, updates_segments=True,
    )  # fmt: skip
    [optimizer] = build_optimizers(other, 1e-3, 0.1, "adamw")
    for step in range(2):
        numbers = engine.accumulate(batch(step), torch.zeros(0), 1, last=True)
        engine.update(numbers[0], math.inf)
        for loss, _ in other.segment_losses(*batch(step), updated=True):
            (3 * loss).backward()
            torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert optimizer.state[other.lm_head.weight]["step"] == 6


def test_no_update_of_a_step_is_carried_out_above_the_limit_and_the_largest_norm_is_told() -> None:
    model, precision = make_model(), Precision(torch.float32, None, loss_scaling=False)
    off, alike = torch.amp.GradScaler("cpu", enabled=False), {"per_segment": True, "updates_segments": True}
    optimizers = build_optimizers(model, 1e-3, 0.1, "adamw")
    engine = LocalEngine(model, optimizers, off, torch.device("cpu"), 1.0, precision=precision, **alike)
    before = [p.detach().clone() for p in model.parameters()]
    for number in (0, 1, 0):  # one of two neighbours has the larger norm, and tells nothing of the other
        norms = []
        for loss, _ in model.segment_losses(*batch(number), updated=True):
            (3 * loss).backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), math.inf)))
            model.zero_grad()
        numbers = engine.accumulate(batch(number), torch.zeros(0), 1, last=True, skip_above=1e-6)
        torch.testing.assert_close(float(engine.update(numbers[0], 1e-6)), max(norms))
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))


def test_a_snapshot_brings_the_average_back() -> None:
    model = make_model()
    precision, off = Precision(torch.float32, None, loss_scaling=False), torch.amp.GradScaler("cpu", enabled=False)
    average = WeightAverage(model, 0.9)
    engine = LocalEngine(
        model,
        build_optimizers(model, 1e-2, 0.1, "adamw"),
        off,
        torch.device("cpu"),
        1.0,
        precision=precision,
        ema=average,
    )
    snapshot, before = engine.snapshot(), [tensor.clone() for tensor in average.tensors]
    for step in range(2):
        numbers = engine.accumulate(batch(step), torch.zeros(0), 1, last=True)
        engine.update(numbers[0], math.inf)
    assert not any(torch.equal(now, then) for now, then in zip(average.tensors, before, strict=True))
    snapshot.restore()
    assert all(torch.equal(now, then) for now, then in zip(average.tensors, before, strict=True))
