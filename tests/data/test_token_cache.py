from __future__ import annotations

import os
import pickle
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from aios.data.text_source import check_dataset
from aios.data.token_cache import TokenFile, default_cache_dir, tokenize_source
from aios.data.tokenizer import bundled_corpus_path, load_tokenizer
from aios.errors import RunError, UserError
from forked import Forked


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("In the beginning was the word. " * 40)
    return path


def all_tokens(tokens: TokenFile) -> list[int]:
    ids: list[int] = tokens.read(0, tokens.count).tolist()
    return ids


def cache_files(cache_dir: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (cache_dir / "tokens").iterdir()}


def test_corpus_in_pieces_gives_the_tokens_of_the_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    text = bundled_corpus_path().read_text(encoding="ascii")
    tokens = tokenize_source(check_dataset(bundled_corpus_path()), tokenizer)
    assert all_tokens(tokens) == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


def test_end_token_follows_each_document(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "And God said"}\n{"text": ""}\n{"text": "Let there be"}\n')
    tokens = tokenize_source(check_dataset(path), tokenizer)
    assert tokenizer.decode(all_tokens(tokens)) == "And God said<|endoftext|>Let there be<|endoftext|>"


def test_second_call_reuses_the_file(text_file: Path, tokenizer: PreTrainedTokenizerBase, cache_dir: Path) -> None:
    first = tokenize_source(check_dataset(text_file), tokenizer)
    before = cache_files(cache_dir)
    second = tokenize_source(check_dataset(text_file), tokenizer)
    assert cache_files(cache_dir) == before
    assert all_tokens(second) == all_tokens(first)
    assert first.path.stat().st_size == 2 * len(first)


