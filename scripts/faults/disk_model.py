"""What a disk may hold after the power was cut: from a trace of system calls to the states that may be left.

The model of durability, after ALICE (Pillai et al., OSDI 2014), with the orders that journaling file systems keep:

- The bytes of a file are durable when the file was fsynced after they were written. Of what was written since then a
  prefix is there, the last write perhaps in part; each file for itself, so that a late one may be whole and an early
  one empty. Cutting a file on opening it (O_TRUNC) is such a write, too.
- Names (create, rename, unlink, mkdir) are durable when their folder was fsynced after them. Of those since then a
  prefix is there, each folder for itself: a new name may stand without the bytes of its file, and the other way round.
- Syncing a file does not make its name durable. A rename is there wholly or not at all.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

NONE, ALL, SOME = "none", "all", "some"
TRACED = (
    *("openat", "write", "writev", "pwrite64", "sendfile", "copy_file_range", "ftruncate", "lseek", "close", "fsync"),
    *("fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "link"),
)
_CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)(?:<(.*?)>)?(?: .*)?$", re.DOTALL)
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"^(\d+)<(.*?)>")
_AT = re.compile(r'(?:AT_FDCWD|\d+)<(.*?)>, "((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Op:
    """A change of the disk, or a sync that makes earlier ones durable."""

    what: str
    """data, size, link (a new file), mkdir, unlink, rename, exchange, sync (of the file or folder `node`)."""
    node: int
    """The file that is changed or synced; of names: the folder."""
    name: str = ""
    offset: int = 0
    data: bytes = b""
    target: int = 0
    """What is linked; of a rename: the folder it goes to."""
    new_name: str = ""


@dataclass
class Disk:
    """Folders and files by number, as they were at the beginning; 0 is the root."""

    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    files: dict[int, bytes] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Disk:
        """Everything below `root`."""
        disk = cls()
        for path in sorted(root.rglob("*")):
            parent = disk.find(path.parent.relative_to(root).parts)
            if parent is None:
                continue
            number = disk.free()
            disk.folders[parent][path.name] = number
            if path.is_dir():
                disk.folders[number] = {}
            else:
                disk.files[number] = path.read_bytes()
        return disk

    def free(self) -> int:
        """A number that nothing has."""
        return max((*self.folders, *self.files)) + 1

    def find(self, parts: tuple[str, ...]) -> int | None:
        """What the path from the root leads to."""
        at = 0
        for part in parts:
            there = self.folders.get(at, {}).get(part)
            if there is None:
                return None
            at = there
        return at

    def write(self, root: Path, at: int = 0) -> None:
        """Make it real below `root`."""
        root.mkdir(parents=True, exist_ok=True)
        for name, number in self.folders[at].items():
            if number in self.folders:
                self.write(root / name, number)
            else:
                (root / name).write_bytes(self.files.get(number, b""))

    def copy(self) -> Disk:
        """Independent of this one."""
        return Disk({number: dict(names) for number, names in self.folders.items()}, dict(self.files))


class Replay:
    """Reads a trace call by call (`strace -f -y -xx`) and says what each did to the disk below `root`."""

    def __init__(self, root: Path, start: Disk) -> None:
        self.root = root
        self.live = start.copy()
        self.ops: list[Op] = []
        self._offsets: dict[int, int] = {}
        self._appending: set[int] = set()

    def take(self, line: str) -> None:
        """One line of the trace; what failed or lies elsewhere changes nothing."""
        match = _CALL.match(line)
        if match is None or int(match[3]) < 0:
            return
        name, args, result, path = match[1], match[2], int(match[3]), match[4]
        if name == "openat":
            self._open(args, result, _unhex(path or ""))
        elif name in ("write", "writev", "pwrite64", "sendfile", "copy_file_range"):
            self._write(name, args, result)
        elif name in ("lseek", "ftruncate", "fsync", "fdatasync"):
            self._on_descriptor(name, args, result)
        elif name not in ("close",):
            self._rename_or_remove(name, args)

    def _open(self, args: str, descriptor: int, path: str) -> None:
        self._offsets[descriptor] = 0
        self._appending.discard(descriptor)
        parts = self._parts(path)
        if parts is None or "O_TMPFILE" in args:
            return
        if "O_APPEND" in args:
            self._appending.add(descriptor)
        node = self.live.find(parts)
        if node is None and "O_CREAT" in args:
            node = self.live.free()
            self.live.files[node] = b""
            self._link(parts, node)
        elif node is not None and "O_TRUNC" in args and self.live.files.get(node):
            self._apply(Op("size", node, offset=0))

    def _write(self, call: str, args: str, count: int) -> None:
        descriptor, node = self._node(args)
        if node is None or node not in self.live.files:
            return
        if call == "sendfile":
            data = self._sent(args, count)
        else:
            data = b"".join(_bytes(text) for text in _STRING.findall(args))[:count]
        if len(data) != count:
            raise ValueError(f"the trace holds {len(data)} of {count} bytes: {args[:100]}")
        at = int(args.rpartition(", ")[2]) if call == "pwrite64" else self._offsets.get(descriptor, 0)
        if descriptor in self._appending:
            at = len(self.live.files[node])
        self._apply(Op("data", node, offset=at, data=data))
        if call != "pwrite64":
            self._offsets[descriptor] = at + count

    def _sent(self, args: str, count: int) -> bytes:
        source = args.partition(", ")[2]
        descriptor, node = self._node(source)
        offset = re.search(r"\[(\d+)\]", source)
        at = int(offset[1]) if offset is not None else self._offsets.get(descriptor, 0)
        return self.live.files.get(node if node is not None else -1, b"")[at : at + count]

    def _on_descriptor(self, call: str, args: str, result: int) -> None:
        descriptor, node = self._node(args)
        if call == "lseek":
            self._offsets[descriptor] = result
        elif node is not None and call == "ftruncate":
            self._apply(Op("size", node, offset=int(args.rpartition(", ")[2])))
        elif node is not None:
            self.ops.append(Op("sync", node))

    def _rename_or_remove(self, call: str, args: str) -> None:
        named = [self._place(_unhex(folder), _unhex(name)) for folder, name in _AT.findall(args)]
        if not named:  # calls without a folder's descriptor name whole paths
            named = [self._place(_unhex(text)) for text in _STRING.findall(args)]
        places = [place for place in named if place is not None]
        if not places or len(places) < len(named):
            return
        folder, name = places[0]
        if call.startswith("mkdir"):
            node = self.live.free()
            self.live.folders[node] = {}
            self._apply(Op("mkdir", folder, name, target=node))
        elif call.startswith(("unlink", "rmdir")):
            self._apply(Op("unlink", folder, name))
        elif call.startswith("rename"):
            what = "exchange" if "RENAME_EXCHANGE" in args else "rename"
            target, new_name = places[1]
            self._apply(Op(what, folder, name, target=target, new_name=new_name))

    def _place(self, *path: str) -> tuple[int, str] | None:
        """(folder, name in it) of a path below the root whose folder is there."""
        parts = self._parts(*path)
        folder = self.live.find(parts[:-1]) if parts else None
        return (folder, parts[-1]) if parts and folder is not None else None

    def _link(self, parts: tuple[str, ...], node: int) -> None:
        folder = self.live.find(parts[:-1])
        if folder is not None:
            self._apply(Op("link", folder, parts[-1], target=node))

    def _apply(self, op: Op) -> None:
        self.ops.append(op)
        apply(self.live, op)

    def _node(self, args: str) -> tuple[int, int | None]:
        match = _DESCRIPTOR.match(args)
        if match is None:
            return -1, None
        parts = self._parts(_unhex(match[2]))
        return int(match[1]), self.live.find(parts) if parts is not None else None

    def _parts(self, *path: str) -> tuple[str, ...] | None:
        whole = Path(*path)
        return whole.relative_to(self.root).parts if whole.is_relative_to(self.root) else None


def apply(disk: Disk, op: Op, kept: int | None = None) -> None:
    """Do to the disk what `op` says; of data only the first `kept` bytes. What has lost its ground is left out."""
    if op.what == "data":
        data, there = op.data[:kept], disk.files.get(op.node, b"")
        there = there.ljust(op.offset, b"\0")
        disk.files[op.node] = there[: op.offset] + data + there[op.offset + len(data) :]
    elif op.what == "size":
        disk.files[op.node] = disk.files.get(op.node, b"")[: op.offset].ljust(op.offset, b"\0")
    elif op.what in ("link", "mkdir"):
        disk.folders.setdefault(op.node, {})[op.name] = op.target
    elif op.what == "unlink":
        disk.folders.get(op.node, {}).pop(op.name, None)
    elif op.what in ("rename", "exchange") and op.name in disk.folders.get(op.node, {}):
        moved = disk.folders[op.node].pop(op.name)
        replaced = disk.folders.setdefault(op.target, {}).get(op.new_name)
        disk.folders[op.target][op.new_name] = moved
        if op.what == "exchange" and replaced is not None:
            disk.folders[op.node][op.name] = replaced


def after_cut(start: Disk, ops: list[Op], cut: int, mode: str, rng: random.Random) -> Disk:
    """The disk when the power was cut after `cut` calls; of what was not synced it holds none, all, or some."""
    done = ops[:cut]
    synced: dict[int, int] = {}
    queues: dict[int, list[int]] = {}
    for at, op in enumerate(done):
        if op.what == "sync":
            synced[op.node] = at
        else:
            queues.setdefault(op.node, []).append(at)
    kept: dict[int, int | None] = {}
    for node, queue in queues.items():
        sure = sum(at < synced.get(node, -1) for at in queue)
        count = {NONE: sure, ALL: len(queue)}.get(mode, rng.randint(sure, len(queue)))
        kept.update(dict.fromkeys(queue[:count]))
        if mode == SOME and count < len(queue) and done[queue[count]].what == "data":
            kept[queue[count]] = rng.randint(0, len(done[queue[count]].data))
    disk = start.copy()
    for op in done:  # whatever was ever made exists; whether a name leads to it is another matter
        if op.what == "mkdir":
            disk.folders.setdefault(op.target, {})
        elif op.what == "link":
            disk.files.setdefault(op.target, b"")
    for at in sorted(kept):
        apply(disk, done[at], kept[at])
    return disk


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _unhex(text: str) -> str:
    """A path, whether strace wrote it in hexadecimal or not."""
    return _bytes(text).decode("utf-8", "surrogateescape") if text.startswith("\\x") else text
