"""The notebooks are their scripts: the same code in cells, which runs from top to bottom."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from build_notebooks import DOCS, INSTALLS, notebook


def code_cells(name: str) -> list[str]:
    """The code of the notebook as it lies in the folder."""
    held = nbformat.read(DOCS / "notebooks" / f"{name}.ipynb", as_version=4)
    return [cell["source"] for cell in held.cells if cell["cell_type"] == "code"]


def test_there_is_one_for_each_integration() -> None:
    assert {path.stem for path in (DOCS / "notebooks").iterdir()} == set(INSTALLS)


@pytest.mark.parametrize("name", INSTALLS)
def test_a_notebook_is_made_of_its_script(name: str) -> None:
    held = (DOCS / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    assert held == notebook(name), "run python scripts/build_notebooks.py"
    script = ast.parse((DOCS / "examples" / f"{name}.py").read_text(encoding="utf-8"))
    script.body = script.body[1:]  # the docstring is the title
    cells = code_cells(name)
    assert ast.dump(ast.parse("\n".join(cells))) == ast.dump(script)
    assert len(cells) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTALLS)
def test_its_cells_run(name: str, tmp_path: Path) -> None:
    """In a process of their own: frameworks keep state in theirs."""
    code = f"from test_notebooks import run_cells; run_cells({name!r})"
    paths = [str(Path(__file__).parent), str(DOCS.parent / "scripts"), str(DOCS.parent / "src")]
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=surroundings, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr


def run_cells(name: str) -> None:
    """One cell after another, in one namespace, as a notebook does."""
    names: dict[str, object] = {"__name__": "__main__"}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for number, cell in enumerate(code_cells(name)):
            exec(compile(cell, f"{name}[{number}]", "exec"), names)
    default, ours = re.findall(r"default ([\d.]+), AutoLR ([\d.]+)", said.getvalue())[0]
    assert float(ours) < float(default)
