"""Numbers without measure and files without end: one bounded sentence, exit code 2, at once, nothing written."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from many_commands import Done, run_many
from training_process import run_aios, train, train_args

LONGEST_SENTENCE = 500
HUGE = (10**6, 10**12, 10**18, 10**30, 2**53, 2**63, 2**64, "9" * 4000)
SOME = (HUGE[0], HUGE[-1])


def check_refused(done: Done) -> None:
    """One sentence of bounded length, or click's usage error, with exit code 2."""
    shown = [arg[:120] for arg in done.args[-3:]], done.stderr[-2000:]
    assert done.returncode == 2, shown
    assert "Traceback" not in done.stderr, shown
    if done.stderr.startswith("Error: "):
        assert done.stderr.count("\n") == 1, shown
        assert len(done.stderr) < LONGEST_SENTENCE, shown
    else:
        assert done.stderr.startswith("Usage: "), shown


def assert_all_refused(folder: Path, cases: Iterable[list[str]]) -> list[Done]:
    """Train in the empty `folder` with each of `cases`; all must be refused and leave it empty."""
    folder.mkdir()
    results = run_many([train_args(folder, *case) for case in cases])
    for done in results:
        check_refused(done)
    assert not list(folder.iterdir())
    return results


@pytest.mark.parametrize("values", [SOME, pytest.param(HUGE, marks=pytest.mark.slow)], ids=["some", "all"])
def test_sizes_without_measure(tmp_path: Path, values: tuple[int | str, ...]) -> None:
    """Each flag that memory or time depends on; the sentence names the flag."""
    memory = ["hidden-size", "h-layers", "l-layers", "batch-size", "max-seq-len", "halt-max-steps"]
    cases = [[f"--{name}={value}"] for name in memory for value in values]
    cases += [[f"--{name}={value}"] for name in ("h-cycles", "l-cycles") for value in values]
    cases += [[f"--gradient-accumulation-steps={value}"] for value in values[1:]]
    cases += [["--use-moe", f"--num-experts={value}"] for value in values]
    cases += [[f"--expansion={value}"] for value in (1e6, 1e308, "inf", "nan")]
    cases += [["--ddp", f"--world-size={value}"] for value in values]
    cases += [["--parallel-independent", f"--world-size={value}"] for value in values]
    for done in assert_all_refused(tmp_path / "out", cases):
        assert done.args[-1].partition("=")[0] in done.stderr


@pytest.mark.parametrize("values", [SOME[1:], pytest.param(HUGE[5:], marks=pytest.mark.slow)], ids=["some", "all"])
def test_numbers_without_measure(tmp_path: Path, values: tuple[int | str, ...]) -> None:
    counts = ["steps", "eval-every", "eval-batches", "save-every", "keep-checkpoints", "max-restarts", "merge-every"]
    counts += ["num-heads", "lora-rank", "lora-alpha", "num-experts", "num-experts-per-tok", "world-size"]
    cases = [[f"--{name}={value}"] for name in counts for value in (10**18, *values)]
    cases += [[f"--seed={value}"] for value in (2**63, 2**64, 10**30, "9" * 4000, -1, "1e3")]
    cases += [[f"--{name}=-1"] for name in counts] + [["--steps=" + "9" * 5000]]
    cases += [[f"--weight-decay={value}"] for value in (1e308, 20000, 1e5, "inf", "nan", -1)]
    cases += [["--lr=10", "--weight-decay=0.1"], ["--max-grad-norm=inf"], ["--max-grad-norm=0"], ["--lr=inf"]]
    cases += [[f"--lr={value}", "--weight-decay=0"] for value in (1e9, 1e308, 5e-324)]
    cases += [[f"--warmup-steps={value}"] for value in (10**6, 10**18, 10**30, -1)]
    cases += [[f"--anneal-fraction={value}"] for value in (1e308, -5e-324, "nan")]
    cases += [[f"--cuda-ids={value}"] for value in (10**30, "9" * 5000, "1,,2", "-1", "0x1", "²")]
    assert_all_refused(tmp_path / "out", cases)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--seed=9223372036854775808"], "--seed is 9223372036854775808, but it must be at most 2^63 - 1"),
        (["--steps=1000000000000000000"], "but it must be at most 2^53"),
        (["--weight-decay=1e308"], "times the learning rate of 5e-05 it must stay below 1"),
        (["--hidden-size=1000000"], "--hidden-size 1000000 needs about 384 TB for training, but this machine has "),
        (["--h-cycles=1000000"], "--h-cycles 1000000 runs 2e+06 blocks one after another in a step"),
        (["--gradient-accumulation-steps=1000000000"], "makes one step take"),
        (["--use-moe", "--num-experts=1000000"], "the largest that fits with the other settings is "),
    ],
)
def test_sentence_names_estimate_and_remedy(tmp_path: Path, args: list[str], sentence: str) -> None:
    [done] = assert_all_refused(tmp_path / "out", [args])
    assert sentence in done.stderr


