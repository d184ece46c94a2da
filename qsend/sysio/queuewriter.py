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
from qsend.core.model import MessId
from qsend.formats.queueexit import QueueExit
from qsend.sysio.queuedirs import QueueDirs
from qsend.sysio.queuefiles import QueueFiles

BUFFER_MAX = 16384
"""Bytes of message, and of envelope, held back to be written at once: a usual
message costs one write, a thousand stalled clients 32 MiB."""

_SPOILED_MAX = 100
"""Inodes kept from reuse because a foreign file has their number in mess/; each
costs a descriptor."""
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
            self.files = QueueFiles(self.dirs)
            self.todo_fd = self.dirs.fd("todo")
            self.intd_fd = self.dirs.fd("intd")
        except OSError as exc:
            raise trouble(QueueExit.QUEUE, exc) from exc
        self.spoiled: list[int] = []

    def free(self) -> tuple[int, int | None]:
        """What an ordinary account may still use: bytes, and files to be made.

        None for files where they are not limited. Raises: OSError.
        """
        found = os.fstatvfs(self.todo_fd)
        free_files = found.f_favail if found.f_files else None
        return found.f_bavail * found.f_frsize, free_files

    def begin(self, head: bytes) -> Draft:
        """A new message starting with `head` (its Received line).

        Raises: QueueTrouble with PID, or WRITE without space.
        """
        try:
            fd, name, inode = self.files.message()
        except OSError as exc:
            raise trouble(QueueExit.PID, exc) from exc
        return Draft(self, fd, name, MessId(inode), head)

    def close(self) -> None:
        """Close every descriptor of the queue."""
        for fd in self.spoiled:
            os.close(fd)
        self.spoiled.clear()
        self.dirs.close()


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
        else:
            self._writer.files.drop(self._name)

    def _name_files(self) -> None:
        """S1 -> S3: a stale todo/N away, mess/N, intd/N. Once."""
        if self._state is not _State.OPEN:
            return
        self._make_way()
        self._link_mess()
        self._state = _State.NAMED
        try:
            self._intd.fd = self._new_envelope()
        except OSError as exc:
            raise trouble(QueueExit.INTD, exc) from exc

    def _make_way(self) -> None:
        """Remove the envelope of an older message with this number, if there is one.

        With mess/N linked beside an old todo/N the message would go to the old
        one's recipients, so the removal must be durable first. No crash of ours
        leaves such a file, hence the rare sync in place.
        """
        writer, name = self._writer, str(self.messid)
        try:
            if not writer.dirs.exists(name, writer.todo_fd):
                return
            if writer.dirs.exists(name, writer.dirs.of("mess", self.messid)):
                # In a queue restored from a copy: all that is called N is its.
                raise self._taken()
            writer.dirs.unlink(name, writer.todo_fd)
            os.fsync(writer.todo_fd)
        except OSError as exc:
            raise trouble(QueueExit.TODO, exc) from exc

    def _new_envelope(self) -> int:
        writer, name = self._writer, str(self.messid)
        try:
            return writer.files.envelope(name)
        except FileExistsError:
            # An older message's, without a todo/N: nobody reads it.
            writer.dirs.unlink(name, writer.intd_fd)
            return writer.files.envelope(name)

    def _link_mess(self) -> None:
        writer = self._writer
        try:
            mess_fd = writer.dirs.of("mess", self.messid)
            writer.files.link(self._mess.fd, self._name, str(self.messid), mess_fd)
            self._drop_pid_name(mess_fd)
        except FileExistsError as exc:
            raise self._taken() from exc
        except OSError as exc:
            raise trouble(QueueExit.MESS, exc) from exc

    def _taken(self) -> QueueTrouble:
        """mess/N is some file that is not inode N."""
        self._spoil()
        text = f"mess/{self.messid} is another file"
        return QueueTrouble(QueueExit.MESS, text)

    def _drop_pid_name(self, mess_fd: int) -> None:
        try:
            self._writer.files.drop(self._name)
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
