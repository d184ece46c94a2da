"""qmail-qread: list the preprocessed messages and their recipients.

Needs root or account qmails. Exit codes: 0, also when single messages could not
be read (a line says which); 111, with a line, when the queue could not.
Source: qmail-qread.c; qmail-qread(8). Unlike qmail's, it does not warn of
messages that were delivered while it ran.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.errors import QueueCorrupt, TempFail
from qsend.core.model import Channel, MessId
from qsend.formats.qread import render_recip, render_summary, render_warning
from qsend.formats.recips import parse_recips
from qsend.sysio.fsq import Queue
from qsend.sysio.home import find_home

_HELP = """\
usage: qmail-qread

Lists the messages that have been preprocessed: when they came (GMT), number, size,
sender; below each its recipients, with `done` before those that are finished. Needs
root or account qmails. `qsend queue` knows more: next attempts and last reports.
"""

_FLUSH_BYTES = 65536


def main(argv: Sequence[str]) -> int:
    """Print the list on standard output; there are no arguments."""
    if wants_help(argv):
        return teach(_HELP)
    out = _Output()
    try:
        queue = Queue(f"{find_home(None, os.environ)}/queue")
    except (OSError, TempFail) as exc:
        return out.fatal(f"unable to open the queue: {_words(exc)}")
    try:
        for messid in queue.list_info():
            for line in _lines(queue, messid):
                out.say(line)
    except OSError as exc:
        return out.fatal(f"unable to read the queue: {_words(exc)}")
    finally:
        queue.close()
    return out.end(0)


def _lines(queue: Queue, messid: MessId) -> Iterator[bytes]:
    """Everything about one message; nothing when it is gone or not preprocessed."""
    try:
        if queue.todo_exists(messid):
            return
        sender, birth = queue.read_info(messid)
        yield render_summary(
            messid,
            birth,
            queue.stat_mess(messid).size,
            sender,
            is_bouncing=queue.bounce_exists(messid),
        )
        for channel in Channel:
            yield from _recips(queue, channel, messid)
    except (OSError, QueueCorrupt) as exc:
        if _is_there(queue, messid):
            yield render_warning(messid, _words(exc))


def _recips(queue: Queue, channel: Channel, messid: MessId) -> Iterator[bytes]:
    try:
        content = queue.read_recips(channel, messid)
    except FileNotFoundError:
        return  # nobody left on this channel
    for _offset, is_done, recip in parse_recips(content):
        yield render_recip(channel, recip, is_done=is_done)


def _is_there(queue: Queue, messid: MessId) -> bool:
    try:
        return queue.info_exists(messid)
    except OSError:
        return True  # unknown: better a warning too many


def _words(exc: Exception) -> str:
    return (isinstance(exc, OSError) and exc.strerror) or str(exc)


class _Output:
    """Standard output, written in large pieces; a reader that left is no error."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._bytes = 0
        self._is_read = True

    def say(self, line: bytes) -> None:
        self._parts.append(line)
        self._bytes += len(line)
        if self._bytes >= _FLUSH_BYTES:
            self._flush()

    def fatal(self, problem: str) -> int:
        self.say(f"fatal: {problem}\n".encode())
        return self.end(111)

    def end(self, code: int) -> int:
        self._flush()
        return code

    def _flush(self) -> None:
        rest = memoryview(b"".join(self._parts))
        self._parts, self._bytes = [], 0
        while rest and self._is_read:
            try:
                rest = rest[os.write(1, rest) :]
            except BrokenPipeError:
                self._is_read = False
