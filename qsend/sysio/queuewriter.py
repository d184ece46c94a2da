"""Writing one message into the queue: the steps from nothing to `todo/N`.

The caller owns the order in time; each step here is one transition of qmail's
states, so that a crash after any of them leaves what the sweep understands:

    Draft       -mess -intd -todo   an unnamed file, N is its inode number
    seal()      +mess +intd -todo   S3; to be made durable before publish
    publish()   +mess +intd +todo   S4, queued once todo/ is durable
    discard()   -mess -intd -todo   intd goes first, mess last

Must not sync (the syncer does) except for the rarity named in `_unlink_stale`.
Source: qmail-queue.c main(), cleanup(); queue_layout.md; docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import errno
import os
from enum import Enum, auto

from qsend.core.errors import TempFail
from qsend.core.model import SPLIT, MessId
from qsend.formats.queueexit import QueueExit
from qsend.sysio import clock
from qsend.sysio.queuedirs import QueueDirs

BUFFER_MAX = 16384
"""Bytes of message, and of envelope, held back to be written at once: a usual
message costs one write, a thousand stalled clients 32 MiB."""

_MODE = 0o644
_PID_NAMES = 9
"""Names tried in pid/ (qmail-queue.c pidopen)."""
_SPOILED_MAX = 100
"""Inodes kept from reuse because a foreign file has their number in mess/; each
costs a descriptor."""
_FILES_IN_A_ROW = 64
"""Unnamed files made in one part of mess/ before the next part's turn."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DOING = {
    QueueExit.WRITE: "writing a message",
    QueueExit.QUEUE: "opening the queue",
    QueueExit.PID: "making a file in queue/pid",
    QueueExit.MESS: "making a file in queue/mess",
    QueueExit.INTD: "making a file in queue/intd",
    QueueExit.TODO: "making a file in queue/todo",
}
"""What failed, for the operator."""
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class QueueTrouble(TempFail):
    """A step failed; `code` is qmail-queue's exit code for it."""

    def __init__(self, code: QueueExit, why: str) -> None:
        super().__init__(f"{why} (exit {code.value})")
        self.code = code


def trouble(code: QueueExit, exc: OSError) -> QueueTrouble:
    """`code`, or WRITE when the reason is a lack of space."""
    why = f"trouble {_DOING.get(code, 'queueing a message')}: {exc.strerror}"
    if exc.errno in _NO_SPACE:
        code = QueueExit.WRITE
    return QueueTrouble(code, why)


