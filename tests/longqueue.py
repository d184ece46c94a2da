"""Many messages written straight into a queue, unsynced, without any protocol."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from qsend.core.model import Channel, MessId
from qsend.formats import paths
from qsend.formats.todo import Envelope, render_todo
from qsend.sysio import privilege
from qsend.sysio.accounts import load_accounts
from qsend.sysio.fork import fork_child
from qsend.sysio.queuewriter import QueueWriter


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

    _pid, status = os.waitpid(fork_child(write, []), 0)
    if status:
        raise RuntimeError(f"filling todo/ ended with wait status {status}")


def fill_preprocessed(
    queue: Path, mails: Iterable[Mail], channel: Channel, due: float
) -> None:
    """Write messages that are tried on one channel at `due`, as send leaves them."""
    accounts = load_accounts(single_user=False)
    for mail in mails:
        new = f"{queue}/mess/new"
        messid = MessId(_create(new, mail.content, accounts.qmailq.uid))
        os.rename(new, queue / paths.mess(messid))  # noqa: TID251
        info = queue / paths.info(messid)
        _create(info, b"F%b\0" % mail.sender, accounts.qmails.uid)
        recips = queue / paths.recips(channel, messid)
        records = b"".join(b"T%b\0" % recip for recip in mail.recips)
        _create(recips, records, accounts.qmails.uid)
        os.utime(recips, (due, due))


def _create(path: str | Path, content: bytes, uid: int) -> int:
    """A file of that account; its inode number, by which messages are called."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.fchown(fd, uid, -1)
    os.write(fd, content)
    number = os.fstat(fd).st_ino
    os.close(fd)
    return number
