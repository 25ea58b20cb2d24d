"""The estimate of memory and work against real models: parameters exactly, memory and time never too high."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from aios.core.architecture import PRESETS
from aios.errors import UserError
from aios.settings.config import TrainingConfig
from aios.settings.estimate import (
    RunSize,
    adapter_parameters,
    block_applications,
    micro_batch_flops,
    model_parameters,
    training_memory,
)
from aios.settings.fits import check_fits_device
from aios.settings.machine import host_memory

VOCABULARY = 2048

# Two steps of training in a process of its own, whose peak of memory is measured; the products of a third are counted.
TRAIN = """
import dataclasses, json, resource, sys
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from aios.settings.config import TrainingConfig
from aios.cli.hrm_hf.model_setup import new_model
from aios.cli.hrm_hf.optimization import build_optimizers
from aios.data.tokenizer import load_tokenizer
config = TrainingConfig(**json.loads(sys.argv[1]))
model = new_model(config, load_tokenizer())
if config.gradient_checkpointing:
    model.activation_checkpointing_enable()
optimizers = build_optimizers(model.train(), 1e-3, 0.1, config.optimizer)
def differentiate():
    tokens = torch.randint(0, 2048, (config.batch_size, config.max_seq_len))
    model(input_ids=tokens, labels=tokens).loss.backward()
for _ in range(2):
    differentiate()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):  # a fused attention is not counted
    differentiate()
print(json.dumps([sum(p.numel() for p in model.parameters()), peak, counted.get_total_flops()]))
"""


def size_of(config: TrainingConfig) -> RunSize:
    return RunSize.of(config, VOCABULARY, workers=1, mixed=False)


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize(
    "flags", [{}, {"use_moe": True, "num_experts": 3}, {"expansion": 1.7, "h_layers": 3}], ids=["plain", "moe", "odd"]
)
def test_parameters_are_exact(preset: str, flags: dict[str, object]) -> None:
    import torch

    from aios.cli.hrm_hf.model_setup import new_model
    from aios.data.tokenizer import load_tokenizer

    config = TrainingConfig(preset=preset, **flags)
    tokenizer = load_tokenizer()
    with torch.device("meta"):
        model = new_model(config, tokenizer)
    assert model_parameters(size_of(config)) == sum(p.numel() for p in model.parameters())


def test_adapter_parameters_are_exact() -> None:
    pytest.importorskip("peft")
    from aios.cli.hrm_hf.lora import add_adapters
    from aios.cli.hrm_hf.model_setup import new_model
    from aios.data.tokenizer import load_tokenizer

    config = TrainingConfig(use_peft=True, lora_rank=5)
    model = new_model(config, load_tokenizer())
    add_adapters(model, config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert adapter_parameters(size_of(config)) == trained


@pytest.mark.parametrize("flags", [{}, {"model_dtype": "bf16"}, {"use_peft": True, "lora_rank": 5}], ids=str)
@pytest.mark.parametrize("searches", [False, True], ids=["fixed rate", "with a snapshot"])
def test_the_average_of_the_weights_counts_as_it_is_held(flags: dict[str, object], searches: bool) -> None:
    from aios.cli.hrm_hf.lora import add_adapters
    from aios.cli.hrm_hf.model_setup import new_model
    from aios.data.tokenizer import load_tokenizer
    from aios.engines.weight_average import WeightAverage

    plain = TrainingConfig(**flags, auto_adjust_lr=searches)
    averaged = dataclasses.replace(plain, ema=0.999)
    model = new_model(averaged, load_tokenizer())
    if averaged.use_peft:
        pytest.importorskip("peft")
        add_adapters(model, averaged)
    *averages, _count = WeightAverage(model, averaged.ema).tensors
    held = sum(tensor.nbytes for tensor in averages)
    more = training_memory(size_of(averaged)) - training_memory(size_of(plain))
    assert more == (2 * held if searches else held)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is in other units elsewhere")
@pytest.mark.timeout(1000)
@pytest.mark.parametrize(
    "flags",
    [
        {"preset": "tiny", "batch_size": 48},
        pytest.param({"preset": "base", "batch_size": 2}, marks=pytest.mark.slow),
        pytest.param({"preset": "base", "batch_size": 2, "optimizer": "muon"}, marks=pytest.mark.slow),
        pytest.param({"preset": "small", "batch_size": 16, "use_moe": True}, marks=pytest.mark.slow),
        pytest.param({"preset": "small", "batch_size": 16, "use_moe": True, "num_experts": 12}, marks=pytest.mark.slow),
        pytest.param({"preset": "small", "batch_size": 32, "gradient_checkpointing": True}, marks=pytest.mark.slow),
        pytest.param({"preset": "tiny", "batch_size": 8, "max_seq_len": 1024}, marks=pytest.mark.slow),
    ],
)
def test_memory_and_work_are_within_what_is_measured(flags: dict[str, object]) -> None:
    """At most what is measured, and at least half of it."""
    config = {**flags, "auto_adjust_lr": False}
    args = [sys.executable, "-c", TRAIN, json.dumps(config)]
    done = subprocess.run(args, capture_output=True, text=True, timeout=900, check=True)
    parameters, peak, flops = json.loads(done.stdout)
    size = size_of(TrainingConfig(**config))
    assert parameters == model_parameters(size)
    assert peak / 2 < training_memory(size) < peak
    if not size.use_moe:  # nor are the grouped products of experts
        assert flops / 2 < micro_batch_flops(size) <= flops


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_presets_are_never_refused(preset: str, device: str) -> None:
    """With their defaults they train in 8 GB, whatever else this machine has."""
    config = TrainingConfig(preset=preset)
    check_fits_device(config, VOCABULARY, device, 8 * 10**9)
    assert block_applications(size_of(config)) <= 96


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"batch_size": 4000}, "--batch-size 4000 needs about "),
        ({"max_seq_len": 10**6}, "--max-seq-len 1000000 needs about "),
        ({"hidden_size": 8192}, "--hidden-size 8192 needs about "),
        ({"preset": "base"}, "This --preset needs about "),
    ],
)
def test_device_too_small_is_named(flags: dict[str, object], sentence: str) -> None:
    config = TrainingConfig(**flags, device="cuda")
    with pytest.raises(UserError) as refused:
        check_fits_device(config, VOCABULARY, "cuda", 5 * 10**8)
    assert str(refused.value).startswith(sentence)
    assert "but the cuda device has 500 MB" in str(refused.value)


def test_machine_has_memory() -> None:
    memory = host_memory()
    assert memory is not None
    if Path("/proc/meminfo").exists():
        total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
        assert memory <= total


def test_memory_limit_of_the_process_counts() -> None:
    """`ulimit -v` is a limit like the machine's own."""
    code = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (3 * 10**9, 3 * 10**9))\n"
    code += "from aios.settings.machine import host_memory\nprint(host_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == 3 * 10**9
