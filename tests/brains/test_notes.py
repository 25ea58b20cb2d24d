"""The notes on a brain: kept, taken away, and nowhere else written."""

from __future__ import annotations

from pathlib import Path

import pytest

from aios.brains.notes import read_notes, write_notes
from aios.errors import UserError


def test_notes_come_and_go_and_a_link_in_their_place_is_not_followed(tmp_path: Path) -> None:
    document, brain = tmp_path / "document", tmp_path / "b"
    document.write_text("the only copy")
    brain.mkdir()
    for name in ("notes.txt", ".notes.txt.new"):
        (brain / name).symlink_to(document)
    assert read_notes(brain) == ""
    write_notes(brain, "  näher\nbetrachten\n")
    assert read_notes(brain) == "näher\nbetrachten"
    write_notes(brain, " ")
    assert list(brain.iterdir()) == []
    assert document.read_text() == "the only copy"
    with pytest.raises(UserError, match="shorten"):
        write_notes(brain, "x" * 20_000)
