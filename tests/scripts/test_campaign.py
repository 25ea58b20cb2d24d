"""The campaign of faults itself: a few of its cheapest cases for real, its memory, its judgement, its disk model."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from faults.brains import bad_wording, check_same, fingerprint
from faults.disk_model import ALL, NONE, Disk, Op, after_cut
from faults.records import HELD, LIBRARY, LOST, SILENT, Case, Judged, Outcome, Store, code_id
from faults.report import write

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "campaign.py"


def campaign(folder: Path, *args: str) -> tuple[list[dict[str, object]], str]:
    """The records that the campaign has after a run with `args`, and what it printed."""
    own = [f"--work={folder}", f"--results={folder / 'cases.jsonl'}", f"--json={folder / 'report' / 'campaign.json'}"]
    command = [sys.executable, str(SCRIPT), *own, *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=ROOT)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return [json.loads(line) for line in (folder / "cases.jsonl").read_text().splitlines()], done.stdout


@pytest.fixture(scope="module")
def cheap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a campaign of two cases of each of the cheap kinds."""
    if shutil.which("strace") is None or shutil.which("gcc") is None:
        pytest.skip("strace and gcc are needed")
    folder = tmp_path_factory.mktemp("campaign")
    campaign(folder, "--only=save_faults,damage,input", "--count=2")
    return folder


@pytest.mark.slow
def test_cases_are_run_judged_and_reported(cheap: Path) -> None:
    records = [json.loads(line) for line in (cheap / "cases.jsonl").read_text().splitlines()]
    kinds = ["damage", "damage", "input", "input", "save_faults", "save_faults"]
    assert sorted(record["kind"] for record in records) == kinds
    assert all(record["verdict"] != "missed" and record["seconds"] > 0 for record in records)
    summary = json.loads((cheap / "report" / "campaign.json").read_text())
    assert [(row["kind"], row["cases"]) for row in summary["kinds"]] == [
        ("save_faults", 2),
        ("damage", 2),
        ("input", 2),
    ]
    assert f"| damage | {code_id(ROOT)} | 2 |" in (cheap / "report" / "campaign.md").read_text()


@pytest.mark.slow
def test_an_interrupted_campaign_goes_on(cheap: Path) -> None:
    with (cheap / "cases.jsonl").open("a") as file:
        file.write('{"kind": "damage", "na')
    records, said = campaign(cheap, "--only=damage", "--count=2")
    assert "damage: 0 of 2 cases to do" in said
    assert len(records) == 6


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_every_kind_runs(tmp_path: Path) -> None:
    records, _ = campaign(tmp_path, "--only=kill,power,surroundings,fuzz", "--count=1")
    assert sorted(str(record["kind"]) for record in records) == ["fuzz", "kill", "power", "surroundings"]


def test_results_of_other_code_do_not_count(tmp_path: Path) -> None:
    case = Case("damage", "half x", 0)
    Store.open(tmp_path / "cases.jsonl", "old").add(case, Outcome(HELD), 1.0)
    assert case in Store.open(tmp_path / "cases.jsonl", "old").records
    assert case not in Store.open(tmp_path / "cases.jsonl", "new").records


def brain(folder: Path, *, loss: float = 1.0, steps: int = 3, weights: bytes = b"w") -> Path:
    records = [{"event": "train", "step": step, "loss": loss, "lr": 1e-3} for step in range(1, steps + 1)]
    records.append({"event": "final", "step": steps, "steps": steps, "eval_loss": 2.0})
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.mark.parametrize(
    ("other", "verdict"),
    [({"loss": 1.0 + 2e-16}, SILENT), ({"weights": b"v"}, SILENT), ({"steps": 2}, LOST)],
)
def test_the_smallest_difference_is_found(tmp_path: Path, other: dict[str, object], verdict: str) -> None:
    reference = fingerprint(brain(tmp_path / "reference"))
    check_same(brain(tmp_path / "same"), reference)
    with pytest.raises(Judged) as judged:
        check_same(brain(tmp_path / "other", **other), reference)  # type: ignore[arg-type]
    assert judged.value.outcome.verdict == verdict


def test_a_librarys_words_are_told_from_a_sentence() -> None:
    assert bad_wording("Error: --lr is 0, but it must be positive.\n") is None
    outcome = bad_wording("step 1\nError: OSError: [Errno 28] No space left on device (--debug shows the traceback)\n")
    assert outcome is not None
    assert outcome.verdict == LIBRARY


def test_what_was_not_synced_may_be_gone_and_what_was_is_there(tmp_path: Path) -> None:
    write = [Op("link", 0, "new", target=1), Op("data", 1, data=b"bytes")]
    replace = [Op("sync", 1), Op("rename", 0, "new", target=0, new_name="file"), Op("sync", 0)]
    rng = random.Random(0)
    for count, mode, files in (
        (2, NONE, {}),
        (2, ALL, {"new": b"bytes"}),
        (3, NONE, {}),  # synced, but under no name yet
        (4, ALL, {"file": b"bytes"}),
        (5, NONE, {"file": b"bytes"}),
    ):
        folder = tmp_path / f"{count}{mode}"
        after_cut(Disk(), [*write, *replace], count, mode, rng).write(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_a_kind_that_is_not_run_anew_keeps_its_row_with_the_code_it_was_run_on(tmp_path: Path) -> None:
    def record(kind: str, verdict: str = HELD) -> dict[str, object]:
        return {"kind": kind, "name": kind, "verdict": verdict, "detail": "", "faults": 1, "seconds": 1.0}

    path = tmp_path / "campaign.json"
    write([record("kill", LOST), record("power")], ("kill", "power"), "old", "first", path)
    write([record("power", SILENT)], ("kill", "power"), "new", "second", path)
    summary = json.loads(path.read_text())
    assert [(row["kind"], row["code"]) for row in summary["kinds"]] == [("kill", "old"), ("power", "new")]
    assert sorted(bad["verdict"] for bad in summary["did_not_hold"]) == sorted([LOST, SILENT])
