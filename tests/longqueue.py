"""Many messages written straight into a queue, unsynced, without any protocol."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from qsend.core.model import Channel, MessId
from qsend.formats.todo import Envelope, render_todo
from qsend.sysio import privilege
from qsend.sysio.accounts import load_accounts
from qsend.sysio.fork import fork_child
from qsend.sysio.queuedirs import QueueDirs
from qsend.sysio.queuewriter import QueueWriter

WRITERS = 2
"""Processes that write at once."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A message to be written."""

    content: bytes
    sender: bytes
    recips: tuple[bytes, ...]


def fill_todo(queue: Path, mails: Iterable[Mail], *, single_user: bool = False) -> None:
    """Write messages into todo/, as enqueue leaves them and as its account."""

    def write() -> int:
        privilege.drop(load_accounts(single_user).qmailq)
        writer = QueueWriter(str(queue))
        for mail in mails:
            draft = writer.begin(b"Received: (test)\n")
            draft.write_message(mail.content)
            envelope = Envelope(uid=0, pid=1, sender=mail.sender, recips=mail.recips)
            draft.write_envelope(render_todo(envelope))
            files, _dirs = draft.seal()
            for fd in files:
                os.close(fd)
            draft.publish()
        writer.close()
        return 0

    in_processes([write])


def fill_preprocessed(
    queue: Path, mails: Iterable[Mail], channel: Channel, due: float
) -> None:
    """Write messages that are tried on one channel at `due`, as send leaves them."""

    def write(turn: int) -> int:
        files = _Files(queue, f"new{turn}")
        for mail in islice(mails, turn, None, WRITERS):
            files.write(mail, channel, int(due))
        return 0

    in_processes([partial(write, turn) for turn in range(WRITERS)])


def in_processes(works: Iterable[Callable[[], int]]) -> None:
    """Do these at once, in a process each; none outlives this call.

    Raises: RuntimeError when one returned anything but 0.
    """
    running = [fork_child(work, []) for work in works]
    try:
        while running:
            _pid, status = os.waitpid(running[-1], 0)
            running.pop()
            if status:
                raise RuntimeError(f"a process ended with wait status {status}")
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


class _Files:
    """Writes the three files of a message, with few system calls for each."""

    def __init__(self, queue: Path, new: str) -> None:
        """`new` is what a message is called in mess/ until its number is known."""
        self._dirs = QueueDirs(str(queue))
        self._mess = self._dirs.fd("mess")
        self._new = new
        accounts = load_accounts(single_user=False)
        self._qmailq, self._qmails = accounts.qmailq.uid, accounts.qmails.uid

    def write(self, mail: Mail, channel: Channel, due: int) -> None:
        """One message."""
        messid = MessId(_create(self._mess, self._new, mail.content, self._qmailq))
        os.rename(  # noqa: TID251
            self._new,
            str(messid),
            src_dir_fd=self._mess,
            dst_dir_fd=self._dirs.of("mess", messid),
        )
        info = b"F%b\0" % mail.sender
        records = b"".join(b"T%b\0" % recip for recip in mail.recips)
        for kind, content, mtime in (
            ("info", info, None),
            (channel.value, records, due),
        ):
            directory = self._dirs.of(kind, messid)
            _create(directory, str(messid), content, self._qmails, mtime)


def _create(
    directory: int, name: str, content: bytes, uid: int, mtime: int | None = None
) -> int:
    """A file of that account; its inode number, by which messages are called."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    fd = os.open(name, flags, 0o644, dir_fd=directory)
    os.fchown(fd, uid, -1)
    os.write(fd, content)
    if mtime is not None:
        os.utime(fd, (mtime, mtime))
    number = os.fstat(fd).st_ino
    os.close(fd)
    return number
