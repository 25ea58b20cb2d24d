"""Classification: scikit-learn's digits, and MNIST-1D (Greydanus 2020, arXiv 2011.14439) made anew, without its end.

MNIST-1D as published has 4000 examples and is overfitted within a thousand steps; what is asked here is how well a
rate trains, so 20 000 are drawn from the same generator.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from mnist1d.data import get_dataset_args, make_dataset
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lr_bench.problems.problem import CACHE, Problem, batch_seed

TRAIN, HELD_OUT = 20_000, 4_000


def classification(
    model: nn.Module, train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], seed: int, rows: int
) -> Problem:
    """Train `model` on batches of `rows` of (inputs, labels), evaluate on others."""

    def loss(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(batch_seed(seed, index))
        chosen = torch.randint(len(train[1]), (rows,), generator=generator)
        return F.cross_entropy(model(train[0][chosen]), train[1][chosen])

    def corrupted(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(batch_seed(seed, index))
        noise = torch.randn(rows, *train[0].shape[1:], generator=generator)
        return F.cross_entropy(model(noise), torch.randint(10, (rows,), generator=generator))

    def evaluate() -> float:
        model.eval()
        with torch.no_grad():
            loss = float(F.cross_entropy(model(held_out[0]), held_out[1]))
        model.train()
        return loss

    model.train()
    return Problem(model, loss, evaluate, corrupted)


def digits(seed: int) -> Problem:
    """An MLP on scikit-learn's digits."""
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    exchanged = x[:, torch.randperm(64, generator=torch.Generator().manual_seed(1))]
    plain, changed = (
        classification(model, (inputs[:1400], y[:1400]), (inputs[1400:], y[1400:]), seed, rows=32)
        for inputs in (x, exchanged)
    )
    return replace(plain, changed=changed)


@functools.cache
def mnist1d_data() -> tuple[Tensor, Tensor]:
    """Inputs [n, 40] and labels [n]."""
    path = CACHE / "mnist1d.npz"
    if not path.exists():
        args = get_dataset_args()
        args.num_samples = TRAIN + HELD_OUT
        made = make_dataset(args)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name("mnist1d.partial.npz")
        np.savez(partial, x=np.concatenate([made["x"], made["x_test"]]), y=np.concatenate([made["y"], made["y_test"]]))
        partial.replace(path)
    with np.load(path) as kept:
        return torch.tensor(kept["x"], dtype=torch.float32), torch.tensor(kept["y"], dtype=torch.int64)


class GRUClassifier(nn.Module):
    """A bidirectional GRU that reads the signal point by point, and a linear layer over its last state."""

    def __init__(self, hidden: int = 48) -> None:
        super().__init__()
        self.gru = nn.GRU(1, hidden, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * hidden, 10)

    def forward(self, signal: Tensor) -> Tensor:
        """Logits of signals [batch, 40]."""
        _, last = self.gru(signal.unsqueeze(-1))
        return self.out(last.transpose(0, 1).flatten(1))


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(40, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))


def _cnn(channels: int = 25) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 40)),
        nn.Conv1d(1, channels, 5, stride=2, padding=1), nn.ReLU(),
        nn.Conv1d(channels, channels, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv1d(channels, channels, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.LazyLinear(10),
    )  # fmt: skip


def mnist1d(seed: int, kind: str, rows: int) -> Problem:
    """MNIST-1D with an "mlp", a "cnn" or a "gru"."""
    torch.manual_seed(seed)
    model = {"mlp": _mlp, "cnn": _cnn, "gru": GRUClassifier}[kind]()
    x, y = mnist1d_data()
    with torch.no_grad():
        model(x[:2])  # the lazy layer learns its size
    return classification(model, (x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:]), seed, rows)
