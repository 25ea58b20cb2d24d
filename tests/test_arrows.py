"""Which folder may import which: the arrows that must not be, read off the imports themselves."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "aios"
DOOR = SOURCE / "auto_lr" / "adaptive_lr.py"
FIXED = "aios.cli.hrm_hf.adaptive_lr"
ARCHITECTURE = Path(__file__).parents[1] / "docs" / "architecture.md"
COMMENTS = 66
"""The column of its picture of layers from which on it says what each holds."""
TORCH_IN_AUTO_LR = ("api.py", "loop")


def imports(file: Path) -> Iterator[str]:
    """Every module that `file` imports, wherever in it, for typing too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(*folders: str) -> list[tuple[str, str]]:
    """(file, imported module) of every import in these folders of the package."""
    files = [file for folder in folders for file in sorted((SOURCE / folder).rglob("*.py"))]
    return [(str(file.relative_to(SOURCE)), module) for file in files if file != DOOR for module in imports(file)]


def into(module: str, *targets: str) -> bool:
    return any(module == target or module.startswith(f"{target}.") for target in targets)


PARTS = {path.stem for path in SOURCE.iterdir() if not path.name.startswith(("__", "py.typed"))}
ALL = sorted(path.name for path in SOURCE.iterdir() if path.is_dir() and path.name not in ("cli", "__pycache__"))


def drawn() -> tuple[dict[str, int], set[tuple[str, str]]]:
    """(how deep each folder or module lies, the arrows within a layer), as docs/architecture.md draws them."""
    behind = ARCHITECTURE.read_text(encoding="utf-8").partition("none goes up.\n\n")[2]
    picture = "\n".join(line[:COMMENTS] for line in behind.partition("\n\n")[0].split("\n"))
    layers = enumerate(picture.split("-" * 60))
    level = {word: depth for depth, layer in layers for word in re.findall(r"\w+", layer) if word in PARTS}
    return level, set(re.findall(r"(\w+) ──► (\w+)", picture))


def test_every_import_goes_along_an_arrow_or_down() -> None:
    level, arrows_within = drawn()
    assert set(level) == PARTS
    wrong = []
    for file in (file for file in SOURCE.rglob("*.py") if file != DOOR):
        part = Path(file.relative_to(SOURCE).parts[0]).stem
        for module in (module for module in imports(file) if module.startswith("aios.")):
            other = module.split(".")[1]
            may = part == other or (part, other) in arrows_within or other not in level or part not in level
            if not may and level[other] <= level[part]:
                wrong.append((str(file.relative_to(SOURCE)), module))
    assert not wrong


def test_of_the_commands_only_gui_imports_the_window() -> None:
    assert {file for file, module in arrows("cli") if into(module, "aios.gui")} == {"cli/gui_command.py"}


def test_the_controller_knows_nothing_but_errors_and_the_door() -> None:
    ours = [(f, m) for f, m in arrows("auto_lr") if into(m, "aios") and not into(m, "aios.auto_lr", "aios.errors")]
    assert not [(f, m) for f, m in ours if m not in ("aios", "aios.errors")]
    torch = [(f, m) for f, m in arrows("auto_lr") if into(m, "torch", "numpy")]
    assert not [(f, m) for f, m in torch if Path(f).relative_to("auto_lr").parts[0] not in TORCH_IN_AUTO_LR]


def test_the_integrations_know_nothing_but_the_controller() -> None:
    ours = [(file, module) for file, module in arrows("integrations") if into(module, "aios")]
    allowed = ("aios.auto_lr", "aios.errors", "aios.extras", "aios.integrations")
    assert not [(file, module) for file, module in ours if module != "aios" and not into(module, *allowed)]
    others = [name for name in ALL if name != "integrations"]
    assert not [(file, module) for file, module in arrows(*others, "cli") if into(module, "aios.integrations")]


def test_the_fixed_scheduler_imports_nothing_of_ours() -> None:
    assert not [m for m in imports(SOURCE / "cli" / "hrm_hf" / "adaptive_lr.py") if into(m, "aios")]
    assert {m for m in imports(DOOR) if into(m, "aios.cli")} >= {FIXED}


@pytest.mark.parametrize("folder", ["settings", "run_view", "brains", "terminal", "replay"])
def test_torch_is_not_loaded_at_import(folder: str) -> None:
    modules = [f"aios.{folder}.{file.stem}" for file in sorted((SOURCE / folder).glob("*.py"))]
    code = f"import importlib, sys\nfor m in {modules}: importlib.import_module(m)\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
