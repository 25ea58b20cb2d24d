"""Code that the documentation shows, for tests to run."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def first_example(page: str, section: str) -> str:
    """The first block of Python in a section of a page of `docs`."""
    text = (DOCS / page).read_text(encoding="utf-8").split(f"## {section}", 1)[1]
    match = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert match is not None
    return match[1]
