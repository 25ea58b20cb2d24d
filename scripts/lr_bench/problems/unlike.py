"""Problems unlike those that rules and constants were chosen on: other losses than that of classes and tokens, batch
normalisation, embeddings alone. Nothing of `auto` was fitted to them; they show what it does with a stranger."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from lr_bench.problems.classify import DIGITS_TRAIN, classification, digit_images
from lr_bench.problems.problem import Problem, Rows, on_rows, split


def digit_parts() -> tuple[Rows, Rows]:
    """Images [n, 64] and labels [n] of the digits, to train on and held out; another order than that of `digits`."""
    return split(digit_images(order=5), DIGITS_TRAIN)


def perceptron(*sizes: int) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them."""
    layers: list[nn.Module] = []
    for width, following in pairwise(sizes):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def autoencoder(seed: int) -> Problem:
    """Digits through eight numbers and back; the mean squared error of a pixel."""
    torch.manual_seed(seed)
    model = nn.Sequential(perceptron(64, 64, 8), perceptron(8, 64, 64))
    return on_rows(model, lambda rows, _: F.mse_loss(model(rows[0]), rows[0]), *digit_parts(), seed, rows=64)


def variational(seed: int) -> Problem:
    """A variational autoencoder of digits (Kingma and Welling, arXiv 1312.6114); the bound in nats per image."""
    torch.manual_seed(seed)
    model = nn.ModuleDict({"encoder": perceptron(64, 64, 16), "decoder": perceptron(8, 64, 64)})

    def loss(rows: Rows, generator: torch.Generator) -> Tensor:
        mean, log_variance = model["encoder"](rows[0]).chunk(2, 1)
        log_variance = log_variance.clamp(-8, 8)
        code = mean + torch.randn(mean.shape, generator=generator) * (log_variance / 2).exp()
        pixels = F.binary_cross_entropy_with_logits(model["decoder"](code), rows[0], reduction="none").sum(1)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
        return (pixels + divergence).mean()

    return on_rows(model, loss, *digit_parts(), seed, rows=64)


def contrastive(seed: int) -> Problem:
    """Two noisy views of a digit are to be recognised among those of 64 (InfoNCE, arXiv 1807.03748)."""
    torch.manual_seed(seed)
    model = perceptron(64, 64, 32)

    def loss(rows: Rows, generator: torch.Generator) -> Tensor:
        views = [rows[0] + 0.2 * torch.randn(rows[0].shape, generator=generator) for _ in range(2)]
        first, second = (F.normalize(model(view), dim=1) for view in views)
        return F.cross_entropy(first @ second.T / 0.1, torch.arange(len(first)))

    return on_rows(model, loss, *digit_parts(), seed, rows=64)


def factorization(seed: int) -> Problem:
    """Ratings of 300 things by 200 people, of rank four and noisy, by embeddings of sixteen numbers."""
    maker = torch.Generator().manual_seed(3)
    people, things = torch.randn(200, 4, generator=maker), torch.randn(300, 4, generator=maker)
    who, what = (torch.randint(len(of), (20_000,), generator=maker) for of in (people, things))
    ratings = (people[who] * things[what]).sum(1) / 2 + 0.1 * torch.randn(20_000, generator=maker)
    torch.manual_seed(seed)
    model = nn.ModuleDict({"people": nn.Embedding(200, 16), "things": nn.Embedding(300, 16)})
    for table in model.children():
        nn.init.normal_(table.weight, std=0.1)  # type: ignore[arg-type]

    def loss(rows: Rows, _: torch.Generator) -> Tensor:
        return F.mse_loss((model["people"](rows[0]) * model["things"](rows[1])).sum(1), rows[2])

    return on_rows(model, loss, *split((who, what, ratings), 18_000), seed, rows=256)


class Forecaster(nn.Module):
    """An LSTM that says the next value of a series."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(1, hidden, batch_first=True), nn.Linear(hidden, 1)

    def forward(self, series: Tensor) -> Tensor:
        """[batch, steps, 1] -> the same shape, each the forecast of the value after it."""
        return self.out(self.lstm(series)[0])


def series(seed: int) -> Problem:
    """Sums of two sines of unknown frequency and phase, and noise: the mean squared error of the next value."""
    maker = torch.Generator().manual_seed(2)
    phase, speed = 6 * torch.rand(2000, 1, generator=maker), 0.1 + 0.4 * torch.rand(2000, 1, generator=maker)
    angle = speed * torch.arange(60.0)
    values = (angle + phase).sin() + 0.3 * (3 * angle + phase).sin() + 0.05 * torch.randn(2000, 60, generator=maker)
    torch.manual_seed(seed)
    model = Forecaster()

    def loss(rows: Rows, _: torch.Generator) -> Tensor:
        return F.mse_loss(model(rows[0][:, :-1]), rows[0][:, 1:])

    return on_rows(model, loss, *split((values.unsqueeze(2),), 1800), seed, rows=32)


def normalised_digits(seed: int) -> Problem:
    """A convolutional net with batch normalisation on the digits."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    return classification(model, *digit_parts(), seed, rows=32)
