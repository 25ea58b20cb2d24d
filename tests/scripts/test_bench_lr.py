"""The parts of the learning-rate benchmark that its verdict hangs on."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace

import pytest

pytest.importorskip("sklearn", reason='needs pip install -e ".[bench]"')
pytest.importorskip("schedulefree")
pytest.importorskip("prodigyopt")

from lr_bench import disturbances, jobs, methods, regret, report, runs
from lr_bench.workloads import WORKLOADS

DIGITS = jobs.Settings(("digits_sgd",), ("rules", "linear", "wsd"), seeds=(0, 1), steps_factor=0.02, decades=True)


def test_peer_is_tuned_on_the_first_seed_only():
    losses = {("wsd", 1e-3, 0): 1.0, ("wsd", 1e-2, 0): 1.1, ("wsd", 1e-2, 1): 0.1, ("wsd", 1e-3, 1): 2.0}
    assert regret.tuned_lr(losses, "wsd", 0) == 1e-3
    reference = regret.best_tuned_peer(losses, ["wsd"], (0, 1))
    assert reference == regret.Reference("wsd", 1e-3, {0: 1.0, 1: 2.0})


def test_best_peer_is_chosen_by_the_mean_over_seeds_that_all_peers_have():
    losses = {("wsd", 1, 0): 1.0, ("wsd", 1, 1): 3.0, ("cosine", 2, 0): 1.5, ("cosine", 2, 1): 2.0}
    assert regret.best_tuned_peer(losses, ["wsd", "cosine"], (0, 1)).method == "cosine"
    del losses["wsd", 1, 1]
    assert regret.best_tuned_peer(losses, ["wsd", "cosine"], (0, 1)) == regret.Reference("wsd", 1, {0: 1.0})
    assert regret.best_tuned_peer({}, ["wsd"], (0,)) is None


def test_regret_is_relative_to_the_reference_on_the_same_seeds():
    reference = regret.Reference("wsd", 1.0, {0: 2.0, 1: 4.0})
    losses = {("auto", 0.1, 0): 2.2, ("auto", 0.1, 1): 4.1, ("auto", 1.0, 0): 1.9, ("auto", 1.0, 1): 3.5}
    found = regret.regret(losses, reference, "auto", [0.1, 1.0])
    assert found.by_lr == pytest.approx({0.1: 0.05, 1.0: -0.1})
    assert (found.mean, found.worst, found.worst_run) == pytest.approx((-0.025, 0.05, 0.1))
    assert not found.on_target
    assert regret.Regret({}, mean=-0.001, worst=0.015, worst_run=0.1).on_target


def test_diverged_run_is_an_infinite_regret():
    found = regret.regret({("auto", 1.0, 0): math.inf}, regret.Reference("wsd", 1, {0: 1.0}), "auto", [1.0])
    assert found.worst == math.inf
    assert not found.on_target


def test_starts_are_points_of_every_grid():
    for workload in WORKLOADS.values():
        assert set(workload.starts) <= set(workload.grid)


def test_interrupted_benchmark_goes_on_where_it_was(tmp_path):
    store = jobs.Store.open(tmp_path / "runs.jsonl")
    first, second = next(jobs.stages(DIGITS, store))[:2]
    store.add(first, {"final": 1.5})
    with store.path.open("a") as file:
        file.write('{"job": {"workload": "dig')
    again = jobs.Store.open(store.path)
    assert second in next(jobs.stages(DIGITS, again))
    assert first not in next(jobs.stages(DIGITS, again))
    again.add(second, {"final": None})
    losses = jobs.Store.open(store.path).losses(DIGITS, "digits_sgd")
    assert losses == {("rules", first.lr, 0): 1.5, ("rules", second.lr, 0): math.inf}


def test_fresh_forgets_only_what_is_chosen(tmp_path):
    store = jobs.Store.open(tmp_path / "runs.jsonl")
    ours, peer = (DIGITS.job("digits_sgd", method, 0.1, 0) for method in ("rules", "wsd"))
    other_length = replace(ours, steps=7)
    for job in (ours, peer, other_length):
        store.add(job, {"final": 1.0})
    store.forget(replace(DIGITS, methods=("rules",)))
    assert set(jobs.Store.open(store.path).records) == {peer, other_length}


def test_later_stages_use_the_peers_tuned_in_earlier_ones(tmp_path):
    store, seen = jobs.Store.open(tmp_path / "runs.jsonl"), []
    for stage in jobs.stages(DIGITS, store):
        seen.append(stage)
        for job in stage:
            store.add(job, {"final": abs(math.log10(job.lr) + 1) + 1})  # best at 0.1
    busy = [stage for stage in seen if stage]
    assert [{job.method for job in stage} for stage in busy] == [{"rules"}, *[{"linear", "wsd"}] * 2]
    assert {(job.lr, job.seed) for job in busy[2]} == {(0.1, 1)}
    assert not any(jobs.stages(DIGITS, store))


def test_run_is_a_function_of_its_job():
    job = DIGITS.job("digits_sgd", "wsd", 0.1, 0)
    results = [runs.run_job(job) for _ in range(2)]
    assert results[0]["final"] == results[1]["final"]
    assert results[0]["train_loss"] == results[1]["train_loss"]
    assert results[0]["final"] != runs.run_job(replace(job, seed=1))["final"]


def test_no_run_begins_after_the_deadline(tmp_path):
    store = jobs.Store.open(tmp_path / "runs.jsonl")
    assert runs.run_all(DIGITS, store, 1, time.monotonic() - 1, lambda line: None) == []
    assert not store.records


@pytest.mark.parametrize("method", [*methods.PEERS, "rules"])
def test_every_method_lowers_the_loss(method):
    lr = 1.0 if method in ("prodigy", "schedulefree") else 0.1
    result = runs.run_job(jobs.Job("digits_sgd", method, lr, 0, 300))
    assert result["final"] < 1.0
    assert len(result["train_loss"]) == len(result["lr"]) == runs.CURVE_POINTS


@pytest.mark.parametrize(("shape", "middle", "end"), [
    (methods.constant, 1, 1), (methods.cosine, 0.5, 0), (methods.wsd, 1, 0), (methods.linear, 0.5, 0),
])  # fmt: skip
def test_schedule_shapes(shape, middle, end):
    assert shape(0) == 1
    assert shape(0.5) == pytest.approx(middle)
    assert shape(1) == pytest.approx(end)


def test_ten_nan_batches_are_ten_calls_whatever_the_batch():
    problem = disturbances.disturbed(WORKLOADS["digits_sgd"].build(0), disturbances.NAN, at=3)
    finite = [math.isfinite(problem.loss(7).item()) for _ in range(15)]
    assert finite == [True] * 3 + [False] * 10 + [True] * 2


def test_other_disturbances_hit_once_or_for_good():
    build = WORKLOADS["digits_sgd"].build
    calm = build(0).loss(7).item()
    corrupt, change = (
        disturbances.disturbed(build(0), kind, 1) for kind in (disturbances.CORRUPT, disturbances.CHANGE)
    )
    assert [corrupt.loss(7).item() == calm for _ in range(3)] == [True, False, True]
    assert [change.loss(7).item() == calm for _ in range(3)] == [True, False, False]


def test_kicked_learning_rate_stays_kicked_for_a_fixed_schedule():
    result = runs.run_job(jobs.Job("digits_sgd", "constant", 1e-4, 0, 40, disturbances.KICK))
    assert (result["lr"][19], result["lr"][20], result["lr"][39]) == pytest.approx((1e-4, 1e-2, 1e-2))


def test_recovery_is_counted_from_the_middle_of_the_run():
    calm = [1.0] * 100
    assert disturbances.recovery_steps(calm, calm, 400) == 0
    assert disturbances.recovery_steps([1.0] * 50 + [2.0] * 10 + [1.01] * 40, calm, 400) == 40
    assert disturbances.recovery_steps([1.0] * 50 + [1.1] * 50, calm, 400) is None
    assert disturbances.recovery_steps([1.0] * 51 + [None] * 49, calm, 400) is None


def test_report_says_which_runs_diverged_and_is_valid_json(tmp_path):
    store = jobs.Store.open(tmp_path / "runs.jsonl")
    for method, lr, final in [("wsd", 0.1, 0.2), ("wsd", 1.0, None), ("rules", 0.1, 0.21)]:
        store.add(DIGITS.job("digits_sgd", method, lr, 0), {"final": final})
    settings = report.reporting(DIGITS, store)
    text = "\n".join(table.markdown() for table in report.tables(settings, store))
    assert "| wsd | - | - | 0.2000 | diverged | 0.2000 at 0.1 (edge) |" in text
    assert "| rules | +5.0 % | +5.0 % | +5.0 % | 1 | - |" in text
    figures = json.loads(json.dumps(report.summary(settings, store), allow_nan=False))
    assert figures["workloads"]["digits_sgd"]["regret"]["wsd"]["worst"] == "diverged"


def test_auto_is_held_against_each_peer_on_the_seeds_that_both_have(tmp_path):
    start = WORKLOADS["digits_sgd"].starts[0]
    store = jobs.Store.open(tmp_path / "runs.jsonl")
    runs = [("auto", start, 0, 0.3), ("auto", start, 1, 0.1)]
    runs += [("wsd", 0.1, 0, 0.2), ("wsd", 0.1, 1, 0.2), ("wsd", 1.0, 0, 0.3), ("wsd", 1.0, 1, 0.01)]
    runs += [("cosine", 1.0, 0, 0.2)]
    for method, lr, seed, final in runs:
        store.add(DIGITS.job("digits_sgd", method, lr, seed), {"final": final})
    table = report.against_each_peer(report.reporting(DIGITS, store), store)
    assert table.columns == ["workload", "wsd", "cosine"]
    assert table.rows[0] == ["digits_sgd", "+0.0 %", "+50.0 %"]
    assert [row[0] for row in table.rows[1:]] == ["median", "geometric mean", "below it in"]
    assert table.rows[-1] == ["below it in", "0 of 1", "0 of 1"]


def test_disturbed_run_is_compared_with_its_own_method_undisturbed(tmp_path):
    store = jobs.Store.open(tmp_path / "runs.jsonl")
    curve = [1.0] * 100
    store.add(DIGITS.job("digits_sgd", "wsd", 0.1, 0), {"final": 0.2, "train_loss": curve})
    store.add(DIGITS.job("digits_sgd", "wsd", 0.1, 0, disturbances.NAN), {"final": 0.25, "train_loss": curve})
    found = report.disturbance_effects(DIGITS, store, "digits_sgd", "wsd", 0.1)
    assert list(found) == [disturbances.NAN]
    assert found[disturbances.NAN].change == pytest.approx(0.25)
    assert found[disturbances.NAN].recovery == 0
