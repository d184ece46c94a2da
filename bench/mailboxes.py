"""The Maildirs that local mail goes to, made once for all rounds and peers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.deletion import delete
from bench.letters import number_of
from bench.sink import Arrival
from bench.tree import WHERE, far_apart

UID = 64810
HEAD = 4096
"""Bytes of a delivered message in which its number stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailboxes:
    """`count` homes u0, u1 ... below `path`, each with a Maildir.

    With `own_uids` each has a uid of its own, from UID up, else all have UID.
    """

    path: Path
    count: int
    own_uids: bool

    def uid(self, number: int) -> int:
        """Who owns a home; its group has the same number."""
        return UID + number if self.own_uids else UID

    def home(self, number: int) -> Path:
        """The home of u<number>."""
        return self.path / f"u{number}"

    def recip(self, number: int, host: str) -> bytes:
        """The address for message `number`: they take turns."""
        return b"u%d@%b" % (number % self.count, host.encode())

    def arrivals(self) -> Iterator[tuple[int, int, Arrival]]:
        """What lies in the Maildirs: mailbox, message number, and when it came."""
        for box in range(self.count):
            with os.scandir(self.home(box) / "Maildir/new") as entries:
                for each in entries:
                    with open(each.path, "rb") as file:
                        number = number_of(file.read(HEAD))
                    # A rename or link into new/ sets the time of status change.
                    at = each.stat().st_ctime_ns / 1e9
                    yield box, number, Arrival(at, b"%d" % number)

    def delivered(self) -> int:
        """How many messages lie there."""
        return sum(
            len(os.listdir(self.home(box) / "Maildir/new")) for box in range(self.count)
        )

    def renew(self) -> None:
        """Empty Maildirs in the place of those there are, which stay until the end."""
        old = f"old{len(list(self.home(0).iterdir()))}"
        for box in range(self.count):
            (self.home(box) / "Maildir").rename(self.home(box) / old)
            self._make_maildir(box)

    def make(self) -> None:
        """Make the homes, on such a file system far from each other."""
        far_apart(self.path)
        for box in range(self.count):
            self._mkdir(self.home(box), box)
            self._make_maildir(box)

    def _make_maildir(self, box: int) -> None:
        for each in ("Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"):
            self._mkdir(self.home(box) / each, box)

    def _mkdir(self, path: Path, box: int) -> None:
        path.mkdir(mode=0o700)
        os.chown(path, self.uid(box), self.uid(box))


@contextmanager
def made(count: int, *, own_uids: bool = False) -> Iterator[Mailboxes]:
    """Make them, and delete them at the end."""
    path = Path(tempfile.mkdtemp(prefix="qsend-bench-mail-", dir=WHERE))
    path.chmod(0o755)
    boxes = Mailboxes(path=path, count=count, own_uids=own_uids)
    try:
        boxes.make()
        yield boxes
    finally:
        delete(path)
