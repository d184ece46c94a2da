"""Queue files made by hand as qmail's own programs make them, and read back."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from qsend.core.model import SPLIT, Channel, MessId
from qsend.formats import paths
from qsend.sysio import clock
from tests.tree.harness import Tree

INJECTOR = 64911
"""Uid and gid of whoever runs the classic qmail-queue."""
QP = 777
RECEIVED = (
    b"Received: (qmail 777 invoked by uid 64911); 9 Sep 2001 01:46:40 -0000\n"
)  # fmt: skip
LOCAL, REMOTE = Channel.LOCAL, Channel.REMOTE


@dataclass(frozen=True)
class Entry:
    """One queue file: who has it, and what is in it."""

    owner: str
    group: str
    mode: int
    mtime: int
    inode: int
    content: bytes


class ClassicQueue:
    """The queue of a tree with the real accounts, in the hands of qmail."""

    def __init__(self, tree: Tree) -> None:
        self.path = tree.home / "queue"

    def add(
        self,
        recips: list[bytes],
        message: bytes = b"Subject: test\n\nbody\n",
        sender: bytes = b"me@elsewhere.example",
    ) -> MessId:
        """As qmail-queue: born in pid/, linked to mess/ by inode; intd/, then todo/."""
        name = self.path / f"pid/{QP}.1000000000.1"
        qmailq = pwd.getpwnam("qmailq").pw_uid
        fd = self._create(name, qmailq, INJECTOR, 0o644)
        messid = MessId(os.fstat(fd).st_ino)
        (self.path / paths.mess(messid)).hardlink_to(name)
        name.unlink()
        _write(fd, RECEIVED + message)
        envelope = b"u%d\0p%d\0F%b\0" % (INJECTOR, QP, sender)
        envelope += b"".join(b"T%b\0" % recip for recip in recips)
        intd = self.path / paths.intd(messid)
        _write(self._create(intd, qmailq, INJECTOR, 0o644), envelope)
        (self.path / paths.todo(messid)).hardlink_to(intd)
        return messid

    def pull_trigger(self) -> None:
        """As qmail-queue, at its end."""
        fd = os.open(self.path / "lock/trigger", os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, b"\0")
        os.close(fd)

    def preprocess(
        self, messid: MessId, *, sender: bytes, birth: int, bounce: bytes = b""
    ) -> None:
        """As qmail-send and qmail-clean: info/N instead of todo/N; perhaps bounce/N."""
        self.put(paths.info(messid), b"F%b\0" % sender, birth)
        if bounce:
            self.put(paths.bounce(messid), bounce, birth)
        (self.path / paths.intd(messid)).unlink()
        (self.path / paths.todo(messid)).unlink()

    def put(self, name: str, content: bytes, mtime: int) -> None:
        """A file of qmail-send's."""
        qmails = pwd.getpwnam("qmails")
        path = self.path / name
        _write(self._create(path, qmails.pw_uid, qmails.pw_gid, 0o600), content)
        os.utime(path, (mtime, mtime))

    def entries(self) -> dict[str, Entry]:
        """All files of messages, by their names below the queue."""
        found = {}
        for path in self.path.rglob("*"):
            if path.is_file() and path.parent.name != "lock":
                status = path.lstat()
                found[str(path.relative_to(self.path))] = Entry(
                    pwd.getpwuid(status.st_uid).pw_name,
                    grp.getgrgid(status.st_gid).gr_name,
                    stat.S_IMODE(status.st_mode),
                    int(status.st_mtime),
                    status.st_ino,
                    path.read_bytes(),
                )
        return found

    def _create(self, path: Path, uid: int, gid: int, mode: int) -> int:
        fd = os.open(path, os.O_WRONLY | os.O_EXCL | os.O_CREAT, 0o600)
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
        return fd


def _write(fd: int, content: bytes) -> None:
    assert os.write(fd, content) == len(content)
    os.fsync(fd)
    os.close(fd)


def place(directory: str, messid: MessId) -> str:
    """The split name, spelled out: qmail's programs find nothing elsewhere."""
    return f"{directory}/{messid % SPLIT}/{messid}"


def ago(seconds: int) -> int:
    """A time in the past, whole seconds."""
    return clock.now() - seconds
