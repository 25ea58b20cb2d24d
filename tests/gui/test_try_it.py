"""A brain that is tried in the window: a text goes on as `aios hrm-hf generate` has it, also beside its training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aios.brains.brain_list import read_brain
from aios.gui.try_panel import about
from desktop import App, Screen
from training_process import TIMEOUT, run_aios, start_training, train, wait_for

PROMPT = "The heavens declare"


def sample(step: int, text: str) -> dict[str, object]:
    return {"event": "sample", "ts": 1e9 + step, "step": step, "prompt": PROMPT, "text": text}


def test_a_text_goes_on_as_the_command_line_has_it(screen: Screen, home: Path, psalms: Path) -> None:
    train(home / "brains", "--steps=3", f"--dataset-file={psalms}")
    asked = ("--max-new-tokens=12", "--temperature=0", f"--prompt={PROMPT}")
    expected = run_aios("hrm-hf", "generate", f"--bundle-dir={home / 'brains'}", "--brain-name=brain", *asked).stdout
    log = home / "brains" / "brain" / "metrics.jsonl"
    with log.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(sample(step, f" text {step}")) + "\n" for step in (1, 2))
    with App(screen, home, "brains/brain") as app:
        app.press("ctrl+4")
        app.wait(lambda: app.text("try.brain") == "brain", "the brain of the run on show")
        app.wait(lambda: app.widget("try.prompt")["focus"], "the cursor to be where the text begins")
        assert app.text("try.about") == "Trained to step 3; the weights of step 3 answer."
        app.wait(lambda: app.shows("try.samples"), "the samples of the log")
        assert app.text("try.samples") == f"Step 2: {PROMPT} text 2\n\nStep 1: {PROMPT} text 1"
        app.click("try.go")
        app.wait(lambda: app.text("try.said").startswith("Write how the text begins"), "the objection")
        app.fill("try.prompt", PROMPT)
        app.fill("try.max_new_tokens", "12")
        app.fill("try.temperature", "0.001")
        app.press("Return")
        app.wait(lambda: "“Temperature” is 0.001" in app.text("try.said"), "the objection to the temperature")
        app.fill("try.temperature", "0")
        app.press("Return")
        app.wait(lambda: app.text("try.go") == "Cancel", "the answer to begin")
        app.wait(lambda: app.text("try.said") == "That is all.", "the answer", TIMEOUT)
        assert app.text("try.text") == PROMPT + expected
        assert app.text("try.go") == "Continue the text"


@pytest.mark.slow
def test_a_brain_in_training_answers_from_its_newest_checkpoint_and_trains_on(
    screen: Screen, home: Path, psalms: Path
) -> None:
    flags = ("--steps=100000", "--save-every=20", "--eval-every=0", f"--dataset-file={psalms}")
    training = start_training(home / "brains", *flags)
    brain = home / "brains" / "brain"
    wait_for(training, lambda: (brain / "checkpoints" / "step-20").exists())
    with App(screen, home, "brains/brain") as app:
        app.press("ctrl+4")
        app.wait(lambda: app.text("try.about").startswith("In training; its newest checkpoint"), "what answers")
        app.fill("try.prompt", PROMPT)
        app.fill("try.max_new_tokens", "999999")
        app.press("Return")
        app.wait(lambda: len(app.text("try.text")) > len(PROMPT), "the answer to begin", TIMEOUT)
        app.press("Escape")
        app.wait(lambda: app.text("try.said") == "Cancelled.", "it to be cancelled")
        assert app.text("try.go") == "Continue the text"
        assert training.poll() is None
        before = app.text("number.step")
        app.wait(lambda: app.text("number.step") != before, "the training to go on", TIMEOUT)
    training.terminate()
    training.wait(TIMEOUT)


def test_what_answers_is_told(tmp_path: Path) -> None:
    assert about(None).startswith("No brain yet")
    log = tmp_path / "new" / "metrics.jsonl"
    log.parent.mkdir()
    log.write_text('{"event": "run_start", "step": 0}\n', encoding="utf-8")
    assert about(read_brain(log.parent)).startswith("It has not saved anything yet")
    (log.parent / "checkpoints" / "step-40").mkdir(parents=True)
    assert "the weights of step 40 answer" in about(read_brain(log.parent))
