"""The benchmark of the adapters: what its verdict hangs on, and one bout as it is run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("peft", reason='needs pip install -e ".[bench,dev]"')
pytest.importorskip("trl")

from integration_bench.jobs import Bout, Results
from integration_bench.methods import COSINE, COSINE_RATES, DEFAULT, GREEDY, OURS

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench_integrations.py"


def test_cosine_is_tuned_on_the_first_seed_and_all_are_held_against_it(tmp_path):
    bout, results = Bout("transformers", "scratch", (0, 1)), Results.open(tmp_path / "runs.jsonl")

    def lose(job):
        best = {COSINE: abs(math.log(job.lr / 3e-3)) if job.method == COSINE else 0.0}.get(job.method, 1.0)
        results.add(job, 2.0 + best + job.seed)

    bout.complete(results, lose)
    rows = {row.method: row for row in bout.rows(results)}
    assert rows[COSINE].lr == 3e-3
    assert rows[COSINE].losses == [2.0, 3.0]
    assert rows[OURS].ratio == pytest.approx(7 / 5)
    assert rows[GREEDY].cells()[-1] == "1.500"
    assert rows[DEFAULT].lr is None


def test_interrupted_benchmark_goes_on_and_a_diverged_run_is_infinite(tmp_path):
    path, ran = tmp_path / "runs.jsonl", []
    bout, results = Bout("torch", "scratch", (0,)), Results.open(path)
    results.add(bout.tuning()[0], math.inf)
    path.write_text(path.read_text(encoding="utf-8") + '{"job": {"fra', encoding="utf-8")
    again = Results.open(path)
    assert again.losses == {bout.tuning()[0]: math.inf}
    bout.complete(again, lambda job: (ran.append(job), again.add(job, job.lr + 1)))
    assert bout.tuning()[0] not in ran
    assert len(ran) == len(COSINE_RATES) - 1 + 2
    assert "null" in path.read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_bout_is_run_and_reported(tmp_path):
    command = [sys.executable, SCRIPT, "--quick", "--frameworks", "torch", "--results", tmp_path / "runs.jsonl"]
    done = subprocess.run([*map(str, command), "--out", str(tmp_path)], check=False, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    told = json.loads((tmp_path / "integrations.json").read_text(encoding="utf-8"))["rows"]
    assert {(row["task"], row["method"]) for row in told} >= {("scratch", OURS), ("lora", COSINE)}
    assert "| torch | lora | AutoLR |" in (tmp_path / "integrations.md").read_text(encoding="utf-8")
