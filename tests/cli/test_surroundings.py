"""The command in terminals and moments that are not the usual ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from training_process import TIMEOUT, read_log, run_aios, train, train_args


def test_a_letter_that_the_terminal_has_not_costs_no_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aios", *train_args(tmp_path, "--steps=2", "--brain-name=ünï")]
    env = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr
    assert "?n?" in done.stdout
    assert "accelerator" not in done.stdout  # DeepSpeed, which nobody asked for
    assert read_log(tmp_path / "ünï", "final")


def test_a_reader_that_goes_costs_no_step(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aios", *train_args(tmp_path, "--steps=60", "--eval-every=5", "--lr=1e-3")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        assert any("Evaluation loss" in line for line in training.stdout)
        training.stdout.close()
        assert training.stderr is not None
        said = training.stderr.read()
    assert (training.returncode, said) == (0, "")
    assert len(read_log(tmp_path / "brain", "train")) == 60
    assert read_log(tmp_path / "brain", "final")


def test_a_full_disk_under_the_output_costs_no_step(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aios", *train_args(tmp_path, "--steps=6", "--lr=1e-3")]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "Standard output cannot be written any more (No space left on device); the training goes on, and its log has "
        "all of it.\n"
    )
    assert read_log(tmp_path / "brain", "final")


def test_ctrl_c_while_the_command_is_still_loading_ends_it_quietly() -> None:
    interrupted = """
import sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == "aios.cli.app":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from aios.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_system_that_it_does_not_run_on_is_told_so_at_once() -> None:
    elsewhere = 'import sys; sys.platform = "win32"; from aios.__main__ import main; main()'
    done = subprocess.run([sys.executable, "-c", elsewhere], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: The aios command needs Linux or macOS;")


def test_a_student_needs_its_origin_no_more_once_it_is_trained(tmp_path: Path) -> None:
    train(tmp_path, "--steps=2", "--brain-name=parent")
    train(tmp_path, "--steps=2", f"--student-init={tmp_path / 'parent'}")
    shutil.rmtree(tmp_path / "parent")
    done = run_aios("hrm-hf", "train", f"--bundle-dir={tmp_path}", "--brain-name=brain", "--resume", "--steps=3")
    assert done.returncode == 0, done.stderr
    assert [record["step"] for record in read_log(tmp_path / "brain", "final")][-1] == 3
