"""A disk in memory with the system calls that the queue is worked with.

It has those of sysio/filecalls, so the real Queue and Cleaner run on it unchanged
(tests/fakes.py). What crashes leave is in tests/faketree.py.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from tests.faketree import ROOT, FakeTree, Op

QUEUE = "/queue"
"""The path under which a FakeDisk is a queue directory."""
FIRST_INODE = 1000


@dataclass(slots=True)
class _Open:
    node: int
    flags: int
    at: int = 0


@dataclass(frozen=True, slots=True)
class _Listed:
    name: str


class FakeDisk(FakeTree):
    """The system calls of FileCalls over a tree in memory."""

    def __init__(self, now: int = 1_000_000_000) -> None:
        """An empty disk on which it is `now` (wall clock, whole seconds)."""
        super().__init__(now)
        self.fail: Callable[[str, str], int] | None = None
        """Asked before each call with its name and path; an errno makes it fail."""
        self.write_most: int | None = None
        """Bytes that one write takes; None for all."""
        self.first_ino = FIRST_INODE
        """Where the search for a free inode number begins."""
        self._opened: dict[int, _Open] = {}

    def open(
        self, path: str, flags: int, mode: int = 0o777, /, *, dir_fd: int | None = None
    ) -> int:
        directory, name = self._place("open", path, dir_fd)
        node = self._nodes[directory].names.get(name) if name else directory
        if node is None:
            if not flags & os.O_CREAT:
                _fail(errno.ENOENT, path)
            node = self._new(directory, name, stat.S_IFREG | mode)
        elif flags & os.O_EXCL:
            _fail(errno.EEXIST, path)
        kind = self._nodes[node].mode
        if flags & os.O_DIRECTORY and not stat.S_ISDIR(kind):
            _fail(errno.ENOTDIR, path)
        if flags & os.O_NOFOLLOW and stat.S_ISLNK(kind):
            _fail(errno.ELOOP, path)
        if flags & os.O_TRUNC and self._nodes[node].data:
            self._record(Op("truncate", node))
        # High numbers, so that giving one to a real call fails.
        fd = max(self._opened, default=100_000) + 1
        self._opened[fd] = _Open(node=node, flags=flags)
        return fd

    def close(self, fd: int, /) -> None:
        if self._opened.pop(fd, None) is None:
            _fail(errno.EBADF, str(fd))

    def open_count(self) -> int:
        """Descriptors not yet closed, for leak checks."""
        return len(self._opened)

    def fstat(self, fd: int, /) -> os.stat_result:
        return self._stat(self._at(fd).node)

    def stat(
        self, path: str, /, *, dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> os.stat_result:
        return self._stat(self._found("stat", path, dir_fd)[2])

    def read(self, fd: int, length: int, /) -> bytes:
        opened = self._at(fd)
        data = self.pread(fd, length, opened.at)
        opened.at += len(data)
        return data

    def pread(self, fd: int, length: int, offset: int, /) -> bytes:
        data = self._nodes[self._at(fd).node].data
        return bytes(data[offset : offset + length])

    def write(self, fd: int, data: bytes | memoryview, /) -> int:
        opened = self._at(fd)
        if opened.flags & os.O_APPEND:
            opened.at = len(self._nodes[opened.node].data)
        taken = bytes(data)[: self.write_most]
        self.pwrite(fd, taken, opened.at)
        opened.at += len(taken)
        return len(taken)

    def pwrite(self, fd: int, data: bytes, offset: int, /) -> int:
        self._may("write", "")
        self._record(Op("write", self._at(fd).node, offset=offset, data=data))
        return len(data)

    def ftruncate(self, fd: int, length: int, /) -> None:
        self._record(Op("truncate", self._at(fd).node, offset=length))

    def fsync(self, fd: int, /) -> None:
        node = self._at(fd).node
        if self.fail:
            self._may("fsync", self.name_of(fd))
        self._record(Op("sync", node))

    def fchmod(self, fd: int, mode: int, /) -> None:
        self._record(Op("chmod", self._at(fd).node, offset=mode))

    def fchown(self, fd: int, _uid: int, _gid: int, /) -> None:
        self._at(fd)  # everything is root's here, and stays it

    def rmdir(self, path: str, /, *, dir_fd: int | None = None) -> None:
        directory, name, node = self._found("rmdir", path, dir_fd)
        if self._nodes[node].names:
            _fail(errno.ENOTEMPTY, path)
        self._record(Op("unlink", directory, name))

    def mkdir(
        self, path: str, mode: int = 0o777, /, *, dir_fd: int | None = None
    ) -> None:
        directory, name = self._place("mkdir", path, dir_fd)
        if name in self._nodes[directory].names:
            _fail(errno.EEXIST, path)
        self._new(directory, name, stat.S_IFDIR | mode)

    def link(
        self,
        src: str,
        dst: str,
        /,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        node = self._found("link", src, src_dir_fd)[2]
        if stat.S_ISDIR(self._nodes[node].mode):
            _fail(errno.EPERM, src)
        directory, name = self._place("link", dst, dst_dir_fd)
        if name in self._nodes[directory].names:
            _fail(errno.EEXIST, dst)
        self._record(Op("link", directory, name, target=node))

    def rename(
        self,
        src: str,
        dst: str,
        /,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
    ) -> None:
        source, old, _node = self._found("rename", src, src_dir_fd)
        directory, name = self._place("rename", dst, dst_dir_fd)
        self._record(Op("rename", directory, name, source=(source, old)))

    def unlink(self, path: str, /, *, dir_fd: int | None = None) -> None:
        directory, name, node = self._found("unlink", path, dir_fd)
        if stat.S_ISDIR(self._nodes[node].mode):
            _fail(errno.EISDIR, path)
        self._record(Op("unlink", directory, name))

    def utime(
        self,
        path: int | str,
        /,
        *,
        ns: tuple[int, int],
        dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        node = (
            self._at(path).node
            if isinstance(path, int)
            else self._found("utime", path, dir_fd)[2]
        )
        self._record(Op("utime", node, mtime_ns=ns[1]))

    def scandir(
        self, path: int, /
    ) -> contextlib.AbstractContextManager[Iterator[_Listed]]:
        names = list(self._nodes[self._at(path).node].names)
        return contextlib.nullcontext(iter([_Listed(name) for name in names]))

    # below the calls

    def name_of(self, fd: int) -> str:
        """The path of an open directory or file, "" when it has no name."""
        node = self._at(fd).node
        return next((path for path, found in self._walk(ROOT, "") if found == node), "")

    def node_of(self, fd: int) -> int:
        """The number by which ops name an open file or directory."""
        return self._at(fd).node

    def free_ino(self, first: int) -> int:
        """The lowest inode number from `first` on that no file has."""
        opened = {entry.node for entry in self._opened.values()}
        taken = {
            found.ino
            for number, found in self._nodes.items()
            if found.links or number in opened
        }
        return next(ino for ino in itertools.count(first) if ino not in taken)

    def _may(self, call: str, path: str) -> None:
        code = self.fail(call, path) if self.fail else 0
        if code:
            _fail(code, path)

    def _at(self, fd: int) -> _Open:
        opened = self._opened.get(fd)
        if opened is None:
            _fail(errno.EBADF, str(fd))
        return opened

    def _place(self, call: str, path: str, dir_fd: int | None) -> tuple[int, str]:
        """(directory, name there); the name is "" for the queue directory."""
        base = ROOT if dir_fd is None else self._at(dir_fd).node
        *parts, name = path.removeprefix(QUEUE).strip("/").split("/")
        for part in parts:
            base = self._nodes[base].names.get(part, -1)
            if base < 0:
                _fail(errno.ENOENT, path)
        if self.fail:  # finding the path is what takes time
            where = "" if dir_fd is None else self.name_of(dir_fd)
            self._may(call, f"{where}/{path}".strip("/"))
        return base, name

    def _found(self, call: str, path: str, dir_fd: int | None) -> tuple[int, str, int]:
        directory, name = self._place(call, path, dir_fd)
        node = self._nodes[directory].names.get(name)
        if node is None:
            _fail(errno.ENOENT, path)
        return directory, name, node

    def _new(self, directory: int, name: str, mode: int) -> int:
        """A node under the lowest free inode number, as ext4 gives it."""
        node = self._next_node
        self._next_node += 1
        ino = self.free_ino(self.first_ino)
        self._record(Op("create", node, target=node, offset=ino, mtime_ns=mode))
        self._record(Op("link", directory, name, target=node))
        return node

    def _stat(self, number: int) -> os.stat_result:
        node = self._nodes[number]
        times = {
            "st_mtime_ns": node.mtime_ns,
            "st_ctime_ns": node.ctime_ns,
            "st_atime_ns": node.mtime_ns,
        }
        seconds = [node.mtime_ns // 10**9] * 2 + [node.ctime_ns // 10**9]
        head = [node.mode, node.ino, 1, node.links, 0, 0, len(node.data)]
        return os.stat_result([*head, *seconds], times)


def _fail(code: int, path: str) -> NoReturn:
    raise OSError(code, os.strerror(code), path)