class QueueWriter:
    """Opens drafts in one queue. Not for threads."""

    def __init__(self, queue: str) -> None:
        """Open the queue directory `queue`.

        Raises: QueueTrouble with QUEUE when a directory cannot be opened.
        """
        try:
            self.dirs = QueueDirs(queue)
            self.pid_fd = self.dirs.fd("pid")
            self.todo_fd = self.dirs.fd("todo")
            self.intd_fd = self.dirs.fd("intd")
            self.gid = os.fstat(self.todo_fd).st_gid
        except OSError as exc:
            raise trouble(QueueExit.QUEUE, exc) from exc
        self.spoiled: list[int] = []
        self._serial = 0
        self._has_unnamed = self._try_unnamed()

    def free_bytes(self) -> int:
        """Space that an ordinary account may still use. Raises: OSError."""
        found = os.fstatvfs(self.todo_fd)
        return found.f_bavail * found.f_frsize

    def free_files(self) -> int | None:
        """Files that an ordinary account may still make; None where that is not
        limited. Raises: OSError."""
        found = os.fstatvfs(self.todo_fd)
        return found.f_favail if found.f_files else None

    def begin(self, head: bytes) -> Draft:
        """A new message starting with `head` (its Received line).

        Raises: QueueTrouble with PID, or WRITE without space.
        """
        try:
            if self._has_unnamed:
                fd, name = self._open_unnamed(), ""
            else:
                fd, name = self._open_named()
        except OSError as exc:
            raise trouble(QueueExit.PID, exc) from exc
        try:
            messid = MessId(self.own(fd))
        except OSError as exc:
            os.close(fd)
            self._drop_name(name)
            raise trouble(QueueExit.PID, exc) from exc
        return Draft(self, fd, name, messid, head)

    def create_envelope(self, name: str) -> int:
        """A new file in intd/; its descriptor. Raises: OSError."""
        if not self._has_unnamed:
            return os.open(name, _CREATE, _MODE, dir_fd=self.intd_fd)
        fd = self._open_unnamed()
        try:
            self.link(fd, name, self.intd_fd)
        except OSError:
            os.close(fd)
            raise
        return fd

    @staticmethod
    def link(fd: int, name: str, dir_fd: int) -> None:
        """Give a file without a name its first one. Raises: OSError."""
        # linkat with AT_SYMLINK_FOLLOW: os.link's default with a dir_fd.
        os.link(_proc_path(fd), name, dst_dir_fd=dir_fd)

    def own(self, fd: int) -> int:
        """Give a new file the queue's mode and group; returns its inode number.

        Neither umask nor the caller's group may decide (qmail: umask 033, and
        the group of whoever injects). Raises: OSError.
        """
        found = os.fstat(fd)
        if found.st_mode & 0o7777 != _MODE:
            os.fchmod(fd, _MODE)
        if found.st_gid != self.gid:
            try:
                os.fchown(fd, -1, self.gid)
            except PermissionError:
                pass  # a queue of another group than ours; 0644 serves it as well
        return found.st_ino

    def close(self) -> None:
        """Close every descriptor of the queue."""
        for fd in self.spoiled:
            os.close(fd)
        self.spoiled.clear()
        self.dirs.close()

    def _try_unnamed(self) -> bool:
        # Needs O_TMPFILE of the file system, and /proc to give the file a name.
        try:
            fd = self._open_unnamed()
        except OSError:
            return False
        try:
            return os.path.exists(_proc_path(fd))
        finally:
            os.close(fd)

    def _open_unnamed(self) -> int:
        # A file system takes a new inode from near the directory that it is asked
        # in: the parts of mess/ in turn. See sysio/inodegroups.py.
        self._serial += 1
        part = self._serial // _FILES_IN_A_ROW % SPLIT
        dir_fd = self.dirs.fd(f"mess/{part}")
        return os.open(".", os.O_WRONLY | os.O_TMPFILE, _MODE, dir_fd=dir_fd)

    def _open_named(self) -> tuple[int, str]:
        """`pid/<pid>.<time>.<seq>`; the serial keeps messages of one second apart."""
        for seq in range(1, _PID_NAMES + 1):
            self._serial += 1
            name = f"{os.getpid()}.{clock.now()}.{self._serial}"
            try:
                return os.open(name, _CREATE, _MODE, dir_fd=self.pid_fd), name
            except FileExistsError:
                if seq == _PID_NAMES:
                    raise
        raise AssertionError("unreachable: the last try raises")

    def _drop_name(self, name: str) -> None:
        if name:
            self.dirs.unlink(name, self.pid_fd)


class _State(Enum):
    OPEN = auto()
    NAMED = auto()
    SEALED = auto()
    OVER = auto()


