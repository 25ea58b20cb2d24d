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

from lr_bench.problems.problem import CACHE, Problem, Rows, batch_seed, on_rows, split

TRAIN, HELD_OUT = 20_000, 4_000
DIGITS_TRAIN = 1400
"""Of scikit-learn's 1797; the others are held out."""


def classification(model: nn.Module, train: Rows, held_out: Rows, seed: int, rows: int) -> Problem:
    """Train `model` on batches of `rows` of (inputs, labels), evaluate on others."""

    def corrupted(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(batch_seed(seed, index))
        noise = torch.randn(rows, *train[0].shape[1:], generator=generator)
        return F.cross_entropy(model(noise), torch.randint(10, (rows,), generator=generator))

    plain = on_rows(model, lambda rows, _: F.cross_entropy(model(rows[0]), rows[1]), train, held_out, seed, rows)
    return replace(plain, corrupted=corrupted)


def digit_images(order: int) -> tuple[Tensor, Tensor]:
    """scikit-learn's digits, in an order of chance that `order` seeds: images [1797, 64] in 0 to 1, labels [1797]."""
    images, labels = load_digits(return_X_y=True)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(order))
    return torch.tensor(images, dtype=torch.float32)[shuffled] / 16, torch.tensor(labels)[shuffled]


def digits(seed: int) -> Problem:
    """An MLP on scikit-learn's digits."""
    torch.manual_seed(seed)
    x, y = digit_images(order=0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    exchanged = x[:, torch.randperm(64, generator=torch.Generator().manual_seed(1))]
    plain, changed = (
        classification(model, *split((inputs, y), DIGITS_TRAIN), seed, rows=32) for inputs in (x, exchanged)
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
    return classification(model, *split((x, y), TRAIN), seed, rows)
