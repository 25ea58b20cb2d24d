"""The documentation: the site is built without a warning, and the README leads nowhere that is not there."""

from __future__ import annotations

import html
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = {
    "accelerate": "accelerator.backward(loss)",
    "lightning": "trainer = pl.Trainer(",
    "plain_torch": "auto.search(lambda i: loss_of(feed[i]))",
    "transformers": "AutoLRCallback.attach(trainer)\n    trainer.train()",
    "trl": "args = SFTConfig(",
}
"""A line of the script that each of them shows whole."""
NEEDED = ("material", "mkdocs", "mkdocstrings")


@pytest.mark.skipif(not all(map(importlib.util.find_spec, NEEDED)), reason="needs the extra [docs]")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    for page, line in TUTORIALS.items():
        tutorial = (tmp_path / "site" / "tutorials" / page / "index.html").read_text(encoding="utf-8")
        assert line in html.unescape(re.sub(r"<[^>]*>", "", tutorial))
    reference = (tmp_path / "site" / "api" / "auto_lr" / "index.html").read_text(encoding="utf-8")
    assert 'id="aios.auto_lr.AutoLR.report_eval"' in reference


def test_the_reference_has_every_public_name() -> None:
    import aios.auto_lr

    page = (ROOT / "docs" / "api" / "auto_lr.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: aios\.auto_lr\.(\w+)$", page, re.MULTILINE)) == sorted(aios.auto_lr.__all__)


def test_the_links_of_the_readme_are_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(targets) > 10
    assert not [target for target in targets if "://" not in target and not (ROOT / target).exists()]
