"""What is published in a brain's folder is derived from its newest valid checkpoint, and never read by a resume."""

from __future__ import annotations

import filecmp
import json
import re
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from aios.core.hrm_models import HRMForCausalLM
from aios.runs.brain import list_checkpoints
from fault_injection import train_traced, train_with_fault
from training_process import read_log, run_aios, train, train_args, train_records

FLAGS = ("--lr=1e-3", "--warmup-steps=2", "--eval-every=0")
WRITES = "write,sendfile,copy_file_range"
RENAMES = "rename,renameat,renameat2"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a brain trained for 6 steps."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder, *FLAGS, "--steps=6")
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    shutil.copytree(trained / "brain", tmp_path / "brain")
    return tmp_path


def published_equals(brain: Path) -> bool:
    """Whether the published files are those of the newest checkpoint."""
    newest = list_checkpoints(brain)[0]
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "brain.json")
    return filecmp.cmpfiles(brain, newest, names, shallow=False)[0] == list(names)


def swap_two_ids(brain: Path) -> None:
    path = brain / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    first, second = list(vocab)[300:302]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


def test_damaged_published_files_are_put_right_on_resume_and_said(folder: Path) -> None:
    brain = folder / "brain"
    whole = (brain / "generation_config.json").stat().st_ino
    (brain / "tokenizer.json").write_bytes(b"")
    (brain / "tokenizer_config.json").unlink()
    (brain / "config.json").write_text("{")
    (brain / "model.safetensors").write_bytes((brain / "model.safetensors").read_bytes()[:-1] + b"x")
    (brain / "merges.txt").write_text("#version: 0.2\n")  # of another tokenizer
    (brain / "brain.json").unlink()
    (brain / "brain.json" / "inside").mkdir(parents=True)
    done = train(folder, "--resume")
    assert "trained to step 6 already" in done.stdout
    (told,) = [line for line in done.stdout.splitlines() if line.startswith(f"What {brain} shows")]
    replaced = "brain.json, config.json, model.safetensors, tokenizer.json, tokenizer_config.json published again"
    assert told.endswith(f"{replaced}; merges.txt removed.")
    assert published_equals(brain)
    assert not (brain / "merges.txt").exists()
    assert (brain / "generation_config.json").stat().st_ino == whole, "what was whole stays the very file it was"
    assert "shows" not in train(folder, "--resume").stdout


def test_resume_never_reads_the_published_tokenizer(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "brain", tmp_path / "whole" / "brain")
    train(tmp_path / "whole", "--resume", "--steps=9")
    created = json.loads((folder / "brain" / "brain.json").read_text())["created"]
    swap_two_ids(folder / "brain")
    (folder / "brain" / "brain.json").write_text("{}")
    done = train(folder, "--resume", "--steps=9")
    assert "brain.json, tokenizer.json" in done.stdout
    expected, resumed = train_records(tmp_path / "whole" / "brain"), train_records(folder / "brain")
    assert [resumed[s]["loss"] for s in range(1, 10)] == [expected[s]["loss"] for s in range(1, 10)]
    assert json.loads((folder / "brain" / "brain.json").read_text())["created"] == created


def test_checkpoint_alone_holds_all_that_a_resume_needs(folder: Path) -> None:
    brain = folder / "brain"
    for path in brain.iterdir():
        if path.is_file():
            path.unlink()
    train(folder, "--resume", "--steps=8")
    assert HRMForCausalLM.from_pretrained(brain).config.vocab_size == len(AutoTokenizer.from_pretrained(brain))


def test_checkpoint_of_the_older_form_resumes_with_the_brains_tokenizer(folder: Path) -> None:
    brain = folder / "brain"
    (checkpoint,) = list_checkpoints(brain)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    for name in [n for n in manifest["files"] if n.startswith("tokenizer") or n == "brain.json"]:
        (checkpoint / name).unlink()
        del manifest["files"][name]
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    (brain / "brain.json").write_text("[]")
    done = train(folder, "--resume", "--steps=8")
    assert f"holds no tokenizer; using the one in {brain}" in done.stdout
    assert json.loads((brain / "brain.json").read_text())["trained_steps"] == 8
    assert (list_checkpoints(brain)[0] / "tokenizer.json").is_file()


