"""`aios hrm-hf chat` on a brain of a tiny training."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from aios.cli.hrm_hf.answer import answer, encode
from aios.cli.hrm_hf.chat import Conversation
from aios.cli.hrm_hf.trained_brain import WeightsPlace, open_brain
from aios.settings.answering import Answering
from aios.settings.config import TrainingConfig
from forked_aios import ForkedAios
from strangers import refusal
from training_process import run_aios, train, wait_for

GREEDY = "--temperature=0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a brain with a long window: answers to it take a while."""
    folder = tmp_path_factory.mktemp("trained")
    train(
        folder, "--steps=2", "--eval-every=0", "--lr=1e-3", "--max-seq-len=2048", "--batch-size=1", "--eval-batches=1"
    )
    return folder


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a brain with a window of 32 tokens."""
    folder = tmp_path_factory.mktemp("narrow")
    train(folder, "--steps=4", "--eval-every=0", "--lr=3e-3")
    return folder


def chat_args(folder: Path, *args: str) -> list[str]:
    return ["hrm-hf", "chat", f"--bundle-dir={folder}", "--brain-name=brain", *args]


def test_each_line_is_answered_until_quit_or_the_end(narrow: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    answers = []
    for text in ("Moses\n\nAaron\n/quit\nnever\n", "Moses\nAaron"):
        said.write_text(text, encoding="utf-8")
        done = run_aios(*chat_args(narrow, GREEDY, "--max-new-tokens=6"), stdin=said)
        assert (done.returncode, done.stderr) == (0, "")
        answers.append(done.stdout)
    assert answers[0] == answers[1]
    assert answers[0].count("\n") >= 2


def test_what_no_longer_fits_the_window_is_forgotten_and_that_is_said(narrow: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.write_text("And it came to pass in those days\n" * 5 + "and Moses spake unto them " * 40 + "\n", "utf-8")
    done = run_aios(*chat_args(narrow, "--max-new-tokens=500"), stdin=said)
    assert done.returncode == 0
    assert set(done.stderr.splitlines()) == {
        "What was said first does not fit into the window of 32 tokens any more and is forgotten."
    }


def test_a_conversation_is_one_text_whether_kept_or_computed_anew(folder: Path) -> None:
    brain = open_brain(WeightsPlace(folder / "brain", folder / "brain"), TrainingConfig(device="cpu"))
    how = Answering(12, temperature=0)
    conversation, text = Conversation(brain, how), []
    for number, line in enumerate(("In the beginning", "was the word", "of Moses")):
        pieces: list[str] = []
        assert not conversation.say(line)
        conversation.reply(pieces.append)
        parted = "\n" if number and not brain.tokenizer.decode(text[-1:]).endswith("\n") else ""
        text += encode(brain, f"{parted}{line}\n")
        anew: list[str] = []
        text += answer(brain, text, how, anew.append).tokens
        assert pieces == anew


def test_ctrl_c_ends_the_answer_and_not_the_conversation(folder: Path) -> None:
    ours, theirs = os.openpty()
    chat = ForkedAios(chat_args(folder, "--max-new-tokens=2000"), stdin=os.ttyname(theirs))
    try:
        os.write(ours, b"Moses\n")
        wait_for(chat, lambda: len(chat.said()[0]) > 5)
        chat.send_signal(signal.SIGINT)
        wait_for(chat, lambda: chat.said()[1].count("> ") == 2)
        os.write(ours, b"/quit\n")
        out, err = chat.communicate(60)
    finally:
        chat.kill()
        os.close(theirs)
        os.close(ours)
    assert chat.returncode == 0, err
    assert len(out.split()) < 1000
    assert err.startswith(f"{folder / 'brain'} goes on with what you write. Ctrl-C ends an answer")


def test_bad_input_is_one_sentence(folder: Path) -> None:
    assert "choose another --brain-name (brain)" in refusal(chat_args(folder, "--brain-name=other"))
    assert "--top-p is 2.0, but it must be" in refusal(chat_args(folder, "--top-p=2"))
