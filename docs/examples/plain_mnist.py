"""A convolutional net in a loop like PyTorch's MNIST example, on scikit-learn's digits; --compile compiles it."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from aios.auto_lr import AutoLR, BatchFeed

digits = load_digits()
DATA = TensorDataset(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target))
EPOCHS = 6


def train(steered):
    torch.manual_seed(0)
    train_data, test_data = random_split(DATA, [1500, len(DATA) - 1500])
    loader = DataLoader(train_data, batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Dropout(0.25), nn.Flatten(), nn.Linear(16 * 36, 10))
    optimizer = torch.optim.AdamW(model.parameters())  # its default rate, 1e-3
    forward = torch.compile(model) if "--compile" in sys.argv else model

    def loss_of(batch):
        return nn.functional.cross_entropy(forward(batch[0]), batch[1])

    feed, auto = BatchFeed(loader), AutoLR(model, optimizer, steps=EPOCHS * len(loader))
    if steered:
        auto.search(lambda i: loss_of(feed[i]))
    for batch in feed.batches(auto) if steered else (batch for _ in range(EPOCHS) for batch in loader):
        optimizer.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        auto.step(loss) if steered else optimizer.step()
    model.eval()
    return loss_of(test_data[:]).item()


print(f"default {train(False):.3f}, AutoLR {train(True):.3f}")
