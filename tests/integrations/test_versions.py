"""What is said of a framework that is missing or of another version."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from aios.integrations import versions


@pytest.mark.parametrize("framework", sorted(versions.TESTED))
def test_the_installed_version_is_a_tested_one(framework: str) -> None:
    assert versions.untested(framework, metadata.version(framework)) is None


@pytest.mark.parametrize("version", ["4.57.1", "5.22.9", "5.25.0", "6.0.0rc1"])
def test_another_version_is_one_sentence_with_the_range(version: str) -> None:
    said = versions.untested("transformers", version)
    assert said == (
        f"transformers {version} has not been tried with AutoLR; tested are versions from 5.23 on, below 5.25"
    )


def test_it_is_said_once_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions.metadata, "version", lambda name: "99.0")
    with pytest.warns(UserWarning, match=r"lightning 99\.0 has not been tried") as said:
        versions.require("lightning")
    assert len(said) == 1


_WITHOUT = """
import importlib, importlib.metadata
def version(name):
    raise importlib.metadata.PackageNotFoundError(name)
importlib.metadata.version = version
for framework in ("accelerate", "lightning", "transformers"):
    try:
        importlib.import_module(f"aios.integrations.{framework}")
    except ModuleNotFoundError as error:
        print(error)
"""


def test_a_missing_framework_is_named_at_import() -> None:
    run = subprocess.run([sys.executable, "-c", _WITHOUT], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.splitlines() == [
        f"this part of aios.integrations needs {framework}: pip install 'aios-autolr[{extra}]'"
        for framework, extra in (("accelerate", "hf"), ("lightning", "lightning"), ("transformers", "hf"))
    ]
