"""Runs side by side: their final figures, and the settings that differ."""

from __future__ import annotations

from aios.run_view.comparing import differing_settings, final_figures
from run_view.logs import history_of, start, train


def test_final_figures_have_a_value_or_a_dash_for_each_run() -> None:
    evals = [{"event": "eval", "ts": 1.0, "step": at, "loss": loss} for at, loss in ((10, 2.0), (20, 2.5))]
    done = history_of([start(40), *(train(step, 3.5 - step / 40) for step in range(1, 21)), *evals])
    rows = dict(final_figures([done, history_of([])]))
    assert rows["Steps"] == ["20 / 40", "0"]
    assert rows["Training loss"] == ["3.0000", "\u2014"]
    assert rows["Evaluation loss"] == ["2.5000", "\u2014"]
    assert rows["Best evaluation"] == ["2.0000", "\u2014"]
    assert rows["at step"] == ["10", "\u2014"]
    assert rows["Perplexity"] == ["12.18", "\u2014"]
    assert final_figures([]) == []


def test_only_settings_that_differ_are_told_and_names_are_none() -> None:
    one = {"brain_name": "a", "steps": 100, "lr": None, "use_moe": True, "data_columns": ["q"], "seed": 0}
    other = {"brain_name": "b", "steps": 200, "lr": 1e-3, "use_moe": False, "data_columns": ["q", "a"], "seed": 0}
    assert differing_settings([one, other]) == [
        ("steps", ["100", "200"]),
        ("lr", ["\u2014", "0.001"]),
        ("use-moe", ["yes", "no"]),
        ("data-columns", ['["q"]', '["q", "a"]']),
    ]
    assert differing_settings([one, one]) == []
    assert differing_settings([one, {}])[0] == ("steps", ["100", "\u2014"])
