"""One lock per brain: whoever trains it holds it, and the kernel lets go of it when the holder dies.

It is a POSIX record lock (`fcntl.lockf`) on `.lock` in the brain's folder: unlike `flock` it also works over NFS, and
no child process inherits it. The price: its holder must not open the file a second time, for closing any descriptor of
it lets go. The text in the file only names the holder.

A folder that is deleted or moved while its brain is trained takes the lock with it: before each save its holder looks
after it (`renew`).

A launcher locks the first of two bytes, the worker that writes the second, a lone process both: so a brain stays closed
while the workers of a killed launcher still save.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import socket
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from aios.errors import UserError
from aios.runs.writable import check_writable

LOCK_FILE = ".lock"
RUN, WRITER = 0, 1
"""The two bytes: the run as a whole, and the process that writes for it."""
_FIRST_BYTE = 1 << 30
"""Behind any text."""
_TRIES, _PAUSE = 5, 0.05
"""How often, and after how many seconds, a lock that is held is tried again: a window that looks holds it briefly."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_NO_LINKS = os.O_NOFOLLOW
"""A link in its place, in a stranger's brain say, would have another file written."""
_COMMAND_LENGTH = 200


@dataclass(frozen=True)
class Holder:
    """Who trains a brain, as it said of itself."""

    pid: int
    """Process id on `host`."""
    host: str
    """The machine's name."""
    since: float
    """Unix seconds."""
    command: str
    """The command line, cut between two words where it is long."""

    @classmethod
    def this_process(cls) -> Holder:
        """What this process says of itself."""
        command = shlex.join(["aios", *sys.argv[1:]])
        command = textwrap.shorten(command, _COMMAND_LENGTH, placeholder=" ...", break_on_hyphens=False)
        return cls(os.getpid(), socket.gethostname(), time.time(), command)

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host} since {since} ({self.command})"


class BrainLock:
    """The lock of the brain in a folder, held while the context is entered.

    `parts` says which of RUN and WRITER to hold (none: nothing is done at all); a launcher gives up the second with
    `leave_writing`. At the end the file is taken away, and so is a folder that had to be made for it and stayed empty.
    """

    def __init__(self, brain_dir: Path, parts: tuple[int, ...] = (RUN, WRITER)) -> None:
        self._folder, self._parts = brain_dir, parts
        self._file: int | None = None
        self._made: list[Path] = []
        self.remark: str | None = None
        """Why the lock could not be had although nobody holds it, in a sentence; None: it is held."""

    def __enter__(self) -> BrainLock:
        """Take the lock.

        Raises:
            UserError: when another process holds it (the message names it), or nothing can be written in the folder.
        """
        if not self._parts:
            return self
        check_writable(self._folder, "--bundle-dir")
        try:
            self._make_folder()
            self._file = self._take()
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise UserError(
                    f"{self._folder / LOCK_FILE} cannot be locked ({error.strerror}); take it away, or choose another "
                    "--bundle-dir."
                ) from error
            self.remark = (
                f"The file system of {self._folder} has no locks ({error.strerror}): nothing prevents that another run "
                "trains the same brain meanwhile."
            )
        if RUN in self._parts and self._file is not None:
            self._sign(self._file)
        return self

    def leave_writing(self) -> None:
        """Give up WRITER, for the worker that this process is about to start."""
        if self._file is not None:
            _unlock(self._file, WRITER)

    def renew(self) -> None:
        """Take the lock anew where its file is no more in the folder, which was deleted or moved.

        With both parts: what a launcher holds has gone with the file, too.

        Raises:
            UserError: when another process holds it by now (the message names it).
            OSError: when there can be no such file.
        """
        if self._file is None or self._is_current(self._file):
            return
        self._parts = (RUN, WRITER)
        self._make_folder()
        new = self._take()
        os.close(self._file)
        self._file = new
        self._sign(new)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # a folder that cannot be tidied any more is no reason to fail a run that has ended
            self._tidy()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _make_folder(self) -> None:
        missing = [path for path in (self._folder, *self._folder.parents) if not path.exists()]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._made = missing

    def _take(self) -> int:
        for _ in range(_TRIES):
            file = os.open(self._folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | _NO_LINKS, 0o666)
            try:
                taken = all(_lock(file, part) for part in self._parts) and self._is_current(file)
            except OSError:
                os.close(file)
                raise
            if taken:
                return file
            os.close(file)  # and with it goes what was locked of it
            time.sleep(_PAUSE)
        raise UserError(refusal(self._folder))

    def _is_current(self, file: int) -> bool:
        """Whether a locked file still is the one in the folder: who ends, or deletes the folder, takes it away."""
        try:
            return os.path.samestat(os.fstat(file), os.stat(self._folder / LOCK_FILE))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _sign(self, file: int) -> None:
        with suppress(OSError):  # a full disk: the lock holds without a name
            os.ftruncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)
            os.write(file, json.dumps(asdict(Holder.this_process())).encode())

    def _tidy(self) -> None:
        """Take the lock's file away, whose next holder makes a new one, and with it a folder made in vain."""
        if RUN not in self._parts or self._file is None or not _lock(self._file, WRITER):
            return
        if not self._is_current(self._file):
            return
        (self._folder / LOCK_FILE).unlink()
        for path in self._made:
            if os.listdir(path):
                break
            path.rmdir()


def holder_of(brain_dir: Path) -> Holder | None:
    """Who trains the brain in a folder, None when nobody does; not for the process that holds the lock itself.

    A holder that left no name, because the disk was full say, is process 0.
    """
    with _opened(brain_dir) as file:
        if file is None or (_lock(file, RUN, shared=True) and _lock(file, WRITER, shared=True)):
            return None
        return _read_holder(file)


def refusal(brain_dir: Path) -> str:
    """Why the brain cannot be trained now, in a sentence that names who trains it."""
    with _opened(brain_dir) as file:
        holder = _read_holder(file) if file is not None else _UNKNOWN
        ending = file is not None and _lock(file, RUN, shared=True)
    who = str(holder) if holder.pid else "another process"
    if ending:
        return f"Workers of {who}, which has ended, still save {brain_dir}; try again in a moment."
    return f"{brain_dir} is being trained by {who}; wait for its end or stop it, or train under another --brain-name."


_UNKNOWN = Holder(0, "", 0.0, "")


@contextmanager
def _opened(brain_dir: Path) -> Iterator[int | None]:
    """The lock file, open to be looked at; None where there is none that could be locked."""
    try:
        file = os.open(brain_dir / LOCK_FILE, os.O_RDONLY | _NO_LINKS)
    except OSError:
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)


def _read_holder(file: int) -> Holder:
    try:
        said = json.loads(os.read(file, 4096))
        return Holder(int(said["pid"]), str(said["host"]), float(said["since"]), str(said["command"]))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return _UNKNOWN


def _lock(file: int, part: int, shared: bool = False) -> bool:
    """Lock one byte; False when another process has it.

    Raises:
        OSError: where there are no locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.lockf(file, kind | fcntl.LOCK_NB, 1, _FIRST_BYTE + part)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system likes
        return False
    return True


def _unlock(file: int, part: int) -> None:
    fcntl.lockf(file, fcntl.LOCK_UN, 1, _FIRST_BYTE + part)
