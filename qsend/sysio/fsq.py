"""The queue as send sees it: reads everything, writes info, local, remote, bounce.

Every operation is relative to an open directory, few system calls each. It
decides nothing and syncs nothing: who calls gives the returned descriptors, and
`dir_fd` of the changed directories, to a syncer, and goes on when that answers.
Failures are OSError, untranslated; QueueCorrupt when a file is not what it must
be. Removing from mess, intd and todo is clean's (sysio/cleaner.py).
Source: qmail-send.c; queue_layout.md.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

from qsend.core.errors import QueueCorrupt
from qsend.core.message import NO_NOTES, Note
from qsend.core.model import SPLIT, Channel, FileIdentity, MessId
from qsend.formats import paths
from qsend.formats.info import INFO_MAX, parse_info, parse_notes, render_info
from qsend.formats.recips import DONE, RECORD_MAX, parse_recip
from qsend.sysio.filecalls import FileCalls
from qsend.sysio.queuedirs import QueueDirs, dir_of

TODO_MAX = 64 << 20
"""Longest envelope read: 64000 recipients of the longest kind."""
RECIPS_MAX = 256 << 20
"""Longest channel file read: rewriting can lengthen every address of TODO_MAX."""
BOUNCE_MAX = 64 << 20
"""Longest failure text read at once; a longer one is streamed (open_bounce)."""

_SECOND_NS = 1_000_000_000
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_PARAGRAPH_END = b"\n\n"
_TORN_MAX = 1 << 20
_OWN = ("info", "local", "remote", "bounce")


class Queue:
    """One queue directory; one object per process, for the process's life."""

    def __init__(self, path: str, calls: FileCalls = os) -> None:
        """Open the queue directory `path`; the rest is opened when first used."""
        self._calls = calls
        self.dirs = QueueDirs(path, calls)
        self._found: array[int] | None = None
        self._written: set[MessId] = set()

    def close(self) -> None:
        """Give back every directory descriptor."""
        self.dirs.close()

    def close_fd(self, fd: int) -> None:
        """Close a descriptor that one of these methods gave and nobody else took."""
        self._calls.close(fd)

    def dir_fd(self, name: str, messid: MessId | None = None) -> int:
        """The directory to sync after changing `name` ("info", ...) of `messid`."""
        return self.dirs.fd(name if messid is None else dir_of(name, messid))

    # todo and mess: written by others, only read here

    def read_todo(self, messid: MessId) -> tuple[bytes, int]:
        """The envelope and its mtime in nanoseconds, which becomes the birth."""
        return self._read("todo", messid, TODO_MAX)

    def todo_exists(self, messid: MessId) -> bool:
        """Whether the message is not yet preprocessed."""
        return self.dirs.exists(str(messid), self.dirs.fd("todo"))

    def list_todo(self) -> Iterator[MessId]:
        """Every number in todo/; foreign names are passed over."""
        return _numbers(self.dirs.names("todo"))

    def open_mess(self, messid: MessId) -> tuple[int, FileIdentity]:
        """A descriptor to read the message from, and what tells it from others."""
        fd, size, mtime_ns = self.dirs.open_regular(
            str(messid), os.O_RDONLY, self.dirs.of("mess", messid)
        )
        return fd, FileIdentity(mtime_ns=mtime_ns, size=size)

    def stat_mess(self, messid: MessId) -> FileIdentity:
        """The identity of the message that has this number now."""
        found = self._stat("mess", messid)
        return FileIdentity(mtime_ns=found.st_mtime_ns, size=found.st_size)

    def list_mess(self, part: int) -> Iterator[tuple[MessId, FileIdentity, int]]:
        """(number, identity, last touched) of every file in mess/<part>.

        The last is wall clock in seconds, the later of mtime and ctime: unlike
        qmail's atime, a reader (a backup) does not move it, and a file whose
        mtime was set back is still as young as it is.
        """
        fd = self.dirs.fd(f"mess/{part}")
        for messid in _numbers(self.dirs.names(f"mess/{part}")):
            try:
                found = self._calls.stat(str(messid), dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            touched_ns = max(found.st_mtime_ns, found.st_ctime_ns)
            identity = FileIdentity(mtime_ns=found.st_mtime_ns, size=found.st_size)
            yield messid, identity, touched_ns // _SECOND_NS

    # info

    def create_info(
        self,
        messid: MessId,
        sender: bytes,
        birth_ns: int,
        notes: Mapping[int, Note] = NO_NOTES,
    ) -> int:
        """Write info/N; an open descriptor, to be synced and closed.

        Raises: FileExistsError when a stale one is in the way.
        """
        return self._create("info", messid, render_info(sender, notes), birth_ns)

    def read_info(self, messid: MessId) -> tuple[bytes, int]:
        """(sender, birth in whole seconds)."""
        content, mtime_ns = self._read("info", messid, INFO_MAX)
        return parse_info(content), mtime_ns // _SECOND_NS

    def read_notes(self, messid: MessId) -> tuple[bytes, int, Mapping[int, Note]]:
        """The same, and the notes on local recipients."""
        content, mtime_ns = self._read("info", messid, INFO_MAX)
        return parse_info(content), mtime_ns // _SECOND_NS, parse_notes(content)

    def info_exists(self, messid: MessId) -> bool:
        """Whether the message is preprocessed (if it is not in todo)."""
        return self.dirs.exists(str(messid), self.dirs.of("info", messid))

    def list_info(self) -> Iterator[MessId]:
        """Every number in info/, one subdirectory after another."""
        for part in range(SPLIT):
            yield from _numbers(self.dirs.names(f"info/{part}"))

    def unlink_info(self, messid: MessId) -> bool:
        """Remove info/N; whether it was there.

        Whatever else send has of N is gone before mess/N is, and the number free.
        """
        was_there = self._unlink("info", messid)
        self._written.discard(messid)
        return was_there

    # local and remote

    def create_recips(
        self, channel: Channel, messid: MessId, data: bytes, due: int | None
    ) -> int:
        """Write a channel file; an open descriptor, to be synced and closed.

        `data` comes from render_recips; `due` becomes the mtime, wall clock in
        whole seconds, None for now.
        """
        due_ns = None if due is None else due * _SECOND_NS
        return self._create(channel.value, messid, data, due_ns)

    def read_recips(self, channel: Channel, messid: MessId) -> bytes:
        """The whole channel file. Raises: FileNotFoundError: no recipients left."""
        return self._read(channel.value, messid, RECIPS_MAX)[0]

    def read_recip(self, channel: Channel, messid: MessId, offset: int) -> bytes:
        """The recipient of the record at `offset`, done or not."""
        fd, _size, _mtime_ns = self._open(channel.value, messid, os.O_RDONLY)
        try:
            return parse_recip(self._calls.pread(fd, RECORD_MAX, offset))
        finally:
            self._calls.close(fd)

    def mark_done(
        self, channel: Channel, messid: MessId, offsets: Sequence[int]
    ) -> int:
        """Mark the records at `offsets`; an open descriptor, to be synced and closed.

        Each mark is one byte, so a crash leaves each recipient done or not.
        """
        fd, size, _mtime_ns = self._open(channel.value, messid, os.O_WRONLY)
        try:
            for offset in offsets:
                if offset >= size:
                    raise QueueCorrupt(f"{channel.value}/{messid}: cut short")
                self._calls.pwrite(fd, DONE, offset)
        except BaseException:
            self._calls.close(fd)
            raise
        return fd

    def due(self, channel: Channel, messid: MessId) -> int | None:
        """When the channel is next tried, whole seconds; None: nothing left on it."""
        try:
            return self._stat(channel.value, messid).st_mtime_ns // _SECOND_NS
        except FileNotFoundError:
            return None

    def set_due(self, channel: Channel, messid: MessId, due: int) -> None:
        """Keep the time of the next attempt over a restart."""
        due_ns = due * _SECOND_NS
        self._calls.utime(
            str(messid),
            ns=(due_ns, due_ns),
            dir_fd=self.dirs.of(channel.value, messid),
            follow_symlinks=False,
        )

    def unlink_recips(self, channel: Channel, messid: MessId) -> bool:
        """Remove a channel file; whether it was there."""
        return self._unlink(channel.value, messid)

    # bounce

    def append_bounce(self, messid: MessId, text: bytes) -> int:
        """Add failures to bounce/N; an open descriptor, to be synced and closed."""
        self._written.add(messid)
        fd = self._calls.open(
            str(messid), _APPEND, 0o600, dir_fd=self.dirs.fd("bounce")
        )
        try:
            before = self._end_torn(fd)
        except BaseException:
            self._calls.close(fd)
            raise
        return self._appended(fd, before + text)

    def open_bounce(self, messid: MessId) -> tuple[int, int]:
        """(descriptor to read from, size). Raises: FileNotFoundError: no failures."""
        fd, size, _mtime_ns = self._open("bounce", messid, os.O_RDONLY)
        return fd, size

    def read_bounce(self, messid: MessId) -> bytes | None:
        """The collected failures, None when there are none."""
        try:
            return self._read("bounce", messid, BOUNCE_MAX)[0]
        except FileNotFoundError:
            return None

    def bounce_exists(self, messid: MessId) -> bool:
        """Whether failures were collected."""
        return self.dirs.exists(str(messid), self.dirs.fd("bounce"))

    def unlink_bounce(self, messid: MessId) -> bool:
        """Remove bounce/N; whether it was there."""
        return self._unlink("bounce", messid)

    # leftovers and damage

    def know_own(self, numbers: Iterable[MessId]) -> None:
        """Nobody but these has files in info, local, remote or bounce now.

        As only this object makes such files from now on, the numbers of new messages
        need not be looked up there: four calls less for each of them.
        """
        self._found = array("Q", sorted(numbers))

    def unlink_stale(self, messid: MessId) -> set[str]:
        """Remove what an earlier message of this number left behind.

        Before a number is first used: `+mess +todo ?info ?local ?remote ?bounce`.
        Returns: names of the directories that changed, as "info/20".
        """
        if not self._may_own(messid):
            return set()
        return {dir_of(name, messid) for name in _OWN if self._unlink(name, messid)}

    def move_aside(self, messid: MessId, stamp: int) -> set[str]:
        """Move what send has of a damaged message to where clean put the rest.

        Durable before it returns. Call it after clean has answered the ASIDE
        with the same `stamp`.
        Returns: the kinds moved ("info", "local", ...).
        """
        directory = paths.aside_name(messid, stamp)
        target = self._calls.open(directory, _OPEN_DIR, dir_fd=self.dirs.fd("aside"))
        try:
            moved = {name for name in _OWN if self._move(name, messid, target)}
            self._calls.fsync(target)
        finally:
            self._calls.close(target)
        for name in moved:
            self._calls.fsync(self.dirs.of(name, messid))
        return moved

    def _may_own(self, messid: MessId) -> bool:
        if self._found is None or messid in self._written:
            return True
        at = bisect_left(self._found, messid)
        return at < len(self._found) and self._found[at] == messid

    # the few system calls behind all of it

    def _move(self, name: str, messid: MessId, target: int) -> bool:
        source = self.dirs.of(name, messid)
        try:
            self._calls.rename(str(messid), name, src_dir_fd=source, dst_dir_fd=target)
        except FileNotFoundError:
            return False
        return True

    def _open(self, name: str, messid: MessId, flags: int) -> tuple[int, int, int]:
        return self.dirs.open_regular(str(messid), flags, self.dirs.of(name, messid))

    def _stat(self, name: str, messid: MessId) -> os.stat_result:
        return self._calls.stat(
            str(messid), dir_fd=self.dirs.of(name, messid), follow_symlinks=False
        )

    def _read(self, name: str, messid: MessId, limit: int) -> tuple[bytes, int]:
        fd, size, mtime_ns = self._open(name, messid, os.O_RDONLY)
        try:
            if size > limit:
                raise QueueCorrupt(f"{name}/{messid}: {size} bytes")
            parts = []
            while piece := self._calls.read(fd, size + 1):
                parts.append(piece)
                size -= len(piece)
                if size <= 0:
                    break
            return b"".join(parts), mtime_ns
        finally:
            self._calls.close(fd)

    def _create(
        self, name: str, messid: MessId, data: bytes, mtime_ns: int | None
    ) -> int:
        directory = self.dirs.of(name, messid)
        self._written.add(messid)
        fd = self._calls.open(str(messid), _CREATE, 0o600, dir_fd=directory)
        try:
            self.dirs.write_all(fd, data)
            if mtime_ns is not None:
                # After the write, which would set it to now.
                self._calls.utime(fd, ns=(mtime_ns, mtime_ns))
        except OSError:
            self._calls.close(fd)
            self._calls.unlink(str(messid), dir_fd=directory)
            raise
        return fd

    def _end_torn(self, fd: int) -> bytes:
        """What must come before the next paragraph: the end of the last one.

        A power cut may leave zeros in the place of its end. Nobody was marked done
        for it, as that waits for the text to be durable; but what comes next must
        not become a part of it.
        """
        size = self._calls.fstat(fd).st_size
        at = max(0, size - _TORN_MAX)
        if not size or self._calls.pread(fd, 2, max(0, size - 2)) == _PARAGRAPH_END:
            return b""
        tail = self._calls.pread(fd, size - at, at)
        self._calls.ftruncate(fd, at + len(tail.rstrip(b"\0")))
        return _PARAGRAPH_END

    def _appended(self, fd: int, data: bytes) -> int:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._calls.write(fd, rest) :]
        except OSError:
            # Half a paragraph (disk full) would stay in front of the next try.
            whole = self._calls.fstat(fd).st_size - (len(data) - len(rest))
            self._calls.ftruncate(fd, whole)
            self._calls.close(fd)
            raise
        return fd

    def _unlink(self, name: str, messid: MessId) -> bool:
        return self.dirs.unlink(str(messid), self.dirs.of(name, messid))


def _numbers(names: Iterator[str]) -> Iterator[MessId]:
    return (found for name in names if (found := paths.parse_messid(name)) is not None)
