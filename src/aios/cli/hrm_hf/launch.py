"""Start the workers of a shared-weights run through torch's elastic launcher, on this machine."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from aios.cli.cores import divide_cores
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.run_setup import data_config
from aios.data.dataset import load_data
from aios.data.tokenizer import load_tokenizer
from aios.distributed.environment import PARENT
from aios.distributed.launch_notes import expect_notes, refused
from aios.distributed.parent import STOP_SECONDS
from aios.distributed.supervisor import how_it_ended
from aios.engines.device import cuda_devices, device_kind
from aios.errors import RunError, UserError, shown
from aios.runs.lock import BrainLock
from aios.settings.config import TrainingConfig
from aios.terminal.console import RunConsole

_LAST_PORT = 65535


def worker_count(config: TrainingConfig) -> int:
    """How many workers `--world-size`, `--cuda-ids` and the devices of this machine mean.

    Raises:
        UserError: when there are fewer CUDA devices than workers, or nothing says how many there should be.
    """
    if device_kind(config) != "cuda":
        if config.world_size is None:
            raise UserError("Without CUDA devices nothing says how many workers to start; give --world-size.")
        return config.world_size
    devices = len(cuda_devices(config))
    wanted = config.world_size or devices
    if wanted > devices:
        raise UserError(
            f"--world-size is {wanted}, but there are {devices} CUDA devices for the workers; lower it, or start "
            "workers on several machines with torchrun."
        )
    return wanted


def launch(origin: Origin, args: list[str], lock: BrainLock) -> None:
    """Run `aios ARGS` in as many processes as the config wants workers, and wait for them; this one keeps `lock`.

    When one is lost, all are started again from the newest checkpoint, up to --max-restarts times. A signal to stop
    is passed on to them.

    Raises:
        UserError: when there is no such device, the data cannot be trained on, or MASTER_PORT is no port that is free.
        RunError: when workers were lost more often than --max-restarts.
    """
    config = origin.config
    count = worker_count(config)
    # Here, so that it is done once and unusable data is refused once.
    load_data(data_config(config), load_tokenizer(origin.tokenizer), RunConsole(config.steps).tokenizing)
    if device_kind(config) != "cuda":
        divide_cores(os.environ, count)
    # A store of its own for each start: in the shared one, workers started again find the addresses of the dead.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    settings = _on_this_machine(count, config.max_restarts)
    lock.leave_writing()
    with TemporaryDirectory() as folder:
        expect_notes(Path(folder))
        os.environ[PARENT] = str(os.getpid())
        try:
            elastic_launch(settings, sys.executable)("-m", "aios", *args)
        except SignalException:
            return  # the workers have saved and ended
        except ChildFailedError as error:
            raise _explained(error, config) from error


def _on_this_machine(count: int, max_restarts: int) -> LaunchConfig:
    """What the elastic launcher has to know of `count` workers."""
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=f"aios-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint=f"localhost:{_free_port()}",
        local_addr="localhost",
        max_restarts=max_restarts,
        logs_specs=DefaultLogsSpecs(),
        shutdown_timeout=STOP_SECONDS,
    )


def _free_port() -> int:
    """Where the workers meet: MASTER_PORT where it is set, else any free port (0)."""
    port = _asked_port()
    with closing(socket.socket()) as probe:
        try:
            probe.bind(("localhost", port))
        except OSError as error:
            raise UserError(f"Port {port} (MASTER_PORT) is in use; choose another or unset it.") from error
    return port


def _asked_port() -> int:
    """MASTER_PORT; 0 where it is not set."""
    asked = os.environ.get("MASTER_PORT", "")
    if asked in ("", "0"):
        return 0
    number = int(asked) if asked.isascii() and asked.isdecimal() and len(asked) <= len(str(_LAST_PORT)) else 0
    if not 1 <= number <= _LAST_PORT:
        raise UserError(f"MASTER_PORT is {shown(asked)}; it must be a port, 1 to {_LAST_PORT}, or not set.")
    return number


def _explained(error: ChildFailedError, config: TrainingConfig) -> UserError | RunError:
    """What a worker's end means for the run; the worker's own sentence stands above."""
    given_up = refused()
    if given_up == 2:
        return UserError("The workers refused their input; the sentence above says what to change.")
    if given_up is not None:
        return RunError("The workers gave up; the sentence above says why.")
    rank, failure = next(iter(error.failures.items()))
    how = how_it_ended(failure.exitcode)
    if failure.exitcode == -signal.SIGABRT and torch.cuda.is_available():
        how += f", perhaps by NCCL after {config.merge_timeout} s (--merge-timeout) of waiting for another worker,"
    return RunError(
        f"Worker {rank} {how} and {config.max_restarts} restarts are used up; what it said stands above; continue with "
        "--resume."
    )
