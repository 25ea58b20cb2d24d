from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aios.data.text_source import check_dataset, iter_pieces
from aios.errors import UserError


def read_documents(path: Path, piece_chars: int = 32) -> list[str]:
    documents, parts = [], []
    for piece in iter_pieces(check_dataset(path), piece_chars):
        assert len(piece.text) <= piece_chars
        parts.append(piece.text)
        if piece.ends_document:
            documents.append("".join(parts))
            parts = []
    assert not parts, "the last document was not ended"
    return documents


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_pieces_of_a_text_file_join_to_its_text(tmp_path: Path, text: str) -> None:
    assert read_documents(write(tmp_path / "any.txt", text), piece_chars=7) == [text]


def test_pieces_are_cut_after_lone_newlines_else_before_spaces(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one two three\nfour five six seven")
    assert [piece.text for piece in iter_pieces(check_dataset(path), 20)] == [
        "one two three\n",
        "four five six seven",
    ]
    assert [piece.text for piece in iter_pieces(check_dataset(path), 10)] == [
        "one two",
        " three\n",
        "four five",
        " six seven",
    ]


def test_one_endless_line_is_cut_to_pieces(tmp_path: Path) -> None:
    path = write(tmp_path / "line.txt", "x" * 1_000_000)
    assert read_documents(path, piece_chars=1000) == ["x" * 1_000_000]


def test_byte_order_mark_is_dropped_and_newlines_are_kept(tmp_path: Path) -> None:
    assert read_documents(write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\r\n")) == ["one\r\ntwo\r\n"]


def test_jsonl_gives_one_document_a_line(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text, "id": 1}) for text in ("first é", "", "second\nline " * 9)]
    path = write(tmp_path / "a.jsonl", "\ufeff" + "\n\n".join(lines))
    assert read_documents(path) == ["first é", "second\nline " * 9]


def test_folder_is_read_recursively_in_sorted_order(tmp_path: Path) -> None:
    write(tmp_path / "b.txt", "bee")
    write(tmp_path / "a" / "z.md", "zed")
    write(tmp_path / "c.jsonl", '{"text": "sea"}\n{"text": "see"}\n')
    write(tmp_path / "d.TEXT", "dee")
    write(tmp_path / "empty.txt", "")
    write(tmp_path / "image.png", b"\0\1\2")
    assert read_documents(tmp_path) == ["zed", "bee", "sea", "see", "dee"]


def test_progress_ends_at_the_size_of_the_source(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "word " * 500)
    write(tmp_path / "b.jsonl", '{"text": "sea"}\n')
    source = check_dataset(tmp_path)
    done = [piece.bytes_done for piece in iter_pieces(source)]
    assert done == sorted(done)
    assert done[-1] == source.total_bytes == 2516


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "is empty"),
        ("nul.txt", b"text\0text", r"nul\.txt is binary.*byte 4"),
        ("latin1.txt", "caf\xe9 au lait".encode("latin-1"), r"latin1\.txt is not UTF-8.*byte 3.*like latin-1"),
        ("utf16.txt", "text".encode("utf-16"), r"byte 3.*like utf-16"),
        ("nul.jsonl", b'{"text": "\0"}', "binary"),
        ("picture.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\x90\0\0\1,\x08\2", "is binary"),
    ],
)
def test_unusable_file_is_refused_before_it_is_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_dataset(write(tmp_path / name, content))


def test_missing_file_and_useless_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.txt does not exist"):
        check_dataset(tmp_path / "none.txt")
    with pytest.raises(UserError, match="is empty"):
        check_dataset("")
    write(tmp_path / "folder" / "image.png", b"\x89PNG")
    write(tmp_path / "folder" / "empty.txt", b"")
    with pytest.raises(UserError, match="no non-empty text file"):
        check_dataset(tmp_path / "folder")


def test_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        check_dataset(tmp_path / "pipe")


