"""The training problems of the learning-rate benchmark: small, real, each a function of its seed alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.datasets import load_digits
from torch import Tensor, nn

from aios.core.hrm_models import HRMConfig, HRMForCausalLM
from aios.data.tokenizer import bundled_corpus_path

BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
HELD_OUT = 0.05
"""Part of the text, from its end, that is only evaluated on."""
EVAL_ROWS = 128


@dataclass(frozen=True)
class Problem:
    """One training problem, freshly initialised."""

    model: nn.Module
    """What is trained."""
    loss: Callable[[int], Tensor]
    """Training loss on batch i; a pure function of i and the weights."""
    evaluate: Callable[[], float]
    """Mean loss on held-out data."""
    corrupted: Callable[[int], Tensor] | None = None
    """Training loss on batch i with its data replaced by noise, for the disturbances."""
    changed: Problem | None = None
    """The same model on other data of the same difficulty, for the disturbances."""


@dataclass(frozen=True)
class Workload:
    """A family of problems, one per seed, and how it is trained."""

    name: str
    """Shown in tables."""
    steps: int
    """Optimizer steps of one run."""
    build: Callable[[int], Problem]
    """The problem of a seed."""
    sgd: bool = False
    """SGD with momentum 0.9 instead of AdamW."""
    moe: bool = False
    """A mixture of experts: ours keeps to its tighter bounds."""

    @property
    def starts(self) -> list[float]:
        """Learning rates a user may begin with, by decades."""
        return [10.0**e for e in (range(-4, 2) if self.sgd else range(-5, 0))]

    @property
    def grid(self) -> list[float]:
        """Learning rates each peer is tuned over, by half-decades."""
        low, high = (-8, 2) if self.sgd else (-10, -2)
        return [10.0 ** (e / 2) for e in range(low, high + 1)]

    def optimizer(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        """The workload's optimizer at `lr`."""
        if self.sgd:
            return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        return torch.optim.AdamW(model.parameters(), lr=lr, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)


@functools.cache
def text_bytes() -> Tensor:
    """The bundled text, uint8 [n]."""
    return torch.from_numpy(np.frombuffer(bundled_corpus_path().read_bytes(), dtype=np.uint8).copy())


