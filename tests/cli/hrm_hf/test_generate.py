"""`aios hrm-hf generate` on brains of tiny trainings."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from aios.cli.hrm_hf.answer import answer, encode
from aios.cli.hrm_hf.trained_brain import TrainedBrain, WeightsPlace, find_weights, open_brain, open_while_trained
from aios.core.hrm_models import HRMForCausalLM
from aios.runs.brain import list_checkpoints
from aios.settings.answering import Answering
from aios.settings.config import TrainingConfig
from strangers import AUTO_MAP, edit_json, refusal
from training_process import TIMEOUT, run_aios, start_training, train, wait_for, wait_for_step

PROMPT = "And God said unto Moses"
STEPS = 6


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a brain trained a few steps, with two checkpoints; its window is 32 tokens."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder, f"--steps={STEPS}", "--save-every=3", "--eval-every=0", "--lr=3e-3", "--on-overfit=ignore")
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(trained / "brain", tmp_path / "brain")
    return tmp_path


def generate_args(folder: Path, *args: str, prompt: str = PROMPT) -> list[str]:
    return ["hrm-hf", "generate", f"--bundle-dir={folder}", "--brain-name=brain", f"--prompt={prompt}", *args]


def generated(folder: Path, *args: str, prompt: str = PROMPT, stdin: str = "/dev/null") -> tuple[str, str]:
    """What a generation that must succeed has said, out and err."""
    done = run_aios(*generate_args(folder, *args, prompt=prompt), stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def opened(folder: Path) -> TrainedBrain:
    return open_brain(WeightsPlace(folder / "brain", folder / "brain"), TrainingConfig(device="cpu"))


def test_greedy_text_is_what_transformers_makes_of_the_published_brain(trained: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained / "brain")
    model = HRMForCausalLM.from_pretrained(trained / "brain")
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    expected = tokenizer.decode(model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :])
    greedy = ("--temperature=0", "--max-new-tokens=40")
    assert generated(trained, *greedy) == (f"{expected}\n", "")  # and nothing beside the text
    piped = tmp_path / "prompt.txt"
    piped.write_text(f"{PROMPT}\n", encoding="utf-8")
    assert generated(trained, *greedy, prompt="-", stdin=str(piped)) == (f"{expected}\n", "")


def test_a_checkpoint_that_its_training_dropped_meanwhile_is_looked_for_again(folder: Path) -> None:
    config = TrainingConfig(bundle_dir=str(folder), brain_name="brain", device="cpu")
    found = find_weights(config, "newest")
    shutil.rmtree(found.folder)
    again, brain = open_while_trained(found, config, "newest")
    assert (found.folder.name, again.folder.name) == (f"step-{STEPS}", "step-3")
    assert brain.window == 32


def test_the_seed_decides_what_is_drawn(trained: Path) -> None:
    first, again, other = (generated(trained, f"--seed={seed}")[0] for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_json_tells_all_of_it_in_one_object(trained: Path) -> None:
    out, err = generated(trained, "--json", "--seed=5", "--max-new-tokens=9", "--top-k=20", "--top-p=0.9")
    told = json.loads(out)
    assert err == ""
    assert 0 < told.pop("seconds") < 60
    text = generated(trained, "--seed=5", "--max-new-tokens=9", "--top-k=20", "--top-p=0.9")[0]
    assert told.pop("text") + "\n" == text
    assert told == {
        "brain": "brain",
        "weights": str(trained / "brain"),
        "prompt": PROMPT,
        "prompt_tokens": 5,
        "tokens": 9,
        "ended": "length",
        "seed": 5,
    }


def test_of_a_prompt_longer_than_the_window_the_end_is_used_and_that_is_said(trained: Path) -> None:
    brain = opened(trained)
    prompt = "and the LORD spake unto Aaron saying " * 12
    out, err = generated(trained, "--temperature=0", "--max-new-tokens=10", prompt=prompt)
    tokens = encode(brain, prompt)
    assert err == f"The prompt has {len(tokens)} tokens; the last 32 of them are used, the model's window.\n"
    pieces: list[str] = []
    answer(brain, tokens[-32:], Answering(10, temperature=0), pieces.append)
    assert out == "".join(pieces) + "\n"


def test_pieces_are_never_taken_back_and_hold_no_half_of_a_character(trained: Path) -> None:
    brain = opened(trained)
    for seed in range(8):
        torch.manual_seed(seed)
        pieces: list[str] = []  # at this temperature bytes come as they like
        given = answer(brain, encode(brain, "ä"), Answering(60, 100.0, 0), pieces.append)
        whole = brain.tokenizer.decode(given.tokens)
        shown = "".join(pieces)
        assert whole.startswith(shown)
        assert set(whole[len(shown) :]) <= {"\N{REPLACEMENT CHARACTER}"}
        assert len([piece for piece in pieces if piece]) > 1
        assert not shown.endswith("\N{REPLACEMENT CHARACTER}")


def test_of_a_running_training_the_newest_checkpoint_is_used(tmp_path: Path) -> None:
    training = start_training(tmp_path, "--steps=100000", "--lr=1e-3", "--save-every=2", "--eval-every=0")
    try:
        wait_for(training, lambda: len(list_checkpoints(tmp_path / "brain")) > 1)
        told = json.loads(generated(tmp_path, "--json")[0])
        assert Path(told["weights"]).parent == tmp_path / "brain" / "checkpoints"
        assert told["text"]
        assert training.poll() is None
    finally:
        training.kill()
        training.communicate()
    assert json.loads(generated(tmp_path, "--json")[0])["weights"] == str(tmp_path / "brain")


def test_a_training_that_has_saved_nothing_yet_is_waited_for(tmp_path: Path) -> None:
    training = start_training(tmp_path, "--steps=100000", "--lr=1e-3", "--save-every=0", "--eval-every=0")
    try:
        wait_for_step(training, tmp_path / "brain", 1)
        sentence = refusal(generate_args(tmp_path))
    finally:
        training.kill()
        training.communicate()
    assert "holds no weights yet; wait for its first checkpoint (--save-every)." in sentence


def test_the_weights_can_be_chosen(folder: Path) -> None:
    newest, older = list_checkpoints(folder / "brain")
    for flags, place in ((["--checkpoint=newest"], newest), (["--checkpoint=published"], folder / "brain")):
        assert json.loads(generated(folder, "--json", *flags)[0])["weights"] == str(place)
    (newest / "model.safetensors").write_bytes(b"damaged")
    out, err = generated(folder, "--json", "--checkpoint=newest")
    assert json.loads(out)["weights"] == str(older)
    assert err.startswith(f"Skipped the damaged checkpoint {newest}: ")
    shutil.copytree(older, folder / "brain" / "best")
    assert json.loads(generated(folder, "--json", "--checkpoint=best")[0])["weights"] == str(folder / "brain" / "best")


def test_an_adapted_brain_answers_with_its_adapters(trained: Path, tmp_path: Path) -> None:
    student = f"--student-init={trained / 'brain'}"
    train(tmp_path, "--steps=20", "--eval-every=0", "--lr=1e-2", "--use-peft", student)
    text, before = (generated(folder)[0] for folder in (tmp_path, trained))
    assert text != before


def empty(folder: Path) -> None:
    shutil.rmtree(folder / "brain")
    (folder / "brain").mkdir()


def cut_weights(folder: Path) -> None:
    path = folder / "brain" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def plant(folder: Path) -> None:
    edit_json(folder / "brain" / "config.json", {"auto_map": AUTO_MAP})


def pickle_weights(folder: Path) -> None:
    (folder / "brain" / "model.safetensors").rename(folder / "brain" / "pytorch_model.bin")


REFUSED: dict[str, tuple[list[str], Callable[[Path], object] | None, str]] = {
    "no such brain": (["--brain-name=other"], None, "other; choose another --brain-name (brain) or --bundle-dir."),
    "no brains at all": (["--bundle-dir=/nowhere"], None, "or train it first with `aios hrm-hf train`."),
    "no plain name": (["--brain-name=a/b"], None, "it must be a plain name"),
    "no weights yet": ([], empty, "holds no weights yet; train it first"),
    "no best evaluation": (["--checkpoint=best"], None, "keeps no best evaluation (yet); leave --checkpoint out."),
    "damaged weights": ([], cut_weights, "model.safetensors cannot be read"),
    "code of its own": ([], plant, "asks for code of its own to be run (auto_map)"),
    "a pickle": ([], pickle_weights, "keeps its weights as a pickle"),
    "no prompt": (["--prompt="], None, "--prompt is empty; write the text"),
    "no tokens": (["--max-new-tokens=0"], None, "--max-new-tokens is 0, but it must be between 1 and 1000000."),
    "cold": (["--temperature=-1"], None, "--temperature is -1.0, but it must be 0 (the likeliest token) or between"),
    "no number": (["--temperature=nan"], None, "--temperature is nan, but it must be"),
    "negative k": (["--top-k=-1"], None, "--top-k is -1, but it must be at least 1, or 0 for all tokens."),
    "no probability": (["--top-p=0"], None, "--top-p is 0.0, but it must be above 0 and at most 1."),
    "negative seed": (["--seed=-1"], None, "--seed is -1, but it must be 0 or more."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_sentence(folder: Path, name: str) -> None:
    flags, damage, sentence = REFUSED[name]
    if damage is not None:
        damage(folder)
    assert sentence in refusal(generate_args(folder, *flags))


@pytest.mark.parametrize(
    ("content", "sentence"), [(b"\n", "standard input is empty"), (b"ab\xff", "UTF-8 text (byte 2)")]
)
def test_a_bad_prompt_on_standard_input_is_one_sentence(
    trained: Path, tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "prompt").write_bytes(content)
    done = run_aios(*generate_args(trained, prompt="-"), stdin=tmp_path / "prompt")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert sentence in done.stderr


def test_a_closed_standard_input_is_an_empty_one(trained: Path) -> None:
    command = shlex.join([sys.executable, "-m", "aios", *generate_args(trained, prompt="-")])
    done = subprocess.run(
        ["bash", "-c", f"{command} <&-"], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "standard input is empty" in done.stderr


def test_bad_input_is_refused_before_torch_is_there(tmp_path: Path) -> None:
    code = (
        "import sys; from aios.cli.app import main\n"
        "try: main()\nexcept SystemExit as end: assert end.code == 2, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    for flag in ("--top-p=7", "--brain-name=nobody"):
        # The asserts are the child's own; `check` has their failure here.
        subprocess.run([sys.executable, "-c", code, *generate_args(tmp_path, flag)], check=True, timeout=60)


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_help_fits_a_terminal_of_80_columns(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = run_aios("hrm-hf", command, "--help").stdout.splitlines()
    assert len(lines) > 20
    assert max(map(len, lines)) <= 80