@pytest.mark.parametrize("position", [70_000, 262_143, 262_144, 600_000])
@pytest.mark.parametrize("bad", [b"\0", b"\xff", b"\xe2\x82"], ids=["nul", "invalid", "cut short"])
def test_damage_further_in_is_named_with_its_offset(tmp_path: Path, position: int, bad: bytes) -> None:
    path = write(tmp_path / "a.txt", b"a" * position + bad + b"b" * 100_000)
    with pytest.raises(UserError, match=rf"a\.txt is .*UTF-8 text \(byte {position}\)"):
        list(iter_pieces(check_dataset(path)))


def test_character_cut_off_by_the_end_of_the_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"price in \xe2\x82")
    with pytest.raises(UserError, match=r"is not UTF-8 text \(byte 9\); convert it"):
        list(iter_pieces(check_dataset(path)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "open', "not valid JSON"),
        ('{"body": "words"}', 'no string under the key "text"'),
        ('{"text": 5}', 'no string under the key "text"'),
        ('["text"]', 'no string under the key "text"'),
        ('{"text": "\\ud800"}', "surrogate"),
        ('{"text": "fine", "id": ' + "1" * 5000 + "}", "not valid JSON"),
        ("[" * 200_000, "not valid JSON"),
    ],
)
def test_bad_jsonl_line_is_named_with_file_and_number(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "fine"}\n\n' + line + "\n")
    with pytest.raises(UserError, match=rf"Line 3 of the dataset file .*a\.jsonl .*{message}"):
        list(iter_pieces(check_dataset(path)))


def test_invalid_utf8_in_jsonl_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "fine"}\n' * 10_000 + b'{"text": "\xff"}\n')
    with pytest.raises(UserError, match=r"Line 10001 .* is not UTF-8 \(byte 10 of the line\)"):
        list(iter_pieces(check_dataset(path)))


TEXTS = {
    "latin-1": "En ma fin gît mon commencement. Où êtes-vous, cafés d'été ? " * 20,
    "cp1252": "He said: \u201cIt is \u2013 as they say \u2013 a naïve question\u2026\u201d and left. " * 20,
    "utf-16": "Text with an \u2018ï\u2019 that an editor of Windows saved as Unicode.\n" * 20,
    "utf-32": "Text with an é that took four bytes a letter.\n" * 20,
    "utf-16-le": "The same, without the mark at its beginning: é.\n" * 20,
    "utf-16-be": "And the other way round: é.\n" * 20,
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_text_in_another_encoding_is_told_by_name_and_read_under_it(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.txt", TEXTS[encoding].encode(encoding))
    with pytest.raises(UserError, match=rf"is not UTF-8 text \(byte \d+\), but looks like {encoding}; give --encoding"):
        check_dataset(path)
    source = check_dataset(path, encoding)
    assert "".join(piece.text for piece in iter_pieces(source, 100)) == TEXTS[encoding]


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (
            "\u0416\u0438\u043b-\u0431\u044b\u043b".encode("cp1251"),
            "utf-8",
            r"is not UTF-8 text \(byte 0\); .*name its encoding",
        ),
        ("déjà vu, ".encode() * 9 + b"caf\xe9 au lait", "utf-8", r"is not UTF-8 text .*; convert it, or name"),
        (b"caf\xc3\xa9", "ascii", r"is not text in ascii \(byte 3\); check --encoding"),
        (b"text\0text", "latin-1", r"is not text in latin-1 \(byte 4\)"),
        ("a\0b".encode("utf-16"), "utf-16", "is not text in utf-16"),
    ],
)
def test_what_cannot_be_told_or_is_not_what_was_named_is_refused(
    tmp_path: Path, content: bytes, encoding: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_dataset(write(tmp_path / "a.txt", content), encoding)


def test_rows_are_utf8_whatever_the_encoding_of_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "café"}'.encode())
    assert [piece.text for piece in iter_pieces(check_dataset(path, "latin-1"))] == ["café"]
