"""A checkpoint that the version before wrote is resumed, and the run ends as it would have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from aios.data.tokenizer import bundled_tokenizer_dir
from training_process import read_log, run_aios

OLDER = Path(__file__).parents[2] / "older_checkpoints" / "trainer"


@pytest.fixture
def brain(tmp_path: Path) -> Path:
    """A brain of the version before."""
    brain = tmp_path / "brain"
    shutil.copytree(OLDER / "step-150", brain / "checkpoints" / "step-150")
    shutil.copytree(bundled_tokenizer_dir(), brain, dirs_exist_ok=True)  # where that version left it
    return brain


def test_text_from_a_checkpoint_of_the_version_before_says_whose_tokenizer_it_has(brain: Path) -> None:
    place = (f"--bundle-dir={brain.parent}", "--brain-name=brain", "--device=cpu", "--checkpoint=newest")
    done = run_aios("hrm-hf", "generate", *place, "--prompt=And God", "--max-new-tokens=2")
    assert done.returncode == 0, done.stderr
    checkpoint = brain / "checkpoints" / "step-150"
    assert done.stderr == f"The checkpoint {checkpoint} holds no tokenizer; using the one in {brain}.\n"


def test_a_checkpoint_of_the_version_before_goes_on_as_it_did(brain: Path, tmp_path: Path) -> None:
    done = run_aios("hrm-hf", "train", "--resume", f"--bundle-dir={tmp_path}", "--brain-name=brain", "--device=cpu")
    assert done.returncode == 0, done.stderr
    assert "holds no tokenizer; using the one in" in done.stdout.replace("\n", " ")
    logged = map(json.loads, (OLDER / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    then = {record["step"]: record for record in logged if record["event"] == "train"}
    now = read_log(brain, "train")
    assert [r["step"] for r in now] == list(range(151, 301))
    # Another CPU rounds otherwise, and training makes more of it, until the ladder sees an explosion that was none:
    # the first losses and rates tell that all was restored.
    losses, recorded = ([of[r["step"]]["ce"] for r in now] for of in ({r["step"]: r for r in now}, then))
    assert losses[:6] == pytest.approx(recorded[:6], rel=2e-3)
    assert losses == pytest.approx(recorded, rel=0.1)
    assert [r["lr"] for r in now[:40]] == pytest.approx([then[r["step"]]["lr"] for r in now[:40]])
    assert [record["start"] for record in read_log(brain, "adaptive_lr_anneal")] == [210]
    assert not read_log(brain, "adaptive_lr_state_missing")
    (restored,) = read_log(brain, "adaptive_lr_restored")
    assert restored["from_step"] == 150