def test_changed_text_is_tokenised_anew(text_file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    first = tokenize_source(check_dataset(text_file), tokenizer)
    status = text_file.stat()
    text_file.write_text(text_file.read_text().replace("beginning", "ending!!!"))
    os.utime(text_file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    second = tokenize_source(check_dataset(text_file), tokenizer)
    assert text_file.stat().st_size == status.st_size
    assert "ending!!!" in tokenizer.decode(all_tokens(second))
    assert "beginning" in tokenizer.decode(all_tokens(first))


def test_another_tokenizer_has_a_file_of_its_own(text_file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    other = word_tokenizer(["In", "the", "beginning"])
    assert len(tokenize_source(check_dataset(text_file), tokenizer)) != 40 * 7 + 1
    assert len(tokenize_source(check_dataset(text_file), other)) == 40 * 7 + 1


@pytest.mark.parametrize("damage", ["short tokens", "no tokens", "no manifest", "bad manifest", "odd manifest"])
def test_damaged_cache_is_rebuilt(text_file: Path, tokenizer: PreTrainedTokenizerBase, damage: str) -> None:
    first = tokenize_source(check_dataset(text_file), tokenizer)
    expected = all_tokens(first)
    manifest = first.path.with_suffix(".json")
    {
        "short tokens": lambda: os.truncate(first.path, 10),
        "no tokens": first.path.unlink,
        "no manifest": manifest.unlink,
        "bad manifest": lambda: manifest.write_text('{"count'),
        "odd manifest": lambda: manifest.write_text("[]"),
    }[damage]()
    assert all_tokens(tokenize_source(check_dataset(text_file), tokenizer)) == expected
    assert manifest.stat().st_size > 2


def test_failed_build_leaves_nothing_behind(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, cache_dir: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"good text " * 10_000 + b"\0")
    with pytest.raises(UserError, match="binary"):
        tokenize_source(check_dataset(path), tokenizer)
    assert cache_files(cache_dir) == {}


def test_input_that_changes_while_it_is_read_is_refused(
    text_file: Path, tokenizer: PreTrainedTokenizerBase, cache_dir: Path
) -> None:
    def append(done: int, total: int) -> None:
        text_file.write_text("something else")

    with pytest.raises(UserError, match="changed while it was read"):
        tokenize_source(check_dataset(text_file), tokenizer, on_progress=append)
    assert cache_files(cache_dir) == {}


def test_leftovers_of_killed_builds_go_after_a_day(
    text_file: Path, tokenizer: PreTrainedTokenizerBase, cache_dir: Path
) -> None:
    (cache_dir / "tokens").mkdir(parents=True)
    old, new = cache_dir / "tokens" / "old.tmp", cache_dir / "tokens" / "new.tmp"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    tokenize_source(check_dataset(text_file), tokenizer)
    assert (old.exists(), new.exists()) == (False, True)


def test_unwritable_cache_names_the_variable(
    tmp_path: Path, text_file: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    blocker = tmp_path / "blocker"
    blocker.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="set AIOS_CACHE_DIR"):
        tokenize_source(check_dataset(text_file), tokenizer, cache_dir=blocker)


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("AIOS_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "aios"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache_dir() == tmp_path / "home" / ".cache" / "aios"


def test_progress_reaches_the_end(text_file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    seen: list[tuple[int, int]] = []
    source = check_dataset(text_file)
    tokenize_source(source, tokenizer, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (source.total_bytes, source.total_bytes)


def test_large_vocabulary_is_stored_in_32_bits(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(70_000)]
    path = tmp_path / "a.txt"
    path.write_text(" ".join(words[-5:]))
    tokens = tokenize_source(check_dataset(path), word_tokenizer(words))
    assert tokens.dtype == "<u4"
    assert all_tokens(tokens) == [69_997, 69_998, 69_999, 70_000, 70_001, 0]


def word_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(["<eos>", "<unk>", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", unk_token="<unk>")


def test_token_file_reads_ranges_and_survives_pickling(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    np.arange(50_000, 50_010, dtype="<u2").tofile(path)
    tokens = TokenFile(path, 10, "<u2")
    assert tokens.read(2, 5).tolist() == [50_002, 50_003, 50_004]
    assert tokens.read(10, 10).tolist() == []
    assert pickle.loads(pickle.dumps(tokens)).read(9, 10).tolist() == [50_009]
    for start, stop in ((-1, 2), (3, 2), (5, 11)):
        with pytest.raises(IndexError):
            tokens.read(start, stop)


def test_token_file_cut_short_while_in_use_is_a_run_error(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    np.arange(10, dtype="<u2").tofile(path)
    tokens = TokenFile(path, 10, "<u2")
    os.truncate(path, 6)
    with pytest.raises(RunError, match="cut short"):
        tokens.read(0, 10)


def test_token_file_opened_before_a_fork_reads_after_it(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    np.arange(1000, dtype="<u2").tofile(path)
    tokens = TokenFile(path, 1000, "<u2")
    assert tokens.read(0, 1).tolist() == [0]
    child = get_context("fork").Process(target=lambda: os._exit(int(tokens.read(7, 8)[0])))
    child.start()
    child.join()
    assert child.exitcode == 7
    assert tokens.read(999, 1000).tolist() == [999]


def build(cache: Path) -> None:
    tokens = tokenize_source(check_dataset(bundled_corpus_path()), load_tokenizer(), cache_dir=cache)
    print(tokens.count, tokens.read(0, tokens.count).sum())


def test_processes_may_build_the_same_cache_at_once(cache_dir: Path, tmp_path: Path) -> None:
    children = [Forked(tmp_path / str(n), build, cache_dir) for n in range(2)]
    assert [child.wait() for child in children] == [0, 0], [child.errors for child in children]
    assert children[0].said == children[1].said != ""
    assert {Path(name).suffix for name in cache_files(cache_dir)} == {".bin", ".json"}


def test_another_encoding_is_another_token_file(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Où êtes-vous ? ".encode("latin-1") * 50)
    right, wrong = (tokenize_source(check_dataset(path, name), tokenizer) for name in ("iso8859-1", "cp1251"))
    assert right.path != wrong.path
    assert tokenizer.decode(all_tokens(right)[:-1]).startswith("Où êtes-vous ?")
    assert tokenizer.decode(all_tokens(wrong)[:-1]).startswith("Oщ")
