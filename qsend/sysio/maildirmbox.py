"""Moving the messages of a maildir into an mbox file.

The mbox is locked, written anew beside the old one, and renamed: a reader sees the
old or the new file, and a message is removed only when it is durable in the new one.
Source: maildir2mbox(1), maildir2mbox.c, maildir.c, maildir(5). Unlike it: an
unterminated last line is kept, and an mbox that was replaced while we waited for its
lock is locked anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from typing import BinaryIO

from qsend.core.errors import TempFail
from qsend.core.localenv import from_line
from qsend.formats.mbox import MboxText
from qsend.sysio import clock, maildirscan
from qsend.sysio.maildirscan import Entry
from qsend.sysio.replacefile import replace_file

_CHUNK_BYTES = 65536
_LINE_MAX = 4096
_UNKNOWN = b"XXX"


def move_messages(maildir: str, mbox: str, tmp: str) -> list[str]:
    """Append the maildir's messages, oldest first, to the mbox.

    Args:
        mbox, tmp: files of one file system; relative ones start at `maildir`, which
            becomes the current directory.
    Returns: paths below the maildir of messages that are in the mbox and could not be
        removed; they would come twice.
    Raises: TempFail; then the mbox is as it was, and all messages are where they were.
    """
    try:
        os.chdir(maildir)
    except OSError as exc:
        raise TempFail(f"unable to chdir to {maildir}: {exc.strerror}") from exc
    now = clock.now()
    maildirscan.clean(now)
    entries = maildirscan.scan(now)
    if entries:
        with _locked(mbox):
            _append(mbox, tmp, entries)
    return [entry.path for entry in entries if not _remove(entry.path)]


@contextlib.contextmanager
def _locked(mbox: str) -> Iterator[None]:
    """Hold the lock of the mbox, which is made if there is none."""
    fd = _lock(mbox)
    try:
        yield
    finally:
        os.close(fd)


def _lock(mbox: str) -> int:
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    while True:
        try:
            fd = os.open(mbox, flags, 0o600)
        except OSError as exc:
            raise TempFail(f"unable to lock {mbox}: {exc.strerror}") from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(fd), os.stat(mbox)):
                return fd
        except FileNotFoundError:
            pass  # it was removed while we waited
        except OSError as exc:
            os.close(fd)
            raise TempFail(f"unable to lock {mbox}: {exc.strerror}") from exc
        os.close(fd)


def _append(mbox: str, tmp: str, entries: list[Entry]) -> None:
    def write(file: BinaryIO) -> None:
        with open(mbox, "rb") as old:
            shutil.copyfileobj(old, file, _CHUNK_BYTES)
        for entry in entries:
            _copy(entry, file)

    try:
        replace_file(mbox, tmp, write, 0o600)
    except OSError as exc:
        name = f"$MAILDIR/{exc.filename}" if exc.filename else tmp
        raise TempFail(f"unable to read {name} or write {tmp}: {exc.strerror}") from exc


def _copy(entry: Entry, file: BinaryIO) -> None:
    with open(entry.path, "rb") as message:
        first = message.readline(_LINE_MAX)
        file.write(from_line(_sender(first), entry.mtime))
        text = MboxText()
        file.write(text.feed(first))
        while chunk := message.read(_CHUNK_BYTES):
            file.write(text.feed(chunk))
        file.write(text.finish())


def _sender(first_line: bytes) -> bytes:
    """What follows `From `; b"" is the null sender."""
    if first_line.startswith(b"Return-Path: <") and first_line.endswith(b">\n"):
        return first_line[14:-2]
    return _UNKNOWN


def _remove(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True
