"""Does everything work on this GPU, how fast, and in how much memory? One command, under ten minutes, one table.

    python scripts/gpu_check.py                              # needs `pip install -e ".[all,dev]"` and a CUDA device
    python scripts/gpu_check.py --only tests,small,fp16
    python scripts/gpu_check.py --device cpu --steps 10      # only to try the script itself

Runs the tests that need CUDA (overflows under fp16 and captured updates among them), then real trainings: the three
presets in bf16, each beside a plain loop over the same model (`plain_training.py`), fp16, a mixture of experts, Muon,
torch.compile, gradient checkpointing, DDP, ZeRO 1 to 3, going on after a stop, and an answer of the trained brain.
"of plain" is the trainer's speed beside that of the plain loop; MFU the part of the device's own speed in large matrix
products of the same number type, which is measured, that goes into the products of the model. The evaluations and the
search are in the seconds, not in the speed. Exit code 1 when a check fails, 2 where there is no such device.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from aios.core.architecture import PRESETS
from aios.settings.config import TrainingConfig

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "tests/auto_lr/test_loss_scaling.py",
    "tests/auto_lr/test_tensor_rate.py",
    "tests/cli/hrm_hf/test_adaptive_lr_training.py",
)
"""Those with cases that are left out where there is no CUDA device."""
LONGEST = 150
"""Seconds after which a check is stopped and has failed."""
PLAIN = "plain_"
"""What the names of the plain loops begin with; a preset follows."""
SMALL_TEXT = ("--max-seq-len=256", "--eval-batches=8", "--save-every=0")
TRAININGS: dict[str, tuple[str, ...]] = {
    "tiny": ("--preset=tiny",),
    "small": ("--preset=small",),
    "base": ("--preset=base",),
    "fp16": ("--preset=small", "--model-dtype=fp16"),
    "moe": ("--preset=small", "--use-moe"),
    "muon": ("--preset=small", "--optimizer=muon"),
    "compiled": ("--preset=tiny", "--compile"),
    "one_backward": ("--preset=base", "--no-backward-per-segment"),
    "checkpointing": ("--preset=base", "--gradient-checkpointing"),
    "ddp": ("--preset=tiny", "--ddp", "--world-size=1"),
    "zero1": ("--preset=tiny", "--zero-stage=zero1", "--world-size=1"),
    "zero2": ("--preset=tiny", "--zero-stage=zero2", "--world-size=1"),
    "zero3": ("--preset=tiny", "--zero-stage=zero3", "--world-size=1"),
}
"""Flags of each training."""


@dataclass(frozen=True)
class Result:
    """What a check has shown; None where it shows no such number."""

    name: str
    ok: bool
    seconds: float
    tokens_per_second: float | None = None
    """Median over the second half of the steps."""
    eval_loss: float | None = None
    """At the end, nats per token."""
    gigabytes: float | None = None
    """Most memory of the device in use meanwhile, above what was before."""
    flops_per_token: float | None = None
    """Of a plain loop: what a token's training takes."""
    product_rate: float | None = None
    """Of a plain loop: floating point operations in a second of large matrix products on this device."""
    said: str = ""
    """The last lines that were printed."""


class MemoryWatch:
    """Polls how much of the device's memory is in use, by whatever process, while the block runs."""

    def __init__(self, device: str) -> None:
        self._on = device == "cuda"
        self._over = threading.Event()
        self._least = self._first = self._free()

    def _free(self) -> int:
        return torch.cuda.mem_get_info()[0] if self._on else 0

    @property
    def gigabytes(self) -> float | None:
        """The most that came on top."""
        return (self._first - self._least) / 1e9 if self._on else None

    def __enter__(self) -> MemoryWatch:
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._over.wait(0.1):
            self._least = min(self._least, self._free())


def run(name: str, command: list[str], device: str) -> Result:
    """One command as a process of its own."""
    begun = time.perf_counter()
    with MemoryWatch(device) as memory, tempfile.TemporaryFile("w+") as output:
        try:
            code = subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, timeout=LONGEST).returncode
        except subprocess.TimeoutExpired:
            code = -1
        output.seek(0)
        said = "\n".join(output.read().splitlines()[-15:])
    return Result(name, code == 0, time.perf_counter() - begun, gigabytes=memory.gigabytes, said=said)


def plain(preset: str, args: argparse.Namespace) -> Result:
    """A plain loop over the model of a preset, on batches as large as the trainer's."""
    batch = f"--batch-size={TrainingConfig().batch_size}"
    script = str(ROOT / "scripts" / "plain_training.py")
    flags = [f"--preset={preset}", f"--device={args.device}", f"--steps={args.steps}", batch, SMALL_TEXT[0]]
    result = run(PLAIN + preset, [sys.executable, script, *flags], args.device)
    return replace(result, **json.loads(result.said.splitlines()[-1])) if result.ok else result


