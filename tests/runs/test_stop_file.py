"""A request to stop that is being written while it is read."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from aios.runs.stop_file import Request, StopFile


def test_a_request_that_is_empty_while_it_is_written_is_what_it_becomes(tmp_path: Path) -> None:
    path = tmp_path / "STOP"
    path.touch()

    def write() -> None:
        time.sleep(0.02)
        path.write_text("FINISH\n")

    writer = threading.Thread(target=write)
    writer.start()
    assert StopFile(path, ours=True).asked() is Request.FINISH
    writer.join()


def test_a_request_that_stays_empty_stops(tmp_path: Path) -> None:
    path = tmp_path / "STOP"
    assert StopFile(path, ours=True).asked() is None
    path.touch()
    assert StopFile(path, ours=True).asked() is Request.STOP
