"""One worker of a tiny ZeRO training, beside the same training in plain torch; `run_workers` runs several.

Each worker writes what it saw to `OUT/<rank>.json`; the tests look at those.
"""

from __future__ import annotations

import json
import math
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

from forked import Forked

VOCABULARY, ROWS, TIME, MICRO_BATCHES = 41, 2, 16, 2
LRS = (1e-3, 8e-3, 2e-3, 5e-4)
MAX_GRAD_NORM = 0.5


def run_workers(count: int, out: Path, scenario: str, stage: int, checkpoint: Path) -> list[dict[str, Any]]:
    """Play `scenario` in `count` processes; what each of them saw, by rank."""
    out.mkdir(parents=True, exist_ok=True)
    with closing(socket.socket()) as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    workers = [
        Forked(out / str(n), main, out, scenario, stage, checkpoint, **meeting, RANK=str(n), LOCAL_RANK=str(n))
        for n in range(count)
    ]
    ended = [worker.wait() for worker in workers]
    assert ended == [0] * count, [worker.errors for worker in workers]
    return [json.loads((out / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(count)]


def main(out: Path, scenario: str, stage: int, checkpoint: Path) -> None:
    """Play `scenario`, train_and_save or resume, at ZeRO `stage`."""
    from aios.distributed.environment import place_of
    from aios.distributed.workers import joined

    with joined(place_of()) as workers:
        worker = _Worker(stage, workers)
        seen = worker.train_and_save(checkpoint) if scenario == "train_and_save" else worker.resume(checkpoint)
    (out / f"{workers.rank}.json").write_text(json.dumps(seen), encoding="utf-8")


class _Worker:
    """A small HRM under ZeRO, and the same one trained by torch alone on the batches of all workers."""

    def __init__(self, stage: int, workers: Any) -> None:
        import torch

        from aios.cli.hrm_hf.optimization import build_optimizers
        from aios.core.hrm_models import HRMConfig, HRMForCausalLM
        from aios.engines.deepspeed import DeepSpeedEngine
        from aios.engines.device import Precision
        from aios.settings.config import TrainingConfig
        from aios.settings.deepspeed import deepspeed_settings

        def model() -> HRMForCausalLM:
            torch.manual_seed(0)
            shape = {"hidden_size": 32, "num_heads": 2, "h_layers": 1, "l_layers": 1, "halt_max_steps": 2}
            return HRMForCausalLM(HRMConfig(vocab_size=VOCABULARY, max_position_embeddings=TIME, **shape))

        config = TrainingConfig(
            batch_size=ROWS, gradient_accumulation_steps=MICRO_BATCHES, max_grad_norm=MAX_GRAD_NORM,
            zero_stage=f"zero{stage}",  # type: ignore[arg-type]
        )  # fmt: skip
        settings = deepspeed_settings(config, workers.world_size)
        settings["zero_optimization"]["stage3_param_persistence_threshold"] = 500  # really split most of them
        self.workers, self.model, self.plain = workers, model(), model()
        [self.optimizer] = build_optimizers(self.model, 1e-3, 0.1, "adamw")
        [self.plain_optimizer] = build_optimizers(self.plain, 1e-3, 0.1, "adamw")
        precision = Precision(torch.float32, None, loss_scaling=False)
        device = torch.device("cpu")
        self.engine = DeepSpeedEngine(self.model, self.optimizer, settings, precision, device, workers)

    def batch(self, step: int, number: int) -> Any:
        """Micro-batch `number` of all workers' in a step."""
        import torch

        from aios.core.hrm_models.batch import Batch

        generator = torch.Generator().manual_seed(1000 * step + number)
        rows = torch.randint(0, VOCABULARY, (ROWS, TIME), generator=generator)
        return Batch(rows, rows)

    def step(self, step: int, lr: float, skip_above: float = math.inf, poison: float = 1.0) -> tuple[float, float]:
        """One step under ZeRO, its loss and a last gradient times `poison`; (mean loss, gradient norm)."""
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.model.train()
        numbers = torch.zeros(4)
        for i in range(MICRO_BATCHES):
            last = i == MICRO_BATCHES - 1
            batch = self.batch(step, i * self.workers.world_size + self.workers.rank)
            hook = self.model.q_head.bias.register_hook(lambda grad, last=last: grad * (poison if last else 1.0))
            numbers += self.engine.accumulate(batch, torch.zeros(0), MICRO_BATCHES, last)
            hook.remove()
        numbers = self.engine.average(numbers * poison)
        return float(numbers[0]), float(self.engine.update(numbers[0], skip_above))

    def plain_step(self, step: int, lr: float, count: int) -> float:
        """The same step in torch alone, on the micro-batches of `count` workers; its gradient norm."""
        from torch.nn.utils import clip_grad_norm_

        for group in self.plain_optimizer.param_groups:
            group["lr"] = lr
        for number in range(MICRO_BATCHES * count):
            batch = self.batch(step, number)
            (self.plain(**batch._asdict()).loss / (MICRO_BATCHES * count)).backward()
        norm = float(clip_grad_norm_(self.plain.parameters(), MAX_GRAD_NORM))
        self.plain_optimizer.step()
        self.plain_optimizer.zero_grad()
        return norm

    def weights(self) -> list[Any]:
        """All weights of the model under ZeRO."""
        with self.engine.whole_model():
            return [p.detach().clone() for p in self.model.parameters()]

    def distance(self) -> float:
        """The largest difference between a weight under ZeRO and in torch alone."""
        pairs = zip(self.weights(), self.plain.parameters(), strict=True)
        return max(float((ours - plain.detach()).abs().max()) for ours, plain in pairs)

    def unchanged(self, before: list[Any]) -> bool:
        """Whether every weight equals `before`, bit for bit."""
        return all(bool((a == b).all()) for a, b in zip(before, self.weights(), strict=True))

    def train_and_save(self, checkpoint: Path) -> dict[str, Any]:
        """Train beside plain torch, skip, take back, save."""
        start = self.weights()
        steps = [(self.step(i, lr), self.plain_step(i, lr, 2)) for i, lr in enumerate(LRS)]
        seen: dict[str, Any] = {
            "losses": [loss for (loss, _), _ in steps],
            "norms": [norm for (_, norm), _ in steps],
            "plain_norms": [norm for _, norm in steps],
            "distance": self.distance(),
            "moved": not self.unchanged(start),
        }
        trained = self.weights()
        seen["norm_when_skipped"] = self.step(50, 1e-2, skip_above=1e-9)[1]
        seen["skip_exact"] = self.unchanged(trained)
        seen["poisoned"] = self.step(51, 1e-2, poison=math.nan if self.workers.rank == 1 else 1.0)
        seen["poison_exact"] = self.unchanged(trained)
        snapshot = self.engine.snapshot()
        seen["after"] = [[self.step(60 + i, 5e-3) for i in range(3)]]
        moved, seen["moved_on"] = self.weights(), not self.unchanged(trained)
        snapshot.restore()
        seen["restore_exact"] = self.unchanged(trained)
        seen["after"].append([self.step(60 + i, 5e-3) for i in range(3)])
        seen["repeat_exact"] = self.unchanged(moved)
        snapshot.restore()
        self.engine.save(checkpoint, {"adaptive_lr": {"current_lr": 0.125}})
        return seen

    def resume(self, checkpoint: Path) -> dict[str, Any]:
        """Go on from what two workers saved, with any number of them, beside plain torch all the way."""
        for i, lr in enumerate(LRS):
            self.plain_step(i, lr, 2)
        loaded = self.engine.load(checkpoint)
        seen = {"client_state": loaded["adaptive_lr"], "distance": self.distance()}
        moments = [s["exp_avg"].norm() ** 2 for s in self.optimizer.state.values()]
        plain = [s["exp_avg"].norm() ** 2 for s in self.plain_optimizer.state.values()]
        seen["moments"] = math.sqrt(self.workers.sum(float(sum(moments)))[0])
        seen["plain_moments"] = math.sqrt(float(sum(plain)))
        self.step(70, 5e-3)
        self.plain_step(70, 5e-3, self.workers.world_size)
        return {**seen, "distance_after": self.distance()}
