"""A loop of one's own around DistributedDataParallel, two real processes; a model whose weights are shared out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from aios.auto_lr import AutoLR

WORKER = Path(__file__).with_name("own_loop_worker.py")


@pytest.mark.parametrize(
    ("trained", "wrapped"), [("fresh", "plain"), ("trained", "plain"), ("fresh", "compiled"), ("fresh", "in a list")]
)
def test_workers_with_data_of_their_own_decide_alike(trained: str, wrapped: str, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([sys.executable, str(WORKER), trained, wrapped, str(rank), str(tmp_path)], env=environment)
        for rank in range(2)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert one["rates"] == other["rates"]
    assert all(torch.equal(one["weights"][name], other["weights"][name]) for name in one["weights"])


def test_weights_that_are_shared_out_are_refused_in_one_sentence() -> None:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = nn.Linear(8, 8)
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(ValueError, match=r"shared out among workers .*DistributedDataParallel"):
            AutoLR(model, torch.optim.AdamW(model.parameters()), 100)
    finally:
        torch.distributed.destroy_process_group()