class Draft:
    """One message on its way into the queue.

    Write the message, write the envelope, seal, make durable what `seal`
    returns, publish, make durable what `publish` returns. A QueueTrouble from
    any step, or a failed sync, is to be followed by `discard`.
    """

    def __init__(
        self, writer: QueueWriter, fd: int, name: str, messid: MessId, head: bytes
    ) -> None:
        """Use QueueWriter.begin; `name` is the file's name in pid/, or ""."""
        self.messid = messid
        self._writer = writer
        self._name = name
        self._mess = _Output(writer, fd, head)
        self._intd = _Output(writer, -1, b"")
        self._state = _State.OPEN

    def write_message(self, data: bytes) -> None:
        """Append to the message. Raises: QueueTrouble with WRITE."""
        self._mess.write(data)

    def write_envelope(self, data: bytes) -> None:
        """Append to the envelope, in its stored form; no message data after this.

        Raises: QueueTrouble.
        """
        if self._intd.needs_room(data):
            self._name_files()
        self._intd.write(data)

    def seal(self) -> tuple[list[int], list[int]]:
        """All is written: name the files.

        Returns: (files, directories) that must be durable before `publish`; the
            files are now the caller's to close.
        Raises: QueueTrouble.
        """
        self._name_files()
        self._mess.flush()
        self._intd.flush()
        self._state = _State.SEALED
        dirs = self._writer.dirs
        return (
            [self._mess.release(), self._intd.release()],
            [dirs.of("mess", self.messid), self._writer.intd_fd],
        )

    def publish(self) -> list[int]:
        """Link `todo/N`. -> S4.

        Returns: directories that must be durable before the client is answered.
        From here on the message is the queue manager's: when that sync fails,
        nothing may be removed, the client is told that it failed.
        Raises: QueueTrouble with TODO.
        """
        writer, name = self._writer, str(self.messid)
        try:
            os.link(name, name, src_dir_fd=writer.intd_fd, dst_dir_fd=writer.todo_fd)
        except OSError as exc:
            raise trouble(QueueExit.TODO, exc) from exc
        self._state = _State.OVER
        return [writer.todo_fd]

    def discard(self) -> None:
        """Leave nothing behind; harmless after publish and when repeated.

        Raises: OSError when a name cannot be removed; what stays is S2 or S3,
            which the sweep removes.
        """
        state, self._state = self._state, _State.OVER
        if state is _State.OVER:
            return
        self._mess.close()
        self._intd.close()
        dirs, name = self._writer.dirs, str(self.messid)
        if state is not _State.OPEN:
            # +mess ?intd -todo: mess is the last to go.
            dirs.unlink(name, self._writer.intd_fd)
            dirs.unlink(name, dirs.of("mess", self.messid))
        elif self._name:
            dirs.unlink(self._name, self._writer.pid_fd)

    def _name_files(self) -> None:
        """S1 -> S3: stale names away, mess/N, intd/N. Once."""
        if self._state is not _State.OPEN:
            return
        self._refuse_taken()
        self._unlink_stale()
        self._link_mess()
        self._state = _State.NAMED
        writer = self._writer
        try:
            self._intd.fd = fd = writer.create_envelope(str(self.messid))
            writer.own(fd)
        except OSError as exc:
            raise trouble(QueueExit.INTD, exc) from exc

    def _refuse_taken(self) -> None:
        """Stop if some file that is not inode N is called mess/N.

        In a queue restored from a copy: what else is called N is that message's.
        """
        writer, name = self._writer, str(self.messid)
        try:
            is_taken = writer.dirs.exists(name, writer.dirs.of("mess", self.messid))
        except OSError as exc:
            raise trouble(QueueExit.MESS, exc) from exc
        if is_taken:
            self._spoil()
            raise QueueTrouble(QueueExit.MESS, f"mess/{name} is another file")

    def _unlink_stale(self) -> None:
        """Remove envelopes of an older message with this number.

        With mess/N linked beside an old todo/N the message would go to the old
        one's recipients, so the removal must be durable first. No crash of ours
        leaves such a file, hence the rare sync in place.
        """
        writer, name = self._writer, str(self.messid)
        try:
            for fd in (writer.intd_fd, writer.todo_fd):
                if writer.dirs.unlink(name, fd):
                    os.fsync(fd)
        except OSError as exc:
            raise trouble(QueueExit.INTD, exc) from exc

    def _link_mess(self) -> None:
        writer = self._writer
        try:
            mess_fd = writer.dirs.of("mess", self.messid)
            if self._name:
                os.link(
                    self._name,
                    str(self.messid),
                    src_dir_fd=writer.pid_fd,
                    dst_dir_fd=mess_fd,
                )
                self._drop_pid_name(mess_fd)
            else:
                writer.link(self._mess.fd, str(self.messid), mess_fd)
        except FileExistsError as exc:
            self._spoil()
            raise trouble(QueueExit.MESS, exc) from exc
        except OSError as exc:
            raise trouble(QueueExit.MESS, exc) from exc

    def _drop_pid_name(self, mess_fd: int) -> None:
        try:
            os.unlink(self._name, dir_fd=self._writer.pid_fd)
        except OSError as exc:
            self._writer.dirs.unlink(str(self.messid), mess_fd)
            raise trouble(QueueExit.PID, exc) from exc
        self._name = ""

    def _spoil(self) -> None:
        """Keep this inode in use: freed, it would be the next message's again."""
        spoiled = self._writer.spoiled
        if len(spoiled) < _SPOILED_MAX:
            os.ftruncate(self._mess.fd, 0)
            spoiled.append(self._mess.release())


class _Output:
    """A file being written, in few system calls; -1 is a file not yet open."""

    __slots__ = ("_dirs", "_parts", "_size", "fd")

    def __init__(self, writer: QueueWriter, fd: int, head: bytes) -> None:
        self.fd = fd
        self._dirs = writer.dirs
        self._parts = [head]
        self._size = len(head)

    def needs_room(self, data: bytes) -> bool:
        return self._size + len(data) > BUFFER_MAX

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size > BUFFER_MAX:
            self.flush()

    def flush(self) -> None:
        data = b"".join(self._parts)
        self._parts, self._size = [], 0
        try:
            self._dirs.write_all(self.fd, data)
        except OSError as exc:
            raise trouble(QueueExit.WRITE, exc) from exc

    def release(self) -> int:
        """The descriptor, from now on the caller's."""
        fd, self.fd = self.fd, -1
        return fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.release())


def _proc_path(fd: int) -> str:
    return f"/proc/self/fd/{fd}"
