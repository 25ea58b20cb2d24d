"""Rows of instructions: their text, and that the completion alone is learned."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from aios.core.hrm_models.supervision import IGNORE_INDEX
from aios.data.dataset import DataConfig, EvalBatches, TokenWindows, TrainBatches, load_data, unigram_entropy
from aios.data.text_source import check_dataset, iter_pieces
from aios.data.token_cache import TokenFile, tokenize_source
from aios.errors import UserError

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who made light?"},
    {"role": "assistant", "content": "God."},
    {"role": "user", "content": "When?"},
    {"role": "assistant", "content": "On the first day."},
]
SPOKEN = (
    "System: Be brief.\nUser: Who made light?\nAssistant: God.<|endoftext|>"
    "User: When?\nAssistant: On the first day.<|endoftext|>"
)
LEARNED = " God.<|endoftext|> On the first day.<|endoftext|>"


def save(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as the kind of file, or folder, that the name says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        import datasets

        datasets.Dataset.from_list(rows).save_to_disk(str(path), num_shards=min(2, len(rows)))
    return path


def stored(path: Path, tokenizer: PreTrainedTokenizerBase) -> TokenFile:
    return tokenize_source(check_dataset(path), tokenizer)


def spoken(tokens: TokenFile, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """(all of the text, the part of it that is learned)."""
    ids = tokens.read(0, tokens.count)
    return tokenizer.decode([t if t >= 0 else ~t for t in ids]), tokenizer.decode(ids[ids >= 0])


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "saved"])
def test_messages_are_turns_of_which_the_assistants_are_learned(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, name: str
) -> None:
    path = save(tmp_path / name, [{"messages": TALK, "id": 7}, {"messages": TALK[1:4]}])
    last = "User: Who made light?\nAssistant: God.<|endoftext|>User: When?\n<|endoftext|>"
    assert spoken(stored(path, tokenizer), tokenizer) == (SPOKEN + last, LEARNED + " God.<|endoftext|>")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "saved"])
def test_a_completion_is_learned_and_its_prompt_is_not(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, name: str
) -> None:
    rows = [{"prompt": "2 + 2 =", "completion": " 4"}, {"prompt": "", "completion": "Amen."}]
    tokens = stored(save(tmp_path / name, rows), tokenizer)
    assert spoken(tokens, tokenizer) == (
        "2 + 2 = 4<|endoftext|>Amen.<|endoftext|>",
        " 4<|endoftext|>Amen.<|endoftext|>",
    )


@pytest.mark.parametrize("name", ["a.parquet", "saved"])
def test_a_table_of_text_gives_the_tokens_of_the_same_jsonl(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, name: str
) -> None:
    rows = [{"text": f"The {n}th day. " * 9, "prompt": "p", "completion": "c"} for n in range(100)]
    lines, table = (stored(save(tmp_path / kind, rows), tokenizer) for kind in ("a.jsonl", name))
    assert table.read(0, table.count).tolist() == lines.read(0, lines.count).tolist()
    assert not table.has_unlearned
    source = check_dataset(tmp_path / name)
    assert list(iter_pieces(source))[-1].bytes_done == source.total_bytes


def test_a_folder_of_tables_is_read_in_order(tmp_path: Path) -> None:
    for name in "ba":
        save(tmp_path / f"{name}.parquet", [{"text": f"{name}1 "}, {"text": f"{name}2 "}])
    assert "".join(piece.text for piece in iter_pieces(check_dataset(tmp_path))) == "a1 a2 b1 b2 "


def test_a_long_prompt_stays_unlearned_in_all_its_pieces(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    prompt, completion = "word " * 20_000, "answer " * 20_000
    tokens = stored(save(tmp_path / "a.jsonl", [{"prompt": prompt, "completion": completion}]), tokenizer)
    assert spoken(tokens, tokenizer) == (f"{prompt}{completion}<|endoftext|>", f"{completion}<|endoftext|>")


def test_labels_are_the_tokens_that_are_learned(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = save(tmp_path / "a.jsonl", [{"prompt": f"{n} + {n} =", "completion": f" {2 * n}"} for n in range(500)])
    split = load_data(DataConfig(path, seq_len=16), tokenizer)
    batch = TrainBatches(split.train, seed=1, batch_size=32).batch(3)
    learned = batch.labels != IGNORE_INDEX
    assert torch.equal(batch.labels[learned], batch.input_ids[learned])
    assert (batch.input_ids >= 0).all()
    assert 0.1 < learned.float().mean() < 0.6
    assert "=" not in tokenizer.decode(batch.labels[learned])
    assert batch.targets == learned[:, 1:].sum()
    assert unigram_entropy(split.train) < unigram_entropy(load_data(DataConfig(seq_len=16), tokenizer).train)


def test_plain_text_has_one_tensor_for_both(tokenizer: PreTrainedTokenizerBase) -> None:
    batch = next(iter(EvalBatches(load_data(DataConfig(seq_len=128), tokenizer).eval, 4)))
    assert batch.labels is batch.input_ids
    moved = batch.to(torch.device("cpu"))
    assert moved.labels is moved.input_ids
    assert moved.targets == 4 * 127


def test_sequences_in_which_nothing_is_learned_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    ids = np.array([~n for n in range(100)], "<i4")
    ids[[4, 33, 98]] = [4, 33, 98]  # the first of a window is no target in it: 4 and 33 are of windows 0 and 8
    ids.tofile(path)
    windows = TokenWindows(TokenFile(path, 100, "<i4"), 0, 100, 5)
    assert [windows[i].tolist()[0] for i in range(len(windows))] == [0, 32]  # 98 lies behind the last whole window
    with pytest.raises(IndexError):
        windows[2]


def test_nothing_to_learn_in_the_held_out_tail_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [{"prompt": "why? ", "completion": "Because. " * 100}, {"prompt": "word " * 900, "completion": "Yes."}]
    path = save(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=r"a\.jsonl has no completion to evaluate on.*--eval-file"):
        load_data(DataConfig(path, seq_len=64), tokenizer)


def test_the_kind_of_the_rows_is_part_of_the_caches_key(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path, names = tmp_path / "a.jsonl", set()
    for row in ({"prompt": "on", "completion": "off"}, {"prompt": "on", "text": "off", "x": ""}):
        path.write_text(json.dumps(row).ljust(60) + "\n")
        os.utime(path, ns=(1, 1))
        names.add(stored(path, tokenizer).path)
    assert len(names) == 2


GOOD = {"completion": {"prompt": "a", "completion": "b"}, "messages": {"messages": TALK}, "text": {"text": "words"}}


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "saved"])
@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("completion", {"prompt": "a", "completion": " \n"}, "has an empty completion"),
        ("completion", {"prompt": "a", "completion": None}, 'no string under the key "completion" but None'),
        ("completion", {"prompt": None, "completion": "b"}, 'no string under the key "prompt" but None'),
        ("messages", {"messages": TALK[:2]}, "without a turn of the assistant"),
        ("messages", {"messages": []}, "without a turn of the assistant"),
        ("messages", {"messages": None}, 'no list under the key "messages"'),
        ("messages", {"messages": [{"role": "assistant", "content": None}]}, "whose content is None"),
        ("messages", {"messages": [{"role": "assistant", "content": ""}]}, "an empty turn of the assistant"),
        ("messages", {"messages": [{"role": "gpt", "content": "x"}]}, "whose role is 'gpt'.*the roles are system"),
        ("text", {"text": None}, 'no string under the key "text" but None'),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, name: str, kind: str, row: dict[str, Any], message: str) -> None:
    path = save(tmp_path / name, [GOOD[kind], row])
    number = 1 if name == "saved" else 2  # two rows, saved as two files
    with pytest.raises(UserError, match=rf"(Line|Row) {number} of the dataset file .*{message}"):
        list(iter_pieces(check_dataset(path)))


@pytest.mark.parametrize(
    "row", [{"messages": "User: hi"}, {"messages": ["hi"]}, {"messages": [{"role": ["user"], "content": "x"}]}]
)
def test_messages_of_another_shape_are_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="Line 1 of the dataset file"):
        list(iter_pieces(check_dataset(save(tmp_path / "a.jsonl", [row]))))


@pytest.mark.parametrize("first", GOOD)
@pytest.mark.parametrize("second", GOOD)
def test_kinds_are_not_mixed(tmp_path: Path, first: str, second: str) -> None:
    save(tmp_path / "a.jsonl", [GOOD[first]])
    save(tmp_path / "b.parquet", [GOOD[second]])
    if first == second:
        assert list(iter_pieces(check_dataset(tmp_path)))
        return
    with pytest.raises(UserError, match=r"Row 1 of .*b\.parquet holds .*, but the dataset began with"):
        list(iter_pieces(check_dataset(tmp_path)))


def test_plain_text_beside_instructions_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.jsonl", [GOOD["messages"]])
    (tmp_path / "b.txt").write_text("plain words")
    with pytest.raises(UserError, match=r"b\.txt is plain text, but the dataset began with rows"):
        list(iter_pieces(check_dataset(tmp_path)))


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    save(tmp_path / "a.parquet", [{"body": "words", "n": 1}])
    with pytest.raises(UserError, match=r"a\.parquet has no column text.*body, n.*rename"):
        check_dataset(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError, match=r"b\.parquet cannot be read as parquet .*save it again"):
        check_dataset(tmp_path / "b.parquet")
    whole = save(tmp_path / "c.parquet", [{"text": "words " * 1000}] * 1000).read_bytes()
    (tmp_path / "c.parquet").write_bytes(whole[:20] + b"\xff" * 200 + whole[220:])
    with pytest.raises(UserError, match=r"c\.parquet cannot be read as parquet"):
        list(iter_pieces(check_dataset(tmp_path / "c.parquet")))


def test_a_saved_folder_without_a_row_says_so(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"text": []}).save_to_disk(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"The dataset folder .*none holds no row; give one with text"):
        check_dataset(tmp_path / "none")


def test_saved_folders_that_cannot_be_used(tmp_path: Path) -> None:
    import datasets

    both = datasets.DatasetDict({"train": datasets.Dataset.from_list([{"text": "x"}])})
    both.save_to_disk(str(tmp_path / "both"))
    with pytest.raises(UserError, match="holds several splits; name one of its folders"):
        check_dataset(tmp_path / "both")
    folder = tmp_path / "both" / "train"
    assert check_dataset(folder).kind == "text"
    arrow = next(folder.glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read as arrow"):
        list(iter_pieces(check_dataset(folder)))
    for listed in ("null", '[{"filename": "../../secret.arrow"}]', "5"):
        (folder / "state.json").write_text(f'{{"_data_files": {listed}}}')
        with pytest.raises(UserError, match=r"state\.json lists .* save it again"):
            check_dataset(folder)
