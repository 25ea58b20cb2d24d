"""The table of bad inputs: command lines, and the files that they name. `{folder}` and `{files}` are filled in."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

_WHOLE = (
    *("steps", "batch-size", "gradient-accumulation-steps", "seed", "max-seq-len", "eval-every", "eval-batches"),
    *("warmup-steps", "hidden-size", "h-layers", "l-layers", "h-cycles", "l-cycles", "num-heads", "halt-max-steps"),
    *("num-experts", "num-experts-per-tok", "lora-rank", "lora-alpha", "world-size", "merge-every", "max-restarts"),
    *("save-every", "keep-checkpoints"),
)
_REAL = ("lr", "weight-decay", "max-grad-norm", "expansion", "anneal-fraction")
_CHOICES = ("preset", "device", "model-dtype", "zero-stage", "adaptive-lr-profile", "cuda-ids")
_FILES = ("dataset-file", "eval-file", "adaptive-lr-config", "config", "deepspeed-config", "model", "student-init")
_CONTENTS = (
    *("missing", "folder", "empty.txt", "noise.txt", "nul.txt", "short.txt", "broken.jsonl", "textless.jsonl"),
    *("deep.json", "deep.yaml", "aliases.yaml", "twice.json", "twice.yaml", "noise.toml", "list.yaml", "inf.toml"),
    *("unknown.toml", "loop", "dangling", "brain", "profile.txt"),
)
_NAMES = (
    *(
        "..",
        ".",
        "",
        "/",
        "a/b",
        "../outside/x",
        "{folder}/outside/x",
        "a\nb",
        "a\tb",
        "x" * 300,
        "-x",
        " ",
        "con\\aux",
    ),
    *("\udcff", "\u202e", "name.", "~", "$HOME", "metrics.jsonl"),
)
_PLACES = (
    *("bundle-dir={files}/profile.txt", "bundle-dir={files}/loop", "bundle-dir=/proc", "bundle-dir=/dev/null/x"),
    *("log-file={folder}/outside/document.txt", "log-file={files}/folder", "log-file=/dev/full", "log-file=/proc/x"),
    *("log-file={files}/short.txt", "stop-file={folder}/outside/document.txt", "stop-file={files}/folder"),
    *("tensorboard={files}/short.txt", "tensorboard=/proc/x", "log-file=", "stop-file=", "bundle-dir="),
)
_LOGS = (
    *("missing", "folder", "empty.txt", "noise.txt", "nul.txt", "broken.jsonl", "textless.jsonl", "deep.json", "loop"),
    *("dangling", "strange.jsonl", "numbers.jsonl", "brain"),
)


def _commands() -> list[tuple[str, ...]]:
    train = ("hrm-hf", "train")
    found: list[tuple[str, ...]] = []
    whole = ("-1", "0", "1e3", "nan", "9999999999999", "1" + "0" * 40, "", "ten", "0x10")
    real = ("-1", "0", "nan", "inf", "1e308", "1e-320", "", "one")
    found += [(*train, f"--{flag}={value}") for flag in _WHOLE for value in whole]
    found += [(*train, f"--{flag}={value}") for flag in _REAL for value in real]
    found += [(*train, f"--{flag}={value}") for flag in _CHOICES for value in ("", "none at all", "-1", "auto,auto")]
    found += [(*train, f"--{flag}={{files}}/{name}") for flag in _FILES for name in _CONTENTS]
    found += [(*train, f"--brain-name={name}") for name in _NAMES]
    found += [(*train, f"--{place}") for place in _PLACES]
    found += [("hrm-hf", name, f"{{files}}/{log}") for name in ("lr-log", "replay") for log in _LOGS]
    found += [("hrm-hf", "plot", f"{{files}}/{log}", "-o", "{folder}/out/run.png") for log in _LOGS]
    found += [("hrm-hf", "watch", f"{{files}}/{log}") for log in ("noise.txt", "deep.json")]
    found += [("hrm-hf", "plot", "{files}/brain", "-o", place) for place in ("{files}", "/proc/x.png", "x", "x.exe")]
    sets = ("lr_max=nan", "patience=-1", "profile=none", "x", "=", "lr_max=", "window_size=1e30", "lr_max=1=2")
    found += [("hrm-hf", "replay", "{files}/brain", "--set", value) for value in sets]
    found += [("hrm-hf", "replay", "{files}/brain", *more) for more in (("--rank", "-1"), ("--rank", "99"))]
    found += [("hrm-hf", "lr-find", f"--{more}") for more in ("steps=0", "lr=nan", "ddp", "output={files}/folder")]
    found += [("hrm-hf", "train-actv1", "--resume"), (*train, "--resume", "--brain-name=none"), (*train, "--no-such")]
    found += [
        ("gui", "--help"),
        ("gui", "--no-such"),
        (),
        ("no-such",),
        ("hrm-hf",),
        ("--version",),
        ("hrm-hf", "plot"),
    ]
    found += [(*train, "--use-peft"), (*train, "--ddp"), (*train, "--world-size=3"), (*train, "surplus")]
    found += [(*train, "--student-init={files}/brain", "--hidden-size=64"), (*train, "--max-seq-len=2")]
    return found


COMMANDS = _commands()


def make_files(folder: Path, rng: random.Random) -> None:
    """The files that the commands name, in `folder`."""
    (folder / "folder").mkdir()
    os.symlink("loop", folder / "loop")
    os.symlink("nowhere", folder / "dangling")
    deep = "[" * 20_000
    aliases = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    aliases += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    texts = {
        "empty.txt": "",
        "short.txt": "a",
        "profile.txt": "alias ls=ls\nexport A=b",
        "broken.jsonl": '{"text": "good"}\n{"text": "bad\n',
        "textless.jsonl": '{"words": 1}\n' * 3,
        "deep.json": deep,
        "deep.yaml": deep[:2000],
        "aliases.yaml": "\n".join([*aliases, "lr: *a8", ""]),
        "twice.json": '{"lr": 1e-3, "lr": 1e-2, "lr_max": 1, "lr_max": 2}',
        "twice.yaml": "lr: 1e-3\nlr: 1e-2\nlr_max: 1\nlr_max: 2\n",
        "list.yaml": "- 1\n- 2\n",
        "inf.toml": "lr = inf\nlr_max = nan\n",
        "unknown.toml": "learning_rat = 1e-3\n",
        "strange.jsonl": "\n".join(map(json.dumps, ({"event": 3}, {"event": "train", "step": "x"}, {"step": 1})))
        + "\n",
        "numbers.jsonl": _numbers(),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "noise.txt").write_bytes(rng.randbytes(3000))
    (folder / "noise.toml").write_bytes(rng.randbytes(300))
    (folder / "nul.txt").write_bytes(b"a\0b" * 500)


def _numbers() -> str:
    """A log whose numbers are such as no run writes."""
    lines = ['{"event": "run_start", "ts": 1, "step": 0, "config": {"steps": -1, "lr": [1]}}']
    lines += [
        f'{{"event": "train", "ts": 1, "step": {n}, "loss": 1e999, "ce": -1e308, "lr": 0}}' for n in (1, 2, 10**30)
    ]
    lines += ['{"event": "train", "ts": null, "step": 3, "loss": "x", "ce": null, "lr": []}']
    return "\n".join(lines) + "\n"
