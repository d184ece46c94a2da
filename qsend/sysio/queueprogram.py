"""Running another queueing program, as $QMAILQUEUE names it.

The program gets the message on descriptor 0, the envelope on 1 and may explain
itself on 6.
Source: qmail.c qmail_open(), qmail_close(); qmail-queue(8).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping
from types import TracebackType

from qsend.formats.queueexit import QueueExit
from qsend.sysio.fork import exec_program, fork_child
from qsend.sysio.queueclient import QueueStopped

CUSTOM_MAX = 255
"""Bytes of a custom reply that are read (qmail.c)."""

_KILLED = -1
_ABOVE = 10


class QueueProgram:
    """One message to a program: used as QueueClient is, and with its exceptions.

    An exit code is for formats.queueexit.explain, -1 when a signal killed it. That the
    program does not read on is told at the end: it may have a reason to give.
    """

    def __init__(self, program: str, home: str, environ: Mapping[str, str]) -> None:
        """Start `program` in `home` with `environ`.

        Raises: TempFail when no process can be made.
        """
        pipes = [os.pipe() for _ in range(3)]
        (message_in, self._message), (envelope_in, self._envelope), text = pipes
        self._text = text[0]
        self._is_read = True
        self._pid = 0
        theirs = [message_in, envelope_in, text[1]]

        def child() -> int:
            return become(program, home, theirs, environ)

        try:
            self._pid = fork_child(child, theirs, "queueing program")
        except BaseException:
            self._close_pipes()
            raise
        finally:
            for fd in theirs:
                os.close(fd)

    def __enter__(self) -> QueueProgram:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def message(self, data: bytes) -> None:
        """Give it bytes of the message."""
        self._write(self._message, data)

    def envelope(self, data: bytes) -> None:
        """Give it bytes of the envelope in the fd 1 form."""
        self._end_message()
        self._write(self._envelope, data)

    def commit(self) -> int:
        """All is said: wait for its end. Returns: its pid.

        Raises: QueueStopped.
        """
        pid = self._pid
        self._end_message()
        os.close(self._envelope)
        self._envelope = -1
        custom = _read_custom(self._text)
        code = self._reap()
        if code == QueueExit.QUEUED and not self._is_read:
            code = QueueExit.READ
        if code != QueueExit.QUEUED:
            raise QueueStopped(code if code >= 0 else _KILLED, custom)
        return pid

    def close(self) -> None:
        """Without a commit: the program sees the message end without an envelope."""
        self._close_pipes()
        self._reap()

    def _write(self, fd: int, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest and self._is_read:
                rest = rest[os.write(fd, rest) :]
        except OSError:
            self._is_read = False

    def _end_message(self) -> None:
        if self._message >= 0:
            os.close(self._message)
            self._message = -1

    def _close_pipes(self) -> None:
        for fd in (self._message, self._envelope, self._text):
            if fd >= 0:
                os.close(fd)
        self._message = self._envelope = self._text = -1

    def _reap(self) -> int:
        """Wait for the program, once; its exit code, below zero for a signal."""
        pid, self._pid = self._pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else 0


def become(
    program: str | bytes,
    home: str,
    fds: Iterable[int],
    environ: Mapping[str, str] | Mapping[bytes, bytes],
) -> int:
    """In a child: the program, or the exit code that says why not.

    `fds` are message, envelope, and where it explains itself.
    """
    try:
        os.chdir(home)
    except OSError:
        return QueueExit.HOME
    try:
        for fd in fds:
            os.set_inheritable(fd, False)  # that came over a socket are
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for fd in fds]
        for fd, number in zip(high, (0, 1, 6), strict=True):
            os.dup2(fd, number)
        exec_program(program, [program], environ)
    except OSError:
        return QueueExit.EXEC


def _read_custom(fd: int) -> bytes:
    """What the program says on descriptor 6, read to its end, kept to CUSTOM_MAX."""
    kept = b""
    while data := os.read(fd, 4096):
        kept = (kept + data)[:CUSTOM_MAX]
    return kept
