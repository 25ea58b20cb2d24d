"""A language model of words in a loop like PyTorch's example, on the bundled text, by Muon and AdamW together."""

from collections import Counter
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

import aios.data
from aios.auto_lr import AutoLR, BatchFeed

WORDS = (Path(aios.data.__file__).parent / "corpus" / "kjv.txt").read_text(encoding="utf-8").split()[:60000]
NUMBERS = {word: i + 1 for i, (word, _) in enumerate(Counter(WORDS).most_common(999))}
WINDOWS = torch.tensor([NUMBERS.get(word, 0) for word in WORDS[: len(WORDS) // 33 * 33]]).view(-1, 33)


def train(steered):
    torch.manual_seed(0)
    embed, rnn, out = nn.Embedding(1000, 64), nn.GRU(64, 64, batch_first=True), nn.Linear(64, 1000)
    model, loader = nn.ModuleList([embed, rnn, out]), DataLoader(WINDOWS[:1700], batch_size=16, shuffle=True)
    matrices = [p for p in rnn.parameters() if p.ndim == 2]
    others = [*embed.parameters(), *out.parameters(), *(p for p in rnn.parameters() if p.ndim == 1)]
    optimizers = [torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw"), torch.optim.AdamW(others)]
    feed, auto = BatchFeed(loader), AutoLR(model, optimizers, steps=3 * len(loader))

    def loss_of(window):
        return nn.functional.cross_entropy(out(rnn(embed(window[:, :-1]))[0]).mT, window[:, 1:])

    if steered:
        auto.search(lambda i: loss_of(feed[i]))
    for batch in feed.batches(auto) if steered else (batch for _ in range(3) for batch in loader):
        [optimizer.zero_grad() for optimizer in optimizers]
        loss = loss_of(batch)
        loss.backward()
        auto.step(loss) if steered else [optimizer.step() for optimizer in optimizers]
    return loss_of(WINDOWS[1700:]).item()


print(f"default {train(False):.3f}, AutoLR {train(True):.3f}")
