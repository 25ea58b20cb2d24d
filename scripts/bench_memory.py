"""Peak memory of training on a large text beside the same run on 1 MB, and of a step by its number of ACT segments.

`python scripts/bench_memory.py [--part text|segments] [--gigabytes 2] [--json docs/benchmarks/memory.json]` writes a
text of that size by shuffling the lines of the bundled corpus, trains on both as child processes with `aios hrm-hf
train`, and prints both peaks. Tokenising the large text is part of its run. The second part is counted by
`segment_activations.py`. Exit code 1 when the large text takes over 300 MB more, when 8 segments differentiated one by
one keep over 1.3 times the activations of 1, or when a run fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aios.data.tokenizer import bundled_corpus_path
from remembered import put_figures

ALLOWED_MB = 300.0
"""How much more the large run may take, in MB (10^6 bytes)."""
ALLOWED_RATIO = 1.3
"""How many times the activations of 1 segment those of 8 may take, differentiated one by one."""


@dataclass(frozen=True)
class Peak:
    """What one training run took."""

    dataset_mb: float
    """Size of the text in MB."""
    peak_rss_mb: float
    """Largest resident memory of the process in MB."""
    wall_s: float
    """Duration of the whole run, tokenisation included, in seconds."""


def write_text(path: Path, size: int) -> None:
    """Write at least `size` bytes: the corpus again and again, its lines in a new order each time."""
    lines = bundled_corpus_path().read_bytes().splitlines(keepends=True)
    shuffler = random.Random(0)
    with path.open("wb") as stream:
        while stream.tell() < size:
            shuffler.shuffle(lines)
            stream.writelines(lines)


def train_command(dataset: Path, brains: Path, steps: int) -> list[str]:
    """The training run to measure: a small model, so that the data's share of the memory shows."""
    command = [sys.executable, "-m", "aios", "hrm-hf", "train", "--dataset-file", str(dataset)]
    command += ["--bundle-dir", str(brains), "--brain-name", dataset.stem, "--device", "cpu"]
    command += ["--preset", "tiny", "--batch-size", "8", "--steps", str(steps), "--eval-batches", "2"]
    return command


def measure(command: Sequence[str], dataset: Path, cache: Path) -> Peak:
    """Run a child to its end; its peak is what `wait4` reports. Raises RuntimeError when it fails.

    The kernel lets a child's peak begin at the size of its parent, so this script imports nothing large.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile() as output:
        environment = {**os.environ, "AIOS_CACHE_DIR": str(cache)}
        child = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            output.seek(0)
            said = output.read().decode("utf-8", errors="replace")
            raise RuntimeError(f"{' '.join(command)} ended with exit code {child.returncode}:\n{said}")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return Peak(dataset.stat().st_size / 1e6, usage.ru_maxrss * unit / 1e6, time.monotonic() - start)


def compare(gigabytes: float, steps: int, work_dir: Path) -> tuple[Peak, Peak]:
    """Peaks of the run on 1 MB and of the run on `gigabytes`, with all files in `work_dir`."""
    small, large = work_dir / "small.txt", work_dir / "large.txt"
    shutil.copyfile(bundled_corpus_path(), small)
    write_text(large, int(gigabytes * 1e9))
    peaks = [
        measure(train_command(path, work_dir / "brains", steps), path, work_dir / "cache") for path in (small, large)
    ]
    return peaks[0], peaks[1]


def count_segments() -> list[dict[str, Any]]:
    """What `segment_activations.py` says, one entry for each number of segments."""
    script = Path(__file__).with_name("segment_activations.py")
    said = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, check=True, text=True).stdout
    return [json.loads(line) for line in said.splitlines()]


def report_segments(rows: Sequence[dict[str, Any]]) -> float:
    """Print the table; returns how many times the activations of 1 segment those of 8 take."""
    print(f"{'segments':>12} {'one backward (MB)':>18} {'one for each (MB)':>18}")
    for row in rows:
        print(f"{row['segments']:>12} {row['whole_mb']:>18.1f} {row['by_segment_mb']:>18.1f}")
    kept = {row["segments"]: row["by_segment_mb"] for row in rows}
    return float(kept[8] / kept[1])


def report(small: Peak, large: Peak) -> None:
    """Print the table."""
    print(f"{'text (MB)':>12} {'peak RSS (MB)':>14} {'run (s)':>9}")
    for peak in (small, large):
        print(f"{peak.dataset_mb:>12.1f} {peak.peak_rss_mb:>14.1f} {peak.wall_s:>9.1f}")
    print(f"difference: {large.peak_rss_mb - small.peak_rss_mb:+.1f} MB, allowed: {ALLOWED_MB:.0f} MB")


def parse_arguments() -> argparse.Namespace:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("text", "segments"), help="measure one part only")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the large text (10^9 bytes)")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of each run")
    parser.add_argument("--work-dir", type=Path, help="folder for temporary files; needs twice --gigabytes")
    parser.add_argument("--json", type=Path, help="write the result here as well")
    return parser.parse_args()


def main() -> int:
    """Measure, print, and judge: exit code 1 over an allowance or when a run fails."""
    arguments = parse_arguments()
    told: dict[str, Any] = {}
    fits = True
    if arguments.part != "text":
        told["segments"] = count_segments()
        fits = report_segments(told["segments"]) <= ALLOWED_RATIO
    if arguments.part != "segments":
        measured = measure_text(arguments)
        if measured is None:
            return 1
        told |= measured
        fits = fits and measured["difference_mb"] <= ALLOWED_MB
    if arguments.json is not None:
        put_figures(arguments.json, told)
    return 0 if fits else 1


def measure_text(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Both peaks, printed; None when a run failed."""
    with tempfile.TemporaryDirectory(prefix="aios-memory-", dir=arguments.work_dir) as folder:
        try:
            small, large = compare(arguments.gigabytes, arguments.steps, Path(folder))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return None
    report(small, large)
    difference = large.peak_rss_mb - small.peak_rss_mb
    return {"small": asdict(small), "large": asdict(large), "difference_mb": difference, "allowed_mb": ALLOWED_MB}


if __name__ == "__main__":
    sys.exit(main())
