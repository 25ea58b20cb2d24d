"""What is told of a run before it starts: from its settings, the first pages of its text, and earlier runs."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from aios.data.text_source import check_dataset
from aios.data.token_estimate import estimated_tokens
from aios.data.tokenizer import bundled_corpus_path, load_tokenizer
from aios.gui.earlier_runs import foresee, usual_step_seconds
from aios.settings.config import TrainingConfig
from aios.settings.fits import size_of_run
from aios.settings.forecast import Forecast, forecast

CPU: dict[str, Any] = {"device": "cpu"}


def known(tokens: int = 100_000, **given: Any) -> Forecast:
    config = TrainingConfig(**{**CPU, **given})
    return Forecast(config, tokens, counted=True, size=size_of_run(config, 2048, "cpu"))


def test_the_bundled_text_is_estimated_within_a_few_percent() -> None:
    tokenizer = load_tokenizer()
    text = bundled_corpus_path().read_text(encoding="utf-8")
    counted = len(tokenizer.encode(text, add_special_tokens=False))
    foreseen = forecast(TrainingConfig(**CPU))
    assert foreseen is not None
    assert foreseen.tokens == pytest.approx(counted, rel=0.05)
    assert foreseen.size.vocab_size == len(tokenizer)
    assert foreseen.facts[0].startswith(f"About {float(f'{foreseen.tokens:.2g}'):,.0f} tokens of text; 600 steps read")


def test_a_small_text_is_counted_and_an_unknown_tokenizer_tells_nothing(psalms: Path) -> None:
    source = check_dataset(psalms)
    estimated = estimated_tokens(source, None)
    assert estimated is not None
    assert estimated[0] == pytest.approx(
        len(load_tokenizer().encode(psalms.read_text(), add_special_tokens=False)), rel=0.05
    )
    assert estimated_tokens(source, "some/name") is None
    assert forecast(TrainingConfig(**CPU, dataset_file=str(psalms), model="some/name")) is None


def test_epochs_count_every_sequence_of_every_worker() -> None:
    shape = {"steps": 100, "batch_size": 4, "gradient_accumulation_steps": 2, "max_seq_len": 50}
    assert known(**shape).epochs == pytest.approx(0.4)
    assert known(**shape, ddp=True, world_size=2).epochs == pytest.approx(0.8)
    assert known(**shape).facts[0] == "100,000 tokens of text; 100 steps read 40 % of them."


def test_time_and_memory_are_told_in_two_digits_as_an_estimate_is() -> None:
    told = dataclasses.replace(known(steps=1000), step_seconds=5.678).facts[1]
    assert told.endswith(" about 1 h 35 min, by the speed of earlier runs.")
    assert re.search(r"; about \d\.?\d0? [MG]B of memory; ", told)


def test_doubts_are_told_where_there_are_any() -> None:
    assert known().doubts == []
    assert known(steps=79).doubts == [
        "Too short to search for a learning rate, which takes 80 steps or more: it begins at 0.001 unless --lr says "
        "otherwise."
    ]
    assert known(steps=79, lr=1e-2).doubts[0].endswith("it begins at 0.01.")
    assert known(steps=79, adaptive_lr_profile="rules").doubts == []
    (doubt,) = known(tokens=10_000).doubts
    assert "learned by heart" in doubt
    assert doubt.endswith("up to 78 steps.")
    assert known(tokens=10_000, steps=80).doubts == [doubt]


def test_the_time_comes_from_the_most_similar_run_there_is(tmp_path: Path) -> None:
    def ran(name: str, seconds: float, device: str = "cpu", **given: Any) -> None:
        config = TrainingConfig(**{**CPU, **given}).to_dict() | {"of_another_version": 1}
        records: list[dict[str, Any]] = [{"event": "run_start", "step": 0, "config": config, "device": device}]
        records += [{"event": "train", "step": step, "step_time_s": seconds} for step in range(1, 5)]
        (tmp_path / name).mkdir()
        text = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / name / "metrics.jsonl").write_text(text, encoding="utf-8")

    def told(**given: Any) -> float | None:
        foreseen = foresee(TrainingConfig(**{**CPU, **given}, bundle_dir=str(tmp_path)))
        assert foreseen is not None
        assert foreseen.step_seconds == usual_step_seconds(foreseen)
        return foreseen.step_seconds

    assert told() is None
    ran("gpu", 0.001, device="H200")
    ran("base", 90.0, preset="base")
    assert told() is None
    ran("alike", 0.5)
    ran("larger", 2.0, batch_size=16)
    assert told() == pytest.approx(0.5)
    assert told(batch_size=16) == pytest.approx(2.0)
    assert told(batch_size=4) == pytest.approx(0.25)
