"""Bad input: one clear sentence, exit code 2, nothing written or lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from training_process import run_aios, train, train_args


def refused(folder: Path, *args: str) -> str:
    """The one sentence with which a training is refused; nothing may have been written."""
    before = sorted(folder.rglob("*"))
    done = run_aios(*train_args(folder, *args))
    assert done.returncode == 2, done.stderr
    assert sorted(folder.rglob("*")) == before
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--lr=0"], "--lr is 0.0, but it must be a positive number"),
        (["--lr=-1"], "--lr is -1.0"),
        (["--bundle-dir="], "--bundle-dir is empty"),
        (["--lr=nan"], "--lr is nan"),
        (["--steps=0"], "--steps is 0"),
        (["--batch-size=0"], "--batch-size is 0"),
        (["--num-heads=5"], "does not split into 5 attention heads"),
        (["--use-moe", "--num-experts=2", "--num-experts-per-tok=3"], "more than the 2 experts"),
        (["--warmup-steps=50", "--steps=40"], "longer than the run of 40 steps"),
        (["--dataset-file=/nowhere/at/all.txt"], "/nowhere/at/all.txt"),
        (["--eval-file=/nowhere/at/all.txt"], "/nowhere/at/all.txt"),
        (["--model=/nowhere/tokenizer"], "/nowhere/tokenizer"),
        (["--model=no-such-tokenizer"], "no-such-tokenizer"),
        (["--student-init=/nowhere"], "--student-init /nowhere is no brain folder"),
        (["--bundle-dir=/proc/nowhere"], "/proc/nowhere"),
        (["--log-file=/proc/nowhere/log.jsonl"], "/proc/nowhere"),
        (["--adaptive-lr-config=/nowhere.toml"], "/nowhere.toml"),
        (["--no-auto-adjust-lr", "--adaptive-lr-config=x.toml"], "has no effect with --no-auto-adjust-lr"),
        (["--model-dtype=fp16", "--no-amp"], "--model-dtype fp16"),
    ],
)
def test_refused_with_one_sentence(tmp_path: Path, args: list[str], sentence: str) -> None:
    assert sentence in refused(tmp_path, *args)


@pytest.mark.skipif(sys.platform != "linux", reason="CUDA is looked for")
def test_device_that_is_not_there(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    assert "--device cuda was given" in refused(tmp_path, "--device=cuda")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "empty"), (b"\x00\x01\x02\xff" * 500, "binary"), (b"a few words only", "tokens")],
)
def test_unusable_dataset(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes(content)
    message = refused(tmp_path, f"--dataset-file={path}")
    assert sentence in message
    assert str(path) in message


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("a.toml", "windw_size = 20", "windw_size"),
        ("a.toml", 'window_size = "many"', "window_size"),
        ("a.yaml", "adaptive_lr:\n  lr_min: 1e-2\n  lr_max: 1e-4\n", "lr_min"),
        ("a.json", '{"patience": 0}', "patience"),
        ("a.json", "{", "a.json"),
        ("a.ini", "x", "a.ini"),
    ],
)
def test_bad_adaptive_settings_name_file_and_key(tmp_path: Path, name: str, content: str, key: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    message = refused(tmp_path, f"--adaptive-lr-config={path}")
    assert str(path) in message
    assert key in message


def test_save_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "brain").write_text("not a folder")
    assert "is a file" in refused(tmp_path)


@pytest.mark.parametrize(
    "name", ["a" * 300, "/tmp/" + "/".join(["b" * 200] * 25), "/tmp"], ids=["name", "path", "folder"]
)
@pytest.mark.parametrize("flag", ["--log-file", "--dataset-file", "--model", "--stop-file"])
def test_a_name_that_cannot_be_is_told_in_a_sentence_of_a_few_lines(tmp_path: Path, flag: str, name: str) -> None:
    if (flag, name) == ("--dataset-file", "/tmp"):
        pytest.skip("a folder may be a dataset")
    message = refused(tmp_path, f"{flag}={name}")
    assert len(message) < 500
    assert "permissions" not in message
    assert "Errno" not in message


@pytest.mark.parametrize("args", [["--steps=many"], ["--no-such-flag"], ["--preset=huge"]])
def test_usage_errors_exit_2(tmp_path: Path, args: list[str]) -> None:
    done = run_aios(*train_args(tmp_path, *args))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run_aios(*train_args(tmp_path, "--lr=0", "--debug"))
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['aios', 'hrm-hf', 'train', '--help']\n"
        "from aios.cli.app import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'matplotlib'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "--auto-adjust-lr" in done.stdout
    assert "Learning rate" in done.stdout
    assert run_aios("--version").stdout.startswith("aios ")


def test_older_command_name_is_reachable(tmp_path: Path) -> None:
    done = run_aios("hrm-hf", "train-actv1", f"--bundle-dir={tmp_path}", "--lr=0")
    assert done.returncode == 2
    assert "--lr is 0.0" in done.stderr


def test_the_shortest_sequences_train_to_the_end_and_say_words(tmp_path: Path) -> None:
    """One token in, one out: room for a prompt of one token."""
    assert "Continued:" in train(tmp_path, "--steps=2", "--max-seq-len=2").stdout
