"""Where the cases are run: work folders, environment, and the undisturbed runs that all are compared with."""

from __future__ import annotations

import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from faults.brains import Print, fingerprint, train_args
from faults.processes import Done, Fork, Real, build_shim, fork_aios, start_server

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Bench:
    """A work folder with everything the cases share; what is made once stays for the next start of the campaign."""

    work: Path
    """Holds `shared` and a folder for each case in progress."""
    _locks: dict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))
    _serving: bool = False
    _prints: dict[str, Print] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shared.mkdir(parents=True, exist_ok=True)
        # The fork server inherits it, and every process started here.
        os.environ.update(self.env)

    @property
    def shared(self) -> Path:
        """Folder of what all cases use."""
        return self.work / "shared"

    @property
    def env(self) -> dict[str, str]:
        """Environment of every process under test."""
        paths = [str(ROOT / "src"), str(ROOT / "scripts")]
        own = {
            "PYTHONPATH": os.pathsep.join(paths),
            "AIOS_CACHE_DIR": str(self.shared / "cache"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        return {**os.environ, **own}

    def folder(self, name: str) -> Path:
        """A new, empty folder for the case `name`."""
        path = self._case(name)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def clear(self, name: str) -> None:
        """Remove the folder of a case that is done."""
        shutil.rmtree(self._case(name), ignore_errors=True)

    def _case(self, name: str) -> Path:
        return self.work / "cases" / "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:120]

    def real(self, args: Sequence[str], folder: Path) -> Real:
        """Start a real `aios ARGS`."""
        return Real(args, folder, self.env)

    def fork(
        self, args: Sequence[str], folder: Path, prepare: Callable[[], None] | None = None, held: bool = False
    ) -> Fork:
        """Start a forked `aios ARGS`."""
        with self._locks["server"]:
            if not self._serving:
                library = self.shared / "shim.so"
                build_shim(library)
                start_server(library)
                self._serving = True
        return fork_aios(args, folder, self.env, prepare, held)

    def run(self, args: Sequence[str], folder: Path) -> Done:
        """A forked `aios ARGS`, waited for."""
        return self.fork(args, folder).wait()

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """The shared folder `name`, made by `make` the first time: complete or not there."""
        path = self.shared / name
        with self._locks[name]:
            if not path.exists():
                new = path.with_name(f".{name}.new")
                shutil.rmtree(new, ignore_errors=True)
                new.mkdir(parents=True)
                make(new)
                new.rename(path)
        return path

    def trained(self, name: str, *flags: str, real: bool = False) -> Path:
        """The shared folder whose `brain` an undisturbed run with `flags` made; `real`: as real processes."""

        def make(folder: Path) -> None:
            args = train_args(folder, *flags)
            done = self.real(args, folder).wait() if real else self.run(args, folder)
            if done.code != 0:
                raise RuntimeError(f"the undisturbed run {name} failed: {done.end}")

        return self.made(name, make)

    def print_of(self, folder: Path) -> Print:
        """The fingerprint of the brain in a shared folder, read once."""
        with self._locks[f"print {folder.name}"]:
            if folder.name not in self._prints:
                self._prints[folder.name] = fingerprint(folder / "brain")
            return self._prints[folder.name]
