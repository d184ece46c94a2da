"""One maildir as a POP3 session sees it; works in the current directory.

The list is made once. Whatever others do meanwhile (another session, a mail reader,
a delivery), a message is found again by the unique part of its name, or is gone; it
is never taken for another. Nothing is changed before `finish`.
Source: maildir(5); qmail-pop3d.c. Unlike qmail-pop3d, messages of this second are
listed too, and one that another session has moved is still found.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from qsend.core.errors import TempFail
from qsend.sysio import clock, maildirscan

UID_MAX = 70
"""Longest answer of UIDL (RFC 1939 section 7)."""
_NEW, _CUR = b"new", b"cur"
_PLAIN_FLAGS = b":2,"


@dataclass(slots=True, kw_only=True, order=True)
class Message:
    """One message; the older one is less.

    `unique` is its name up to the colon, `path` where it was seen last. `is_single`:
    no other message has its unique part, so that it may be looked for by it.
    """

    mtime_ns: int
    unique: bytes
    path: bytes
    size: int = field(compare=False)
    uid: bytes = field(default=b"", compare=False)
    is_single: bool = field(default=True, compare=False)


class PopMaildir:
    """The messages, by index from 0, oldest first."""

    def __init__(self) -> None:
        """Clean tmp and list new and cur. Raises: TempFail when that fails."""
        maildirscan.clean(clock.now())
        self.messages = sorted(
            message for name in (_NEW, _CUR) for message in _scan(name)
        )
        _name_all(self.messages)

    def open(self, index: int) -> int:
        """A descriptor of the message's file; the caller owns it.

        Raises: OSError; FileNotFoundError when somebody has removed it.
        """
        message = self.messages[index]
        try:
            return _open(message.path)
        except FileNotFoundError:
            message.path = _found_again(message, _present())
            return _open(message.path)

    def finish(self, removed: Container[int]) -> bool:
        """Remove messages, and move the others from new to cur.

        Returns: whether all that was to be removed is gone.
        """
        present = _present()
        is_complete = True
        names = {os.path.basename(path) for path in present.values()}
        for index, message in enumerate(self.messages):
            if index in removed:
                is_complete &= _remove(message, present)
            elif message.path.startswith(_NEW + b"/"):
                _move(message.path, names)
        return is_complete


def _scan(directory: bytes) -> Iterator[Message]:
    try:
        with os.scandir(directory) as found:
            for each in found:
                if each.name[:1] == b".":
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = each.stat()
                    if stat.S_ISREG(status.st_mode):
                        yield Message(
                            mtime_ns=status.st_mtime_ns,
                            unique=each.name.partition(b":")[0],
                            path=each.path,
                            size=status.st_size,
                        )
    except OSError as exc:
        raise TempFail(
            f"unable to scan $HOME/Maildir/{directory.decode()}: {exc.strerror}"
        ) from exc


def _name_all(messages: list[Message]) -> None:
    """Give each message an answer to UIDL that no other one has."""
    count = Counter(message.unique for message in messages)
    for message in messages:
        message.is_single = count[message.unique] == 1
        if message.is_single and _is_uid(message.unique):
            message.uid = message.unique
        else:
            name = message.unique if message.is_single else message.path
            message.uid = hashlib.sha256(name).hexdigest().encode()


def _is_uid(name: bytes) -> bool:
    return 0 < len(name) <= UID_MAX and all(33 <= byte <= 126 for byte in name)


def _open(path: bytes) -> int:
    # It is checked again: what was a file may be a FIFO by now.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError
    return fd


def _present() -> dict[bytes, bytes]:
    """Unique part to path of what is there now."""
    return {
        name.partition(b":")[0]: b"%b/%b" % (directory, name)
        for directory in (_NEW, _CUR)
        for name in os.listdir(directory)
    }


def _found_again(message: Message, present: dict[bytes, bytes]) -> bytes:
    """Where the message is now. Raises: FileNotFoundError when it is gone."""
    path = present.get(message.unique) if message.is_single else None
    if path is None:
        raise FileNotFoundError
    return path


def _remove(message: Message, present: dict[bytes, bytes]) -> bool:
    """Whether the message is gone afterwards."""
    try:
        try:
            os.unlink(message.path)
        except FileNotFoundError:
            os.unlink(_found_again(message, present))
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _move(path: bytes, names: Container[bytes]) -> None:
    """From new to cur, unless a message of that name is there already.

    One that cannot be moved stays new, as with qmail-pop3d.
    """
    name = os.path.basename(path)
    moved = name if b":" in name else name + _PLAIN_FLAGS
    if moved == name or moved not in names:
        with contextlib.suppress(OSError):
            os.rename(path, b"%b/%b" % (_CUR, moved))
