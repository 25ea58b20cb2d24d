"""Peak memory must not grow with the size of the text."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aios.data.tokenizer import bundled_corpus_path

# VmHWM starts afresh at exec; ru_maxrss would begin at the size of this very process and hide the difference.
PEAKS = """
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024

for path in sys.argv[1:]:
    use(path)
    print(peak())
"""
TOKENISE = """
import sys
from pathlib import Path
from aios.data.dataset import DataConfig, TrainBatches, load_data, unigram_entropy
from aios.data.tokenizer import load_tokenizer

def use(path):
    split = load_data(DataConfig(Path(path), seq_len=128), load_tokenizer())
    unigram_entropy(split.train)
    batches = TrainBatches(split.train, seed=1, batch_size=64)
    for position in range(200):
        batches.batch(position)
"""
READ = """
import sys
from pathlib import Path
from aios.data.text_source import check_dataset, iter_pieces

def use(path):
    for piece in iter_pieces(check_dataset(path)):
        pass
"""


def growth(small: Path, large: Path, code: str) -> int:
    """By how many megabytes the peak of a process that has used `small` rises when it then uses `large`."""
    command = [sys.executable, "-c", code + PEAKS, str(small), str(large)]
    first, second = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(second) - int(first)


def write_big(path: Path, megabytes: int, newline: bytes) -> Path:
    verses = bundled_corpus_path().read_bytes().replace(b"\n", newline)
    with path.open("wb") as stream:
        for _ in range(megabytes):
            stream.write(verses)
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("megabytes", "newline"),
    [(4, b" "), pytest.param(200, b"\n", marks=pytest.mark.slow)],
    ids=["4 MB in one line", "200 MB in lines"],
)
def test_large_file_is_tokenised_and_drawn_from_in_bounded_memory(
    tmp_path: Path, megabytes: int, newline: bytes
) -> None:
    big = write_big(tmp_path / "big.txt", megabytes, newline)
    assert growth(bundled_corpus_path(), big, TOKENISE) < (60 if megabytes == 4 else 150)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_large_table_is_read_in_bounded_memory(tmp_path: Path, kind: str) -> None:
    """Of 100 MB, all in one row group, which is what pyarrow writes by default."""
    small, large = (tmp_path / f"{name}.{kind}" for name in ("small", "large"))
    for path, rows in ((small, 1000), (large, 100_000)):
        table = pa.table({"text": [secrets.token_hex(500) for _ in range(rows)]})
        if kind == "parquet":
            pq.write_table(table, path, use_dictionary=False)
        else:
            with pa.ipc.new_stream(path, table.schema) as stream:
                stream.write_table(table, max_chunksize=1000)
    assert growth(small, large, READ) < 40
