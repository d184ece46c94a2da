"""Doing what a sendmail user's .forward file says.

Programs and files of a line are served at once, from right to left; all addresses
together at the end. Programs and files count only in a file that belongs to the user
or root and that nobody else may write to.
Source: dot-forward(1), dot-forward.c. Unlike it: `/file` appends to an mbox file of
the user's, `:include:file` reads more of the same kind.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from qsend.core.dotqmail import Effect, effect
from qsend.core.errors import PermFail, TempFail
from qsend.formats.addressitems import (
    Domains,
    Include,
    Item,
    Name,
    complete,
    parse_items,
)
from qsend.formats.control import Durability
from qsend.sysio import stdin
from qsend.sysio.boundedread import read_most
from qsend.sysio.childprogram import NotStarted, run_fed
from qsend.sysio.mbox import Mboxes
from qsend.sysio.messagefile import MessageFile

FILE_MAX = 16 << 20
"""Longest file read: some 500,000 addresses."""
_DEPTH_MAX = 10
"""Files included by files included; more is a circle."""
_SHOWN_MAX = 200


class Fate(Enum):
    """What a file wants to become of the message."""

    NOTHING = "there is no such file, or it says nothing"
    DIRECT = "the next line delivers it too"
    DONE = "all is done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Whose file it is; `lines` are the three that programs and mboxes want."""

    user: bytes
    host: bytes
    lines: bytes


@dataclass(frozen=True, slots=True)
class _Source:
    """A file that is open: `may_act` when programs and files in it count."""

    path: str
    content: bytes
    may_act: bool


Forward = Callable[[Sequence[bytes]], None]
"""Queue the message for these addresses. Raises: PermFail, TempFail."""
Say = Callable[[str], None]


class ForwardFiles:
    """Obeys the .forward files of one recipient, for one message on descriptor 0."""

    def __init__(
        self,
        recipient: Recipient,
        domains: Domains,
        forward: Forward,
        say: Say | None,
    ) -> None:
        """With `say` nothing is done, but said."""
        self._recipient = recipient
        self._domains = domains
        self._forward = forward
        self._say = say
        self._addresses: list[bytes] = []
        self._is_direct = False
        self._has_acted = False

    def obey(self, path: str) -> Fate:
        """Do what the file says.

        Raises: PermFail, TempFail; without words when a program has said them. What
            was done before is done.
        """
        source = _open(path)
        if source is None:
            return Fate.NOTHING
        self._addresses, self._is_direct, self._has_acted = [], False, False
        self._read(source, 0)
        if self._addresses:
            self._has_acted = True
            if self._say is None:
                self._forward(self._addresses)
        if self._is_direct:
            return Fate.DIRECT
        return Fate.DONE if self._has_acted else Fate.NOTHING

    def _read(self, source: _Source, depth: int) -> None:
        for line in source.content.split(b"\n"):
            if line[:1] == b"#":
                continue
            for item in _items(line):
                self._serve(item, source, depth)

    def _serve(self, item: Item, source: _Source, depth: int) -> None:
        if isinstance(item, Include):
            self._include(os.fsdecode(item.path), depth + 1)
        elif not item.text:
            return
        elif self._is_recipient(item):
            self._is_direct = True
        elif not item.has_at and item.text[:1] in (b"|", b"/"):
            self._act(item.text, source)
        else:
            address = complete(item, self._domains)
            self._addresses.append(address)
            self._tell("forward", address)

    def _is_recipient(self, item: Name) -> bool:
        mine = self._recipient.user
        if item.has_at:
            mine += b"@" + self._recipient.host
        return item.text.lower() == mine.lower()

    def _include(self, path: str, depth: int) -> None:
        if not path:
            raise TempFail("empty :include: filenames not permitted")
        if depth > _DEPTH_MAX:
            raise TempFail(f"{path} is included too deeply")
        source = _open(path)
        if source is None:
            raise TempFail(f"unable to open {path}: No such file or directory")
        self._read(source, depth)

    def _act(self, text: bytes, source: _Source) -> None:
        if not source.may_act:
            raise TempFail(
                f"{source.path} names a program or file, but others may write to it"
            )
        self._has_acted = True
        if text[:1] == b"|":
            self._tell("pipe through", text[1:])
            if self._say is None:
                self._run(text[1:])
            return
        self._tell("append to", text)
        if self._say is None and text != b"/dev/null":
            self._append(text)

    def _tell(self, what: str, text: bytes) -> None:
        if self._say is not None:
            self._say(f"{what} {os.fsdecode(text)}")

    def _run(self, command: bytes) -> None:
        def content() -> Iterator[bytes]:
            yield self._recipient.lines
            yield from stdin.pieces()

        try:
            code = run_fed(["/bin/sh", "-c", os.fsdecode(command)], content())
        except NotStarted as exc:
            raise TempFail(str(exc)) from exc
        if code:
            raise PermFail if effect(code) is Effect.FAILURE else TempFail
        stdin.rewind()

    def _append(self, path: bytes) -> None:
        folder_fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            Mboxes(Durability.FULL).deliver(
                folder_fd,
                path,
                self._recipient.lines,
                MessageFile(0),
                owner=os.geteuid(),
            )
        finally:
            os.close(folder_fd)


def _open(path: str) -> _Source | None:
    """The file; None when there is none. Raises: TempFail."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise TempFail(f"unable to open {path}: {exc.strerror}") from exc
    try:
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            content = read_most(file.fileno(), FILE_MAX + 1)
    except OSError as exc:
        raise TempFail(f"unable to read {path}: {exc.strerror}") from exc
    if len(content) > FILE_MAX:
        raise TempFail(f"{path} is longer than {FILE_MAX} bytes")
    is_trusted = status.st_uid in (0, os.geteuid())
    is_closed = not status.st_mode & stat.S_IWOTH
    return _Source(path, content, is_trusted and is_closed)


def _items(line: bytes) -> list[Item]:
    try:
        return parse_items(line)
    except PermFail as exc:
        shown = line[:_SHOWN_MAX].decode("utf-8", "backslashreplace")
        raise TempFail(f"unable to parse this line: {shown}") from exc
