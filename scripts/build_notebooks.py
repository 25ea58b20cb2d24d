"""Make docs/notebooks from docs/examples: `python scripts/build_notebooks.py`. The scripts are the source.

Imports are one cell, each class and function one, and what stands between them one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

DOCS = Path(__file__).resolve().parents[1] / "docs"
INSTALLS = {
    "transformers_trainer": "'aios-autolr[hf]'",
    "lightning_module": "'aios-autolr[lightning]' scikit-learn",
    "accelerate_loop": "'aios-autolr[hf]' scikit-learn",
    "plain_mnist": "aios-autolr scikit-learn",
}
"""What each script that becomes a notebook needs."""


def notebook(name: str) -> str:
    """The notebook of a script, as the text of its file."""
    source = (DOCS / "examples" / f"{name}.py").read_text(encoding="utf-8")
    origin = f"Made of [{name}.py](../examples/{name}.py). It needs `pip install {INSTALLS[name]}`."
    cells = [new_markdown_cell(f"# {ast.get_docstring(ast.parse(source))}\n\n{origin}")]
    cells += [new_code_cell(code) for code in _cells(source)]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # else random: each build would differ
    made = new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    nbformat.validate(made)
    return f"{nbformat.writes(made)}\n"


def _cells(source: str) -> Iterator[str]:
    """The script without its docstring, cut between its parts."""
    lines = source.splitlines()
    for _, nodes in groupby(ast.parse(source).body[1:], _part):
        part = list(nodes)
        yield "\n".join(lines[part[0].lineno - 1 : part[-1].end_lineno])


def _part(node: ast.stmt) -> object:
    """Equal for neighbours that share a cell."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return node
    return isinstance(node, (ast.Import, ast.ImportFrom))


def main() -> None:
    """Write all of them."""
    folder = DOCS / "notebooks"
    folder.mkdir(exist_ok=True)
    for name in INSTALLS:
        (folder / f"{name}.ipynb").write_text(notebook(name), encoding="utf-8")


if __name__ == "__main__":
    main()
