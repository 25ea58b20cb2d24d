"""The trainings that the HRM's choices are compared in: the command's own, each run once."""

from __future__ import annotations

from hrm_choices import Training, Trainings, choices_table


def test_a_training_is_run_once_and_remembered(tmp_path):
    training, folder = Training("--no-halting --ema=0.9", seed=1, steps=3), tmp_path / "bench"
    loss, seconds = Trainings.open(folder).result(training)
    assert 5 < loss < 9  # nats per token, hardly trained
    again = Trainings.open(folder)
    assert again.result(training) == (loss, seconds)
    assert len((folder / "trainings.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    other = Training("--no-halting --ema=0.9", seed=2, steps=3)
    assert other not in again.runs.records


def test_the_table_has_all_seeds_and_the_time_beside_the_first_row():
    rows = [
        {"choice": "as it is", "steps": 7, "eval_losses": (4.0, 5.0), "seconds": 2.0},
        {"choice": "--shared-stack", "steps": 7, "eval_losses": (3.0, 3.0), "seconds": 1.0},
    ]
    table = choices_table(rows)
    assert str(table.title) == "7 steps of tiny"
    assert [list(column.cells) for column in table.columns] == [
        *(["as it is", "--shared-stack"], ["4.000", "3.000"], ["5.000", "3.000"]),
        *(["4.500", "3.000"], ["1.00", "0.50"]),
    ]
