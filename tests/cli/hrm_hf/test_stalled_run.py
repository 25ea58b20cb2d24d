"""A real training at a rate far too low says, early and in words, that nothing is learned."""

from __future__ import annotations

from pathlib import Path

from aios.run_view.sentences import sentence
from training_process import read_log, run_aios, train


def test_a_rate_far_too_low_is_told_of_in_log_terminal_and_timeline(tmp_path: Path, psalms: Path) -> None:
    flags = ("--steps=160", "--lr=1e-8", "--no-auto-adjust-lr", "--eval-every=0", f"--dataset-file={psalms}")
    done = train(tmp_path, *flags)
    (told,) = read_log(tmp_path / "brain", "not_learning")
    (begun,) = read_log(tmp_path / "brain", "run_start")
    assert (told["cause"], told["lr"], told["reference"]) == ("too_low", 1e-8, begun["unigram_entropy"])
    assert told["step"] <= 16 + 10 * 10  # the warm-up and ten windows
    assert f"step {told['step']}: {sentence(told)}" in done.stdout
    listed = run_aios("hrm-hf", "lr-log", str(tmp_path / "brain"))
    assert "looks far too low: give one ten times higher" in " ".join(listed.stdout.split())
