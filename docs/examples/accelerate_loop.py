"""A loop of the shape of Accelerate's examples, on scikit-learn's digits: a schedule, then AutoLR (three lines)."""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split
from transformers import get_linear_schedule_with_warmup

from aios.integrations.accelerate import AutoLRLoop  # line 1

digits = load_digits()
DATA = TensorDataset(torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target))
EPOCHS, cross_entropy = 6, torch.nn.functional.cross_entropy


def train(steered):
    torch.manual_seed(0)
    train_data, test_data = random_split(DATA, [1500, len(DATA) - 1500])
    accelerator = Accelerator(gradient_accumulation_steps=2)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    loader = DataLoader(train_data, batch_size=32, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    steps = EPOCHS * -(-len(loader) // 2)
    scheduler = accelerator.prepare(get_linear_schedule_with_warmup(optimizer, 10, steps)) if not steered else None
    auto = AutoLRLoop(accelerator, model, optimizer, steps) if steered else None  # line 2, for the scheduler
    for _ in range(EPOCHS):
        for inputs, targets in loader:
            with accelerator.accumulate(model):
                loss = cross_entropy(model(inputs), targets)
                accelerator.backward(loss)
                if steered:
                    auto.step(loss)  # line 3, for optimizer.step() and scheduler.step()
                else:
                    optimizer.step(), scheduler.step()
                optimizer.zero_grad()
    return cross_entropy(model(test_data[:][0]), test_data[:][1]).item()


print(f"default {train(False):.3f}, AutoLR {train(True):.3f}")