def train(name: str, flags: tuple[str, ...], bundle: Path, args: argparse.Namespace) -> Result:
    """A training, with what its log says of speed and loss."""
    common = [f"--device={args.device}", f"--bundle-dir={bundle}", f"--brain-name={name}", *SMALL_TEXT]
    command = [sys.executable, "-m", "aios", "hrm-hf", "train", f"--steps={args.steps}", *common, *flags]
    result = run(name, command, args.device)
    log = TrainingConfig(bundle_dir=str(bundle), brain_name=name).log_path
    return replace(result, **_logged(log)) if result.ok else result


def _logged(log: Path) -> dict[str, Any]:
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    speeds = [record["tokens_per_sec"] for record in records if record["event"] == "train"]
    (final,) = (record for record in records if record["event"] == "final")
    return {"tokens_per_second": median(speeds[len(speeds) // 2 :]), "eval_loss": final["eval_loss"]}


def checks(args: argparse.Namespace, bundle: Path) -> dict[str, Any]:
    """Each check by name, in order, as a function that runs it; the plain loops next to what they are compared with."""
    aios = [sys.executable, "-m", "aios", "hrm-hf"]
    place = [f"--bundle-dir={bundle}", f"--device={args.device}", "--brain-name=tiny"]
    longer = [*aios, "train", "--resume", f"--steps={2 * args.steps}", *place]
    answer = [*aios, "generate", "--prompt=In the beginning", "--max-new-tokens=64", *place]
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", *TESTS]
    trainings: dict[str, Any] = {}
    for name, flags in TRAININGS.items():
        trainings[name] = lambda name=name, flags=flags: train(name, flags, bundle, args)
        if name in PRESETS:
            trainings[PLAIN + name] = lambda name=name: plain(name, args)
    return {
        "tests": lambda: run("tests", pytest, args.device),
        **trainings,
        "resume": lambda: run("resume", longer, args.device),
        "generate": lambda: run("generate", answer, args.device),
    }


def beside_plain(result: Result, results: list[Result]) -> tuple[float | None, float | None]:
    """Speed beside that of the plain loop over the same model, and MFU; None where that loop was not run."""
    name = PLAIN + result.name.removeprefix(PLAIN)
    loop = next((each for each in results if each.name == name and each.ok), None)
    speed = result.tokens_per_second
    if loop is None or not (speed and loop.tokens_per_second and loop.flops_per_token and loop.product_rate):
        return None, None
    return speed / loop.tokens_per_second, speed * loop.flops_per_token / loop.product_rate


def shown(results: list[Result]) -> Table:
    """The results as a table."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("check", "", "seconds", "tokens/s", "of plain", "MFU", "evaluation loss", "GB"):
        table.add_column(heading, justify="left" if heading in ("check", "") else "right")
    for r in results:
        of_plain, mfu = beside_plain(r, results)
        numbers = [(r.tokens_per_second, ",.0f"), (of_plain, ".2f"), (mfu, ".0%")]
        numbers += [(r.eval_loss, ".3f"), (r.gigabytes, ".2f")]
        cells = ["-" if number is None else format(number, form) for number, form in numbers]
        table.add_row(r.name, "ok" if r.ok else "FAILED", f"{r.seconds:.0f}", *cells, style=None if r.ok else "red")
    return table


def main() -> int:
    """Run the chosen checks, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="which checks, comma-separated (resume and generate need tiny) [all]")
    parser.add_argument("--steps", type=int, default=100, help="of each training [100]")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", type=Path, default=Path(os.environ.get("OUT", ROOT / "build")) / "gpu_check.json")
    args = parser.parse_args()
    console = Console()
    if args.device == "cuda" and not torch.cuda.is_available():
        console.print("There is no CUDA device here, or torch was built without CUDA.", style="red")
        return 2
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as bundle:
        known = checks(args, Path(bundle))
        chosen = args.only.split(",") if args.only else list(known)
        if unknown := [name for name in chosen if name not in known]:
            parser.error(f"--only: no {', '.join(unknown)}; there are {', '.join(known)}")
        for name in chosen:
            results.append(known[name]())
            console.print(f"{name}: {'ok' if results[-1].ok else 'FAILED'} ({results[-1].seconds:.0f} s)")
            if not results[-1].ok:
                console.print(results[-1].said, markup=False, highlight=False)
    console.print(shown(results))
    device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    args.json.parent.mkdir(parents=True, exist_ok=True)
    told = {"device": device, "torch": torch.__version__, "steps": args.steps, "results": [asdict(r) for r in results]}
    args.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