def test_largest_that_fits_does_fit(tmp_path: Path) -> None:
    [done] = assert_all_refused(tmp_path / "out", [["--h-layers=1000000000"]])
    largest = int(done.stderr.split()[-1].rstrip("."))
    commands = [
        ["hrm-hf", "lr-find", *train_args(tmp_path)[2:], f"--h-layers={n}", "--output=/proc/x/y.png"]
        for n in (largest + 1, largest)
    ]
    beyond, at_it = run_many(commands)
    assert f"--h-layers {largest + 1} " in beyond.stderr
    assert "/proc" in at_it.stderr


def laughs() -> str:
    """350 bytes of YAML whose message would be as long as a library."""
    names = "abcdefghi"
    lines = ['a: &a ["lol", "lol", "lol"]']
    lines += [f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in itertools.pairwise(names)]
    return "\n".join(lines)


SETTINGS: dict[str, bytes] = {
    "laughs.yaml": laughs().encode(),
    "laughing-list.yaml": b"- &a [x, x]\n"
    + b"".join(b"- &%c [%s]\n" % (c + 1, b"*%c," % c * 9) for c in range(97, 110)),
    "value-laughs.yaml": b"lr: [[[[[[[[" + b"[1, 2, 3, 4, 5, 6, 7, 8, 9], " * 500 + b"]]]]]]]]",
    "self.yaml": b"&a [*a]",
    "merge.yaml": b"<<: {lr: 1}\n? [a, b]\n: 1\n",
    "tag.yaml": b"lr: !!int ''",
    "python.yaml": b"lr: !!python/object/apply:os.system ['true']",
    "bool-tag.yaml": b"lr: !!bool maybe",
    "twice.yaml": b"steps: 3\nsteps: 4\n",
    "twice.json": b'{"steps": 3, "steps": 4}',
    "twice.toml": b"steps = 3\nsteps = 4\n",
    "dashes.json": b'{"max-seq-len": 3, "max_seq_len": 4}',
    "digits.json": b'{"steps": ' + b"9" * 5000 + b"}",
    "digits.yaml": b"steps: " + b"9" * 5000,
    "digits.toml": b"steps = " + b"9" * 5000,
    "many-digits.json": b'{"seed": ' + b"9" * 4200 + b"}",
    "hex.toml": b"steps = 0x" + b"f" * 9000,
    "base60.yaml": b"lr: 1" + b":59" * 9000 + b".5",
    "base60-int.yaml": b"steps: 1" + b":59" * 9000,
    "float.json": b'{"lr": 1' + b"0" * 4000 + b"}",
    "huge-float.json": b'{"lr": 1e999999}',
    "deep.json": b"[" * 30000,
    "deep.yaml": b"[" * 30000,
    "deep-mapping.yaml": b"{a: " * 15000,
    "deep.toml": b"lr = " + b"[" * 30000,
    "dotted.toml": b"a." * 9000 + b"a = 1",
    "large.toml": b"# nothing\n" * 200_000,
    "long-key.toml": b"x" * 50_000 + b" = 1",
    "long-value.toml": b'preset = "' + b"x" * 50_000 + b'"',
    "long-line.json": b'{"steps": "' + b"x" * 50_000 + b'"}',
    "nul.json": b'{"dataset_file": "a\\u0000b"}',
    "surrogate.json": b'{"preset": "\\ud800"}',
    "newline.json": b'{"student_init": "no\\nsuch\\nfolder"}',
    "latin.yaml": b"lr: \xff",
    "control.yaml": b"lr: \x00\x01",
    "list.json": b"[" + b"1, " * 20_000 + b"1]",
    "scalar.yaml": b"just text " * 3000,
    "types.json": b'{"steps": [1, 2], "lr": {"a": 1}}',
    "bool.json": b'{"steps": true}',
    "huge.json": b'{"h_layers": 1000000000000}',
    "date.yaml": b"lr: 2001-99-99",
}