def test_kill_while_the_tokenizer_is_written_loses_nothing(tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    files = [brain / "tokenizer.json", brain / ".tokenizer.json.new"]
    died = train_with_fault(
        tmp_path, WRITES, "signal=SIGKILL:when=1", files, *FLAGS, "--steps=8", "--save-every=4"
    )  # fmt: skip
    assert died.returncode != 0
    assert [path.name for path in list_checkpoints(brain)] == ["step-4"]
    train(tmp_path, "--resume")
    assert published_equals(brain)
    assert list(train_records(brain)) == list(range(1, 9))


def test_kill_before_the_last_publishing_is_made_good_by_resume(tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    flags = (*FLAGS, "--steps=8", "--save-every=4")
    died = train_with_fault(
        tmp_path, RENAMES, "signal=SIGKILL:when=2", [brain / ".model.safetensors.new"], *flags
    )  # fmt: skip
    assert died.returncode != 0
    assert list_checkpoints(brain)[0].name == "step-8"
    assert not published_equals(brain)
    assert not read_log(brain, "final")
    (evaluated,) = read_log(brain, "eval")

    done = train(tmp_path, "--resume")
    assert "trained to step 8 already" in done.stdout
    assert "closed the log" in done.stdout
    assert published_equals(brain)
    (final,) = read_log(brain, "final")
    assert (final["step"], final["steps"], final["eval_loss"]) == (8, 8, evaluated["loss"])
    assert final["loss"] == train_records(brain)[8]["ce"]
    assert final["checkpoint"] == str(list_checkpoints(brain)[0])
    assert final["wall_s"] > 0
    assert "closed the log" not in train(tmp_path, "--resume").stdout
    assert len(read_log(brain, "final")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--ddp", "--parallel-independent"])
def test_kill_before_the_last_publishing_of_several_workers(tmp_path: Path, way: str) -> None:
    brain = tmp_path / "brain"
    flags = (*FLAGS, way, "--world-size=2", "--max-restarts=0", "--merge-every=4", "--steps=8", "--save-every=4")
    published = 2 if way == "--ddp" else 3  # independent workers begin with a save
    fault = f"signal=SIGKILL:when={published}"
    died = train_with_fault(tmp_path, RENAMES, fault, [brain / ".model.safetensors.new"], *flags)
    assert died.returncode != 0
    assert list_checkpoints(brain)[0].name == "step-8"
    assert not read_log(brain, "final")
    (brain / "tokenizer.json").write_bytes(b"")
    assert "closed the log" in train(tmp_path, "--resume").stdout
    assert published_equals(brain)
    (final,) = read_log(brain, "final")
    assert (final["step"], final["eval_loss"]) == (8, read_log(brain, "eval")[-1]["loss"])
    assert train_records(brain)


def test_damaged_card_never_stops_a_save(tmp_path: Path) -> None:
    (tmp_path / "brain" / "brain.json").mkdir(parents=True)
    train(tmp_path, *FLAGS, "--steps=3")
    assert published_equals(tmp_path / "brain")


def test_without_any_checkpoint_there_is_still_nothing_to_resume(tmp_path: Path) -> None:
    (tmp_path / "brain").mkdir()
    (tmp_path / "brain" / "brain.json").write_text("{")
    done = run_aios(*train_args(tmp_path, "--resume"))
    assert (done.returncode, "no checkpoint to resume" in done.stderr) == (2, True)
    assert [path.name for path in (tmp_path / "brain").iterdir()] == ["brain.json"]


def traced_training(folder: Path, calls: str, *flags: str) -> list[str]:
    """The system calls of a training, one a line; file descriptors with their paths."""
    trace = folder / "trace"
    assert train_traced(folder, ["-e", f"trace={calls}"], trace, *FLAGS, *flags).returncode == 0
    return trace.read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
def test_the_first_publication_shows_weights_only_when_all_that_loads_them_is_there(tmp_path: Path) -> None:
    """A power cut anywhere in it must not leave a model that transformers cannot load."""
    calls = traced_training(tmp_path, RENAMES, "--steps=2")
    order = re.findall(r'"[^"]*/brain/\.([^"/]+)\.new"', "\n".join(calls))
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} < set(order[:-2])
    assert order[-2:] == ["model.safetensors", "brain.json"]


@pytest.mark.slow
def test_the_log_is_on_the_disk_before_the_checkpoint_is(tmp_path: Path) -> None:
    """Or a power cut leaves a checkpoint of steps that are missing in the log."""
    calls = traced_training(tmp_path, f"fsync,write,{RENAMES}", "--steps=4", "--save-every=2")
    saves = [n for n, call in enumerate(calls) if "rename" in call and re.search(r'/checkpoints/step-\d+"', call)]
    assert len(saves) == 2
    for save in saves:
        of_log = [call for call in calls[:save] if "/metrics.jsonl>" in call]
        assert "fsync(" in of_log[-1]
