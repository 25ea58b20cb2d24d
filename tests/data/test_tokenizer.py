from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from aios.data.tokenizer import (
    bundled_tokenizer_dir,
    end_of_document_id,
    load_tokenizer,
    tokenizer_fingerprint,
)
from aios.errors import UserError
from strangers import edit_json


@pytest.fixture
def tokenizer_copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundled_tokenizer_dir(), tmp_path / "tokenizer"))


def test_folder_loads_like_the_bundled_one(tokenizer_copy: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    loaded = load_tokenizer(str(tokenizer_copy))
    assert loaded.get_vocab() == tokenizer.get_vocab()


def test_saved_tokenizer_keeps_ids_and_fingerprint(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.save_pretrained(str(tmp_path / "saved"))
    assert tokenizer_fingerprint(load_tokenizer(str(tmp_path / "saved"))) == tokenizer_fingerprint(tokenizer)


def test_fingerprint_ignores_truncation_but_sees_new_tokens(tokenizer_copy: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_copy))
    before = tokenizer_fingerprint(tokenizer)
    tokenizer("some words", truncation=True, max_length=1)
    assert tokenizer_fingerprint(tokenizer) == before
    tokenizer.add_tokens(["Nebuchadnezzar"])
    assert tokenizer_fingerprint(tokenizer) != before


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "cannot be read"),
        ({"tokenizer.json": "{nope"}, "cannot be read"),
        ({"tokenizer.json": '{"model": {"type": "Unheard"}, "added_tokens": []}'}, "cannot be read"),
        ({"tokenizer_config.json": '{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}}'}, "auto_map"),
    ],
    ids=["empty folder", "broken json", "unknown model", "custom code"],
)
def test_unreadable_folder_is_a_user_error(tmp_path: Path, files: dict[str, str], message: str) -> None:
    mark = tmp_path / "code_was_run"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert not mark.exists()


def test_tokenizer_file_instead_of_folder_is_a_user_error(tokenizer_copy: Path) -> None:
    with pytest.raises(UserError, match="give the folder"):
        load_tokenizer(str(tokenizer_copy / "tokenizer.json"))


def test_empty_name_is_a_user_error() -> None:
    with pytest.raises(UserError, match="empty"):
        load_tokenizer("  ")


def test_unknown_name_says_how_to_fetch_it() -> None:
    with pytest.raises(UserError, match="hf download nobody/nothing-here"):
        load_tokenizer("nobody/nothing-here")


def test_tokenizer_without_end_token_is_a_user_error(tokenizer_copy: Path) -> None:
    config_file = tokenizer_copy / "tokenizer_config.json"
    config = json.loads(config_file.read_text())
    del config["eos_token"]
    config_file.write_text(json.dumps(config))
    with pytest.raises(UserError, match="eos_token"):
        end_of_document_id(load_tokenizer(str(tokenizer_copy)))


def test_importing_the_module_leaves_transformers_alone() -> None:
    code = (
        "import sys, aios.data.tokenizer, aios.data.text_source; "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_named_tokenizer_that_asks_for_code_is_refused(tmp_path: Path, tokenizer_copy: Path) -> None:
    snapshot = tmp_path / "models--nobody--tokens" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    tokenizer_copy.rename(snapshot)
    (tmp_path / "models--nobody--tokens" / "refs").mkdir()
    (tmp_path / "models--nobody--tokens" / "refs" / "main").write_text("0" * 40)
    edit_json(snapshot / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["stranger.Tokenizer", None]}})
    command = [sys.executable, "-c", "from aios.data.tokenizer import load_tokenizer; load_tokenizer('nobody/tokens')"]
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert (
        f"UserError: {snapshot / 'tokenizer_config.json'} asks for code of its own to be run (auto_map)" in done.stderr
    )