@pytest.mark.parametrize("flag", ["--config", pytest.param("--adaptive-lr-config", marks=pytest.mark.slow)])
def test_settings_files_without_measure(tmp_path: Path, flag: str) -> None:
    paths = [tmp_path / name for name in SETTINGS]
    for path in paths:
        path.write_bytes(SETTINGS[path.name])
    usable = {"huge.json", "nul.json", "newline.json"} if flag != "--config" else set()
    cases = [[f"{flag}={path}"] for path in paths if path.name not in usable]
    assert_all_refused(tmp_path / "out", cases)


DEEPSPEED: dict[str, bytes] = {
    **{name: SETTINGS[name] for name in ("twice.json", "deep.json", "large.toml", "list.json", "digits.json")},
    "batch.json": b'{"train_batch_size": ' + b"9" * 4200 + b"}",
    "long-batch.json": b'{"train_batch_size": [' + b"[1, 2]," * 5000 + b"1]}",
    "section.json": b'{"zero_optimization": [' + b"[1, 2]," * 5000 + b"1]}",
    "stage.json": b'{"zero_optimization": {"stage": "' + b"1" * 5000 + b'"}}',
    "scheduler.json": b'{"scheduler": {"type": ["' + b"x" * 5000 + b'"]}}',
    "optimizer.json": b'{"optimizer": {"type": "' + b"x" * 5000 + b'"}}',
    "parameter.json": b'{"optimizer": {"params": {"' + b"x" * 5000 + b'": 1}}}',
    "text-lr.json": b'{"optimizer": {"params": {"lr": "fast"}}}',
    "endless-lr.json": b'{"optimizer": {"params": {"lr": 1' + b"0" * 400 + b"}}}",
    "decay.json": b'{"optimizer": {"params": {"weight_decay": 1e308}}}',
    "text-decay.json": b'{"optimizer": {"params": {"weight_decay": []}}}',
    "betas.json": b'{"optimizer": {"params": {"betas": [0.9, 1e308]}}}',
    "eps.json": b'{"optimizer": {"params": {"eps": -1}}}',
    "offload.json": b'{"zero_optimization": {"offload_param": 3}}',
}


