"""Cutting a text to pieces must not show in its tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from aios.data.text_source import check_dataset, iter_pieces

# The word pattern of cl100k and Llama 3, which keeps newlines with the punctuation before them.
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = st.sampled_from(["the", "beginning,", "God.", "it's", "(1611)", "Käse", "7", "-", "…"])
GAPS = st.sampled_from([" ", "  ", "\n", "\r\n", "\n\n", "\n \n", "\t", " \n"])


@pytest.fixture(scope="module", params=["gpt-2", "cl100k"])
def backend(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    if request.param == "cl100k":
        split = pre_tokenizers.Split(Regex(CL100K), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    return backend


@given(parts=st.lists(st.tuples(WORDS, GAPS, WORDS, st.sampled_from([" ", "\n"])), min_size=1, max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_tokens_do_not_depend_on_the_pieces(
    tmp_path: Path, backend: Tokenizer, parts: list[tuple[str, str, str, str]]
) -> None:
    text = "".join(part for group in parts for part in group)
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode("utf-8"))
    pieces = [piece.text for piece in iter_pieces(check_dataset(path), piece_chars=60)]
    joined = [token for piece in pieces for token in backend.encode(piece).tokens]
    assert joined == backend.encode(text).tokens