@dataclass(frozen=True)
class ByteBatches:
    """Random windows of a text's bytes; batch i is a function of seed and i."""

    data: Tensor
    seed: int
    rows: int
    length: int

    def __call__(self, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        starts = torch.randint(len(self.data) - self.length, (self.rows,), generator=generator)
        return torch.stack([self.data[s : s + self.length] for s in starts.tolist()]).long()


def held_out_rows(data: Tensor, length: int) -> Tensor:
    """Evenly spread windows for evaluation."""
    starts = torch.linspace(0, len(data) - length, EVAL_ROWS).long()
    return torch.stack([data[s : s + length] for s in starts.tolist()]).long()


class Block(nn.Module):
    """A pre-norm GPT block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, width] in and out."""
        batch, time, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class ByteGPT(nn.Module):
    """A plain GPT over bytes."""

    def __init__(self, width: int = 64, layers: int = 2, heads: int = 4, length: int = 64) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(256, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Mean cross-entropy of the next byte, ids [batch, time]."""
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        logits = self.head(self.norm(self.blocks(x)))
        return F.cross_entropy(logits[:, :-1].reshape(-1, 256), ids[:, 1:].reshape(-1))


def permuted_alphabet(data: Tensor) -> Tensor:
    """The text with the bytes it uses exchanged for one another: as hard, and unlike all that was learnt."""
    used = data.unique().long()
    code = torch.arange(256, dtype=torch.uint8)
    code[used] = used[torch.randperm(len(used), generator=torch.Generator().manual_seed(0))].to(torch.uint8)
    return code[data.long()]


def text_problem(
    model: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    data: Tensor,
    seed: int,
    rows: int,
    with_change: bool = True,
) -> Problem:
    """Train `model` on windows of `data`, evaluate on its tail."""
    length = 64
    border = int(len(data) * (1 - HELD_OUT))
    batches = ByteBatches(data[:border], seed, rows, length)
    held_out = held_out_rows(data[border:], length)

    def evaluate() -> float:
        model.eval()
        with torch.no_grad():
            loss = float(loss_of(held_out))
        model.train()
        return loss

    def corrupted(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        return loss_of(torch.randint(256, (rows, length), generator=generator))

    changed = None
    if with_change:
        changed = text_problem(model, loss_of, permuted_alphabet(data), seed, rows, with_change=False)
    model.train()
    return Problem(model, lambda i: loss_of(batches(i)), evaluate, corrupted, changed)


def gpt(seed: int, data: Tensor | None = None) -> Problem:
    """A plain GPT on the bytes of the bundled text."""
    torch.manual_seed(seed)
    model = ByteGPT()
    return text_problem(model, model, text_bytes() if data is None else data, seed, rows=16)


def hrm(seed: int, use_moe: bool = False) -> Problem:
    """A small HRM on the bytes of the bundled text."""
    torch.manual_seed(seed)
    config = HRMConfig(
        vocab_size=256, hidden_size=64, h_layers=1, l_layers=1, h_cycles=2, l_cycles=2, num_heads=4, expansion=2.0,
        halt_max_steps=2, max_position_embeddings=64, use_moe=use_moe,
    )  # fmt: skip
    model = HRMForCausalLM(config)

    def loss_of(ids: Tensor) -> Tensor:
        out = model(input_ids=ids, labels=ids)
        return out.loss if model.training else out.ce

    return text_problem(model, loss_of, text_bytes(), seed, rows=4 if use_moe else 8)


def digits(seed: int) -> Problem:
    """An MLP classifier on scikit-learn's digits."""
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    pixels = torch.randperm(64, generator=torch.Generator().manual_seed(1))

    def corrupted(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        return F.cross_entropy(
            model(torch.randn(32, 64, generator=generator)), torch.randint(10, (32,), generator=generator)
        )

    return replace(
        digits_problem(model, x, y, seed), corrupted=corrupted, changed=digits_problem(model, x[:, pixels], y, seed)
    )


def digits_problem(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Problem:
    """Train `model` on the first 1400 of images x [n, 64] and labels y [n], evaluate on the others."""

    def loss(index: int) -> Tensor:
        rows = torch.randint(1400, (32,), generator=torch.Generator().manual_seed(seed * 1_000_003 + index))
        return F.cross_entropy(model(x[rows]), y[rows])

    def evaluate() -> float:
        with torch.no_grad():
            return float(F.cross_entropy(model(x[1400:]), y[1400:]))

    return Problem(model, loss, evaluate)


@functools.cache
def _pretrained(seed: int, steps: int = 1500) -> dict[str, Tensor]:
    """A GPT trained on the first half of the text, linear to zero from 3e-3."""
    problem = gpt(seed + 1000, text_bytes()[: len(text_bytes()) // 2])
    optimizer = torch.optim.AdamW(problem.model.parameters(), lr=3e-3, betas=BETAS, weight_decay=WEIGHT_DECAY)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, (step + 1) / 100) * (1 - step / steps)
        problem.loss(step).backward()
        nn.utils.clip_grad_norm_(problem.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return {name: weight.detach().clone() for name, weight in problem.model.state_dict().items()}


def finetune(seed: int) -> Problem:
    """The GPT of the first half of the text, to be trained on the second."""
    weights = _pretrained(0)
    problem = gpt(seed, text_bytes()[len(text_bytes()) // 2 :])
    problem.model.load_state_dict(weights)
    return problem


WORKLOADS = {
    w.name: w
    for w in (
        Workload("gpt", 800, gpt),
        Workload("hrm", 500, hrm),
        Workload("hrm_moe", 400, functools.partial(hrm, use_moe=True), moe=True),
        Workload("digits_sgd", 1000, digits, sgd=True),
        Workload("finetune", 500, finetune),
    )
}
