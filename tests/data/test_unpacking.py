"""Packed text: the same documents as unpacked, in bounded memory; damage is one sentence."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from aios.data.text_source import check_dataset, iter_pieces
from aios.errors import UserError

PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstandard.compress}
LINES = b"".join(json.dumps({"text": f"line {n} of many"}).encode() + b"\n" for n in range(20_000))


def text_of(path: Path) -> str:
    return "".join(piece.text for piece in iter_pieces(check_dataset(path)))


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".TXT", ""])
def test_packed_is_read_as_what_its_name_says(tmp_path: Path, packing: str, suffix: str) -> None:
    plain, packed = tmp_path / f"plain{suffix}", tmp_path / f"packed{suffix}{packing}"
    plain.write_bytes(LINES)
    packed.write_bytes(PACK[packing](LINES))
    assert text_of(packed) == text_of(plain)
    source = check_dataset(packed)
    done = [piece.bytes_done for piece in iter_pieces(source)]
    assert done == sorted(done)
    assert done[-1] == source.total_bytes == packed.stat().st_size


@pytest.mark.parametrize("packing", PACK)
def test_members_one_after_another_are_one_file(tmp_path: Path, packing: str) -> None:
    path = tmp_path / f"a.txt{packing}"
    path.write_bytes(b"".join(PACK[packing](part) for part in (b"one ", b"", b"two " * 50_000, b"three")))
    assert text_of(path) == "one " + "two " * 50_000 + "three"


def test_packed_files_are_found_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"first "))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(b'{"text": "second"}'))
    (tmp_path / "c.tar.gz").write_bytes(b"something else")
    assert text_of(tmp_path) == "first second"


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("keep", [0.1, 0.6, 0.999])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, packing: str, keep: float) -> None:
    path = tmp_path / f"a.jsonl{packing}"
    content = PACK[packing](LINES)
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match=rf"a\.jsonl\{packing} cannot be unpacked by (gzip|zstd) .* pack it again"):
        text_of(path)


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("damage", ["other file", "flipped"])
def test_damaged_bytes_are_refused(tmp_path: Path, packing: str, damage: str) -> None:
    path = tmp_path / f"a.txt{packing}"
    content = bytearray(PACK[packing](LINES) if damage == "flipped" else b"plain text all along")
    if damage == "flipped":
        content[len(content) // 2 : len(content) // 2 + 200] = b"\0" * 200
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be unpacked|is binary"):
        text_of(path)


@pytest.mark.parametrize("packing", PACK)
def test_a_line_without_end_is_refused_in_bounded_memory(tmp_path: Path, packing: str) -> None:
    path = tmp_path / f"bomb.jsonl{packing}"
    path.write_bytes(PACK[packing](b'{"text": "' + b"a" * 300_000_000))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"Line 1 .* is longer than \d+ bytes"):
        check_dataset(path)
    assert tracemalloc.get_traced_memory()[1] < 150_000_000
    tracemalloc.stop()