def test_deepspeed_files_without_measure(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    for name, content in DEEPSPEED.items():
        (tmp_path / name).write_bytes(content)
    cases = [[f"--deepspeed-config={tmp_path / name}", "--zero-stage=zero1", "--world-size=1"] for name in DEEPSPEED]
    assert_all_refused(tmp_path / "out", cases)


@pytest.mark.parametrize(("name", "key"), [("twice.yaml", "steps"), ("twice.json", "steps"), ("laughs.yaml", "*a")])
def test_doubled_keys_and_aliases_are_named(tmp_path: Path, name: str, key: str) -> None:
    path = tmp_path / name
    path.write_bytes(SETTINGS[name])
    [done] = assert_all_refused(tmp_path / "out", [[f"--config={path}"]])
    assert str(path) in done.stderr
    assert key in done.stderr


def no_files(folder: Path) -> dict[str, Path]:
    """What can stand where a file is meant, by name."""
    made: dict[str, Callable[[Path], object]] = {
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
        "loop": lambda path: path.symlink_to(path),
        "dangling": lambda path: path.symlink_to("nowhere"),
    }
    paths = {}
    for name, make in made.items():
        paths[name] = folder / f"{name}.json"
        make(paths[name])
    devices = {"zero": Path("/dev/zero"), "tty": Path("/dev/tty"), "null": Path("/dev/null")}
    return {**paths, **devices, "long": Path("/" + "x" * 5000 + ".json"), "memory": Path("/proc/self/mem")}


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe or device where a file belongs must not be waited for."""
    paths = no_files(tmp_path)
    cases = [[f"--{flag}={path}"] for flag in ("config", "dataset-file", "student-init") for path in paths.values()]
    cases += [[f"--{flag}={paths['pipe']}"] for flag in ("adaptive-lr-config", "eval-file")]
    cases += [["--zero-stage=zero1", f"--deepspeed-config={paths[name]}"] for name in ("pipe", "folder", "zero")]
    assert_all_refused(tmp_path / "out", cases)


def test_folders_with_what_is_no_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.mkfifo(data / "pipe.txt")
    (data / "loop.txt").symlink_to(data / "loop.txt")
    (data / "zero.txt").symlink_to("/dev/zero")
    (data / "again").symlink_to(data)
    brain = tmp_path / "brain"
    brain.mkdir()
    os.mkfifo(brain / "config.json")
    assert_all_refused(tmp_path / "out", [[f"--dataset-file={data}"], [f"--student-init={brain}"]])


FIELDS = ["hidden_size", "h_layers", "l_layers", "h_cycles", "halt_max_steps", "num_heads"]


@pytest.mark.parametrize("field", ["expansion", *(pytest.param(name, marks=pytest.mark.slow) for name in FIELDS)])
def test_brain_of_a_stranger_without_measure(tmp_path: Path, field: str) -> None:
    """The same estimate holds for sizes that come from another brain's config.json."""
    shape = '"hidden_size": 64, "h_layers": 1, "l_layers": 1, "h_cycles": 2, "l_cycles": 2, "num_heads": 2, '
    shape += '"expansion": 4.0, "halt_max_steps": 2, "use_moe": false'
    cases = []
    for number, value in enumerate(["1000000000", "1" + "0" * 30, "9" * 5000, '"x"', "-1", "1e400", "NaN", "[[1]]"]):
        brain = tmp_path / f"stranger{number}"
        brain.mkdir()
        before, _, after = shape.partition(f'"{field}": ')
        config = f'{{{before}"{field}": {value},{after.partition(",")[2]}}}'
        (brain / "config.json").write_text(config)
        cases.append([f"--student-init={brain}"])
    args = ["--preset=tiny", "--device=cpu"]
    (tmp_path / "out").mkdir()
    for done in run_many([["hrm-hf", "train", *args, f"--bundle-dir={tmp_path}/out", *case] for case in cases]):
        check_refused(done)
    assert not list((tmp_path / "out").iterdir())


LINES = [b'{"text": ' + b"[" * 100_000, b'{"text": ' + b"9" * 5000 + b"}", b'{"text": "' + b"x" * (33 << 20) + b'"}']


@pytest.mark.parametrize("line", LINES, ids=["deep", "digits", "long"])
@pytest.mark.slow
def test_lines_without_measure(tmp_path: Path, line: bytes) -> None:
    data = tmp_path / "data.jsonl"
    data.write_bytes(b'{"text": "some words"}\n' + line + b"\n")
    done = run_aios(*train_args(tmp_path / "out", f"--dataset-file={data}"))
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr.startswith("Error: Line 2 of the dataset file")
    assert len(done.stderr) < LONGEST_SENTENCE


@pytest.mark.slow
def test_brain_whose_weights_are_not_finite_ends_as_any_other(tmp_path: Path) -> None:
    """What the summary lets such a model say is no reason to fail."""
    from safetensors.torch import load_file, save_file

    train(tmp_path / "first", "--steps=1")
    weights = tmp_path / "first" / "brain" / "model.safetensors"
    tensors = load_file(weights)
    tensors["lm_head.weight"][0] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    flags = ("--steps=2", "--warmup-steps=0", "--no-auto-adjust-lr", f"--student-init={weights.parent}")
    done = train(tmp_path / "second", *flags)
    assert "nan nats per token" in done.stdout
