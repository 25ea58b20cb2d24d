"""Peak memory must not grow with the size of the text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aios.data.tokenizer import bundled_corpus_path

# VmHWM starts afresh at exec; ru_maxrss would begin at the size of this very process and hide the difference.
TOKENISE = """
import sys
from pathlib import Path
from aios.data.dataset import DataConfig, TrainBatches, load_data, unigram_entropy
from aios.data.tokenizer import load_tokenizer
split = load_data(DataConfig(Path(sys.argv[1])), load_tokenizer())
unigram_entropy(split.train)
batches = TrainBatches(split.train, seed=1, batch_size=64)
for position in range(200):
    batches.batch(position)
status = Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


def peak_megabytes(path: Path) -> int:
    result = subprocess.run([sys.executable, "-c", TOKENISE, str(path)], check=True, capture_output=True, text=True)
    return int(result.stdout)


def write_big(path: Path, megabytes: int, newline: bytes) -> Path:
    verses = bundled_corpus_path().read_bytes().replace(b"\n", newline)
    with path.open("wb") as stream:
        for _ in range(megabytes):
            stream.write(verses)
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.parametrize(
    ("megabytes", "newline"),
    [(4, b" "), pytest.param(200, b"\n", marks=pytest.mark.slow)],
    ids=["4 MB in one line", "200 MB in lines"],
)
def test_large_file_is_tokenised_and_drawn_from_in_bounded_memory(
    tmp_path: Path, megabytes: int, newline: bytes
) -> None:
    big = write_big(tmp_path / "big.txt", megabytes, newline)
    assert peak_megabytes(big) - peak_megabytes(bundled_corpus_path()) < (60 if megabytes == 4 else 150)
