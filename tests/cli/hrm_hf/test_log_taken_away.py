"""A brain's folder that is deleted while it is trained costs neither the log nor the brain."""

from __future__ import annotations

import shutil
from pathlib import Path

from training_process import read_log, start_training, train_records, wait_for_step


def test_a_folder_deleted_in_mid_run_is_there_again_at_the_end_with_all_of_its_log(tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    process = start_training(tmp_path, "--steps=60", "--eval-every=0", "--save-every=0")
    wait_for_step(process, brain, 5)
    shutil.rmtree(brain)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert f"{brain / 'metrics.jsonl'} had been taken away; all its records are there again" in out
    assert list(train_records(brain)) == list(range(1, 61))
    assert [r["step"] for r in read_log(brain, "final")] == [60]
    assert (brain / "checkpoints" / "step-60").is_dir()
    assert (brain / "model.safetensors").is_file()
