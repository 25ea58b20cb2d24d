"""The distribution as people install it: what works with which extras, away from the checkout."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from absent_packages import hide
from aios.settings.settings_file import parse_settings_file

ROOT = Path(__file__).parents[2]
OF_EXTRAS = ("transformers", "tokenizers", "safetensors", "yaml", "rich", "typer", "matplotlib")


def run_without(folder: Path, absent: tuple[str, ...], *command: str) -> subprocess.CompletedProcess[str]:
    """Python, as if these packages were not installed."""
    env = {**os.environ, "PYTHONPATH": hide(folder / "hidden", *absent)}
    call = [sys.executable, *command]
    return subprocess.run(call, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_the_controller_needs_torch_and_numpy_alone(tmp_path: Path) -> None:
    code = """
import torch
from aios.auto_lr import AutoLR
model = torch.nn.Linear(3, 1)
auto = AutoLR(model, torch.optim.AdamW(model.parameters()), steps=3)
while not auto.finished:
    loss = model(torch.ones(2, 3)).square().mean()
    loss.backward()
    auto.step(loss)
print(auto.step_count)
"""
    done = run_without(tmp_path, OF_EXTRAS, "-c", code)
    assert (done.stdout, done.stderr) == ("3\n", "")


@pytest.mark.parametrize(
    ("absent", "command", "extra"),
    [
        ("typer", "--version", "hrm"),
        ("rich", "hrm-hf watch {log}", "hrm"),
        ("matplotlib", "hrm-hf plot {log}", "plot"),
    ],
)
def test_a_command_names_the_extra_that_it_lacks(tmp_path: Path, absent: str, command: str, extra: str) -> None:
    log = tmp_path / "metrics.jsonl"
    records = ({"event": "run_start", "ts": 1.5, "step": 0}, {"event": "train", "ts": 2, "step": 1, "loss": 2.0})
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    done = run_without(tmp_path, (absent,), "-m", "aios", *command.format(log=log).split())
    sentence = f"this needs the package {absent}, which is not installed: pip install 'aios-autolr[{extra}]'"
    assert (done.returncode, done.stderr) == (2, f"Error: {sentence}\n")


def imported(file: Path) -> set[str]:
    """The packages that `file` imports, wherever in it; its own aside."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module is not None}
    return {name.partition(".")[0] for name in names} - {"aios"}


def plain(name: str) -> str:
    """The name of a distribution, without what may be written in several ways."""
    return re.split(r"[^\w.-]", name)[0].lower().replace("_", "-")


def test_every_package_that_is_imported_is_declared() -> None:
    project = parse_settings_file(ROOT / "pyproject.toml")["project"]
    needed = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    declared, distributions = set(map(plain, needed)), packages_distributions()
    for file in (ROOT / "src").rglob("*.py"):
        for name in imported(file) - sys.stdlib_module_names:
            assert declared & set(map(plain, distributions.get(name, [name]))), f"{file} imports {name}"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_wheel_trains_in_an_empty_environment(tmp_path: Path) -> None:
    """Built from the source archive, installed with the tested versions, run away from the checkout."""
    python = str(tmp_path / "venv" / "bin" / "python")
    home = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(*command: str) -> str:
        return subprocess.run(command, cwd=tmp_path, env=home, capture_output=True, text=True, check=True).stdout

    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    run(python, "-m", "pip", "install", "--quiet", "build")
    run(python, "-m", "build", "--outdir", str(tmp_path / "dist"), str(ROOT))
    (archive,), (wheel,) = (list((tmp_path / "dist").glob(f"*.{kind}")) for kind in ("tar.gz", "whl"))
    with tarfile.open(archive) as tar:
        held = {name.partition("/")[2] for name in tar.getnames()}
    assert {
        "README.md",
        "LICENSE",
        "constraints.txt",
        "scripts/test.sh",
        "docs/auto_lr.md",
        "tests/conftest.py",
    } <= held
    with zipfile.ZipFile(wheel) as file:
        assert {"aios/py.typed", "aios/data/corpus/kjv.txt"} <= set(file.namelist())
    run(python, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), f"{wheel}[hrm]")
    small = ("--hidden-size=32", "--num-heads=2", "--max-seq-len=32", "--batch-size=4", "--device=cpu")
    run(str(tmp_path / "venv/bin/aios"), "hrm-hf", "train", *small, "--steps=5", "--brain-name=b", "--bundle-dir=out")
    assert (tmp_path / "out" / "b" / "model.safetensors").is_file()
