"""The workloads of the learning-rate benchmark: a problem, an optimizer, a length.

Rules and constants of `auto` were chosen on `DEVELOPMENT`; what is reported is `REPORT`, with other texts and seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from lr_bench import optimizers
from lr_bench.optimizers import MakeOptimizers
from lr_bench.problems import unlike
from lr_bench.problems.classify import digits, mnist1d
from lr_bench.problems.pretrained import finetune, lora
from lr_bench.problems.problem import Problem
from lr_bench.problems.text import BIBLE, CODE, byte_gpt, character_gpt, character_gru, hrm


@dataclass(frozen=True)
class Workload:
    """A family of problems, one per seed, and how it is trained."""

    name: str
    """Shown in tables."""
    steps: int
    """Optimizer steps of one run."""
    build: Callable[[int], Problem]
    """The problem of a seed."""
    make: MakeOptimizers = optimizers.adamw
    """What updates the weights."""
    low: int = -4
    """Decade at which the tuning begins; it covers four."""
    moe: bool = False
    """A mixture of experts."""
    text: bool = True
    """Whether it is a language model."""

    @property
    def starts(self) -> list[float]:
        """Learning rates a user may begin with, by decades."""
        return [10.0**e for e in range(self.low, self.low + 4)]

    @property
    def grid(self) -> list[float]:
        """Learning rates each peer is tuned over first, by half-decades."""
        return [10.0 ** (self.low + e / 2) for e in range(7)]

    @property
    def sgd(self) -> bool:
        """Whether the optimizer is SGD: peers that bring their own then bring theirs."""
        return self.make in (optimizers.sgd, optimizers.nesterov)

    def optimizers(self, model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
        """The workload's optimizers at `lr`."""
        return self.make(model, lr)


def _classifiers() -> list[Workload]:
    """MNIST-1D: three models, SGD and AdamW, three batch sizes."""
    chosen = [
        *(("mlp", "sgd", 16), ("mlp", "adamw", 100), ("mlp", "adamw", 500)),
        *(("cnn", "adamw", 16), ("cnn", "sgd", 100), ("cnn", "adamw", 500)),
        *(("gru", "sgd", 500), ("gru", "adamw", 100)),
    ]
    makes: dict[str, tuple[MakeOptimizers, int]]
    makes = {"sgd": (optimizers.sgd, -3), "adamw": (optimizers.adamw_default, -4)}
    return [
        Workload(f"mnist1d_{kind}_{how}_{rows}", 1000, partial(mnist1d, kind=kind, rows=rows), *makes[how], text=False)
        for kind, how, rows in chosen
    ]


def _texts(text: str, before: str) -> list[Workload]:
    """What trains on one text, or was trained on another before."""
    return [
        Workload("chargpt", 2000, partial(character_gpt, text=text), optimizers.adamw_slow),
        Workload("gru_rmsprop", 1000, partial(character_gru, text=text), optimizers.rmsprop),
        Workload("gpt_muon", 1000, partial(byte_gpt, text=text), optimizers.muon),
        Workload("gpt_lion", 1000, partial(byte_gpt, text=text), optimizers.lion, low=-5),
        Workload("transfer", 500, partial(finetune, before=before, text=text), optimizers.adamw_default, low=-5),
        Workload("lora", 500, partial(lora, before=before, text=text), optimizers.adamw_default),
    ]


def _first_five(text: str) -> list[Workload]:
    """Those that the first versions were developed on."""
    return [
        Workload("gpt", 800, partial(byte_gpt, text=text)),
        Workload("hrm", 500, partial(hrm, text=text)),
        Workload("hrm_moe", 400, partial(hrm, text=text, use_moe=True), moe=True),
        Workload("digits_sgd", 1000, digits, optimizers.sgd, low=-3, text=False),
        Workload("finetune", 500, partial(finetune, before=text, text=text, part=1), low=-5),
    ]


def _unlike() -> list[Workload]:
    """What nothing was fitted to."""
    return [
        Workload("autoencoder_nadam", 1000, unlike.autoencoder, optimizers.nadam, text=False),
        Workload("vae_adam", 1000, unlike.variational, optimizers.adam, text=False),
        Workload("contrastive_adamw", 1000, unlike.contrastive, optimizers.adamw_default, text=False),
        Workload("factorization_adam", 1000, unlike.factorization, optimizers.adam, low=-3, text=False),
        Workload("series_adam", 1000, unlike.series, optimizers.adam, low=-3, text=False),
        Workload("bncnn_nesterov", 1000, unlike.normalised_digits, optimizers.nesterov, low=-3, text=False),
        Workload("bncnn_adagrad", 1000, unlike.normalised_digits, optimizers.adagrad, low=-3, text=False),
    ]


def _named(workloads: list[Workload]) -> dict[str, Workload]:
    return {workload.name: workload for workload in workloads}


REPORT = _named([*_first_five(BIBLE), *_texts(CODE, before=BIBLE), *_classifiers(), *_unlike()])
"""Reported, on seeds 0 to 4."""
DEVELOPMENT = _named(
    [replace(w, name=f"dev_{w.name}") for w in (*_first_five(CODE), *_texts(BIBLE, before=CODE), *_classifiers()[::2])]
)
"""Developed on, on seeds from 100 on."""
WORKLOADS = {**REPORT, **DEVELOPMENT}
