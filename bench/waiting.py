"""Messages that wait until tomorrow, in a queue that outlives the homes it lies in.

A million of them take minutes to make and to delete, so all rounds use the same ones:
each round's home gets the queue, topped up, and gives it back.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.deletion import delete
from bench.letters import SENDER, Letter
from bench.tree import WHERE
from qsend.core.model import SPLIT, Channel
from tests.longqueue import Mail, fill_preprocessed

DOMAINS = 1000
SIZE = 512
WAITS_S = 86400


class Waiting:
    """`count` messages for recipients in DOMAINS domains, a new number for each."""

    def __init__(self, path: Path, count: int) -> None:
        self.count = count
        self._kept = path / "queue"
        self._numbers = range(0)

    def lend(self, queue: Path) -> None:
        """Put them in the place of an empty queue, and make those that lack."""
        tomorrow = int(time.time()) + WAITS_S
        first, end = self._numbers.start, self._numbers.stop
        lack = self.count
        if self._kept.exists():
            shutil.rmtree(queue)
            self._kept.rename(queue)
            lack -= put_off(queue, tomorrow)
        else:
            first = end
        self._numbers = range(first, end + lack)
        mails = map(_mail, range(end, end + lack))
        fill_preprocessed(queue, mails, Channel.REMOTE, tomorrow)

    def take_back(self, queue: Path) -> None:
        """Keep what is left for the next round; nobody works in the queue."""
        queue.rename(self._kept)

    def recips(self) -> Iterator[bytes]:
        """Of all that lie in the queue now, or did since it was made."""
        return map(_recip, self._numbers)


def put_off(queue: Path, due: int) -> int:
    """Let all wait until `due`, or half as long; how many there are."""
    soon = (time.time() + due) / 2
    count = 0
    for part in range(SPLIT):
        with os.scandir(queue / Channel.REMOTE.value / str(part)) as entries:
            for each in entries:
                count += 1
                if each.stat().st_mtime < soon:
                    os.utime(each.path, (due, due))
    return count


def _recip(number: int) -> bytes:
    return b"b%d@d%d.sink.example" % (number, number % DOMAINS)


def _mail(number: int) -> Mail:
    recips = (_recip(number),)
    return Mail(Letter(number, recips, SIZE).content(), SENDER, recips)


@contextmanager
def made(count: int) -> Iterator[Waiting]:
    """Some that are made when they are first lent, and deleted at the end."""
    path = Path(tempfile.mkdtemp(prefix="qsend-bench-waiting-", dir=WHERE))
    try:
        yield Waiting(path, count)
    finally:
        delete(path)
