"""A text that is not UTF-8: refused with the name of its encoding, trained on under it, gone on with by a resume."""

from __future__ import annotations

from pathlib import Path

from training_process import read_log, run_aios, train, train_args


def test_a_latin_1_text_is_refused_by_name_and_trains_under_it(tmp_path: Path) -> None:
    text = tmp_path / "cafe.txt"
    text.write_bytes("Où êtes-vous ? Au café, comme tous les étés.\n".encode("latin-1") * 200)
    done = run_aios(*train_args(tmp_path, f"--dataset-file={text}", "--steps=2"))
    assert done.returncode == 2
    assert f"{text} is not UTF-8 text (byte 1), but looks like latin-1; give --encoding latin-1" in done.stderr

    train(tmp_path, f"--dataset-file={text}", "--steps=2", "--encoding=latin-1")
    train(tmp_path, "--steps=3", "--resume")
    brain = tmp_path / "brain"
    (resumed,) = read_log(brain, "run_resumed")
    assert resumed["config"]["encoding"] == "latin-1"
    assert resumed["train_tokens"] == read_log(brain, "run_start")[0]["train_tokens"]
    assert [r["step"] for r in read_log(brain, "train")] == [1, 2, 3]
