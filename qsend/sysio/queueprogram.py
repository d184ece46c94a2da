"""Running another queueing program, as $QMAILQUEUE names it.

The program gets the message on descriptor 0, the envelope on 1 and may explain
itself on 6.
Source: qmail.c qmail_open(), qmail_close(); qmail-queue(8).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qsend.formats.queueexit import QueueExit
from qsend.sysio.fork import exec_program, fork_child

CUSTOM_MAX = 255
"""Bytes of a custom reply that are read (qmail.c)."""

_KILLED = -1
_ABOVE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the program ended.

    `code` is for formats.queueexit.explain: an exit code, READ when it exited 0
    without having read everything, -1 when a signal killed it. `custom` is what
    it said on descriptor 6.
    """

    code: int
    custom: bytes
    pid: int


def run_program(
    program: str,
    home: str,
    chunks: Iterable[bytes],
    envelope: bytes,
    environ: Mapping[str, str],
) -> Outcome:
    """Give one message to `program`, started in `home`, and wait for its end.

    `envelope` is in the fd 1 form. An exception from `chunks` stops the program
    (it sees the message end early, without an envelope) and goes on.
    Raises: TempFail when no process can be made.
    """
    pipes = [os.pipe() for _ in range(3)]
    (message_in, message_out), (envelope_in, envelope_out), (text_in, text_out) = pipes
    theirs = [message_in, envelope_in, text_out]
    ours = [message_out, envelope_out, text_in]

    def child() -> int:
        return _become(program, home, theirs, environ)

    pid = 0
    try:
        try:
            pid = fork_child(child, theirs, "queueing program")
        finally:
            _close(theirs)
        is_read = _write_all(message_out, chunks)
        _close([ours.pop(0)])
        is_read = _write_all(envelope_out, [envelope]) and is_read
        _close([ours.pop(0)])
        custom = _read_custom(text_in)
    finally:
        _close(ours)
        status = os.waitpid(pid, 0)[1] if pid else 0
    code = os.waitstatus_to_exitcode(status)
    if code == QueueExit.QUEUED and not is_read:
        code = QueueExit.READ
    return Outcome(code=code if code >= 0 else _KILLED, custom=custom, pid=pid)


def _become(
    program: str, home: str, fds: Iterable[int], environ: Mapping[str, str]
) -> int:
    """In the child: the program, or the exit code that says why not."""
    try:
        os.chdir(home)
    except OSError:
        return QueueExit.HOME
    try:
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for fd in fds]
        for fd, number in zip(high, (0, 1, 6), strict=True):
            os.dup2(fd, number)
        exec_program(program, [program], environ)
    except OSError:
        return QueueExit.EXEC


def _write_all(fd: int, chunks: Iterable[bytes]) -> bool:
    """Whether the program took everything."""
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            try:
                rest = rest[os.write(fd, rest) :]
            except OSError:
                return False
    return True


def _read_custom(fd: int) -> bytes:
    """What the program says on descriptor 6, read to its end, kept to CUSTOM_MAX."""
    kept = b""
    while data := os.read(fd, 4096):
        kept = (kept + data)[:CUSTOM_MAX]
    return kept


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
