"""Language models on text: a GPT over bytes, one over characters with tied embeddings, a GRU, small HRMs."""

from __future__ import annotations

import functools
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from aios.core.hrm_models import HRMConfig, HRMForCausalLM
from aios.data.tokenizer import bundled_corpus_path
from lr_bench.problems.problem import Problem, batch_seed

BIBLE, CODE = "bible", "code"
"""The bundled text; sources of Python's standard library."""
CODE_BYTES = 1_500_000
HELD_OUT = 0.05
"""Part of the text, from its end, that is only evaluated on."""
EVAL_ROWS = 128
LENGTH = 64
"""Tokens of a row."""
BYTES = 256


@functools.cache
def text_bytes(text: str) -> Tensor:
    """A text, uint8 [n]."""
    if text == BIBLE:
        raw = bundled_corpus_path().read_bytes()
    else:
        sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
        raw = b"".join(source.read_bytes() for source in sources)[:CODE_BYTES]
    return torch.from_numpy(np.frombuffer(raw, dtype=np.uint8).copy())


@functools.cache
def text_characters(text: str) -> tuple[Tensor, int]:
    """A text as numbers of the bytes it uses, uint8 [n], and how many they are."""
    used, numbers = text_bytes(text).unique(return_inverse=True)
    return numbers.to(torch.uint8), len(used)


def half(data: Tensor, number: int) -> Tensor:
    """The first (0) or second (1) half of a text."""
    middle = len(data) // 2
    return data[middle:] if number else data[:middle]


@dataclass(frozen=True)
class Rows:
    """Random windows of a text; batch i is a function of seed and i."""

    data: Tensor
    seed: int
    rows: int

    def __call__(self, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(batch_seed(self.seed, index))
        starts = torch.randint(len(self.data) - LENGTH, (self.rows,), generator=generator)
        return torch.stack([self.data[s : s + LENGTH] for s in starts.tolist()]).long()


def held_out_rows(data: Tensor) -> Tensor:
    """Evenly spread windows for evaluation."""
    starts = torch.linspace(0, len(data) - LENGTH, EVAL_ROWS).long()
    return torch.stack([data[s : s + LENGTH] for s in starts.tolist()]).long()


def permuted_alphabet(data: Tensor) -> Tensor:
    """The text with what it uses exchanged for one another: as hard, and unlike all that was learnt."""
    used = data.unique().long()
    code = torch.arange(BYTES, dtype=torch.uint8)
    code[used] = used[torch.randperm(len(used), generator=torch.Generator().manual_seed(0))].to(torch.uint8)
    return code[data.long()]


def text_problem(
    model: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    data: Tensor,
    seed: int,
    rows: int,
    vocabulary: int = BYTES,
    with_change: bool = True,
) -> Problem:
    """Train `model` on windows of `data`, evaluate on its tail."""
    border = int(len(data) * (1 - HELD_OUT))
    batches = Rows(data[:border], seed, rows)
    held_out = held_out_rows(data[border:])

    def evaluate() -> float:
        model.eval()
        with torch.no_grad():
            loss = float(loss_of(held_out))
        model.train()
        return loss

    def corrupted(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(batch_seed(seed, index))
        return loss_of(torch.randint(vocabulary, (rows, LENGTH), generator=generator))

    changed = None
    if with_change:
        other = permuted_alphabet(data)
        changed = text_problem(model, loss_of, other, seed, rows, vocabulary, with_change=False)
    model.train()
    return Problem(model, lambda i: loss_of(batches(i)), evaluate, corrupted, changed)


def next_token_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """Mean cross-entropy of logits [batch, time, vocabulary] against the ids that follow."""
    return F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))


class Block(nn.Module):
    """A pre-norm GPT block."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, width] in and out."""
        batch, time, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.dropout(self.proj(mixed.transpose(1, 2).reshape(batch, time, width)))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))


class GPT(nn.Module):
    """A plain GPT; with `tied` the embedding is the head, too."""

    def __init__(
        self, vocabulary: int = BYTES, width: int = 64, layers: int = 2, tied: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(LENGTH, width)
        self.blocks = nn.Sequential(*(Block(width, 4, dropout) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Mean cross-entropy of the next token, ids [batch, time]."""
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        return next_token_loss(self.head(self.norm(self.blocks(x))), ids)


class CharacterGRU(nn.Module):
    """One layer of GRU over characters, as torch initialises it."""

    def __init__(self, vocabulary: int, width: int = 128) -> None:
        super().__init__()
        self.tokens, self.gru = nn.Embedding(vocabulary, width // 2), nn.GRU(width // 2, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        """Mean cross-entropy of the next token, ids [batch, time]."""
        states, _ = self.gru(self.tokens(ids))
        return next_token_loss(self.head(states), ids)


def byte_gpt(seed: int, text: str = BIBLE, part: int | None = None) -> Problem:
    """A plain GPT on the bytes of a text, or of a half of it."""
    torch.manual_seed(seed)
    model, data = GPT(), text_bytes(text)
    return text_problem(model, model, data if part is None else half(data, part), seed, rows=16)


def character_gpt(seed: int, text: str, dropout: float = 0.0) -> Problem:
    """A GPT of 0.8 M parameters on characters, embeddings tied."""
    torch.manual_seed(seed)
    data, vocabulary = text_characters(text)
    model = GPT(vocabulary, width=128, layers=4, tied=True, dropout=dropout)
    return text_problem(model, model, data, seed, rows=12, vocabulary=vocabulary)


def character_gru(seed: int, text: str) -> Problem:
    """A GRU on characters."""
    torch.manual_seed(seed)
    data, vocabulary = text_characters(text)
    model = CharacterGRU(vocabulary)
    return text_problem(model, model, data, seed, rows=16, vocabulary=vocabulary)


def hrm(seed: int, text: str = BIBLE, use_moe: bool = False) -> Problem:
    """A small HRM on the bytes of a text."""
    torch.manual_seed(seed)
    config = HRMConfig(
        vocab_size=BYTES, hidden_size=64, h_layers=1, l_layers=1, h_cycles=2, l_cycles=2, num_heads=4, expansion=2.0,
        halt_max_steps=2, max_position_embeddings=LENGTH, use_moe=use_moe,
    )  # fmt: skip
    model = HRMForCausalLM(config)

    def loss_of(ids: Tensor) -> Tensor:
        out = model(input_ids=ids, labels=ids)
        return out.loss if model.training else out.ce

    return text_problem(model, loss_of, text_bytes(text), seed, rows=4 if use_moe else 8)
