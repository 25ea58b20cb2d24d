"""A file is replaced whole or stays as it was; what is read of one has a limit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from aios.files import NotPlainError, read_at_most, replace_file


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    for content in (b"one", b"two"):
        replace_file(path, lambda file, content=content: file.write(content), durable=durable)  # type: ignore[misc]
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file"]


def test_a_file_stays_as_it_was_where_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file: BinaryIO) -> None:
        file.write(b"new")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        replace_file(path, fail)
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"old", ["file"])


def test_a_folder_is_set_aside_only_where_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.mkdir()
    with pytest.raises(OSError, match="file"):
        replace_file(path, lambda file: file.write(b"new"))
    assert os.listdir(tmp_path) == ["file"]
    replace_file(path, lambda file: file.write(b"new"), over_folder=True)
    assert path.read_bytes() == b"new"
    assert len(list(tmp_path.glob("file.folder-*"))) == 1


def test_a_file_is_read_up_to_one_byte_behind_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert (read_at_most(path, 5), read_at_most(path, 3)) == (b"12345", b"1234")


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"12")
    (tmp_path / "link").symlink_to("file")
    assert read_at_most(tmp_path / "link", 9) == b"12"
    for name, follow in (("pipe", True), (".", True), ("link", False)):
        with pytest.raises(NotPlainError):
            read_at_most(tmp_path / name, 9, follow)
    with pytest.raises(FileNotFoundError):
        read_at_most(tmp_path / "none", 9)
    with pytest.raises(OSError, match="null"):
        read_at_most(tmp_path / "a\0b", 9)
