"""Command lines of a POP3 client, cut from what it sends.

Source: RFC 1939 section 3, RFC 2449 section 4; commands.c of qmail.
"""

from __future__ import annotations

from dataclasses import dataclass

from qsend.core.errors import RemoteProtocolError

LINE_MAX = 1024
"""Longest line: RFC 2449 says 255, but names of mailboxes are addresses, and
passwords may have 512 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One line: the verb in upper case, and what follows its first blank."""

    verb: bytes
    rest: bytes

    @property
    def argument(self) -> bytes:
        """What follows, without blanks around it."""
        return self.rest.strip(b" ")


class Lines:
    """Cuts what is fed; an unfinished line waits for its end."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> None:
        """Take more of what the client sends; then ask `next` until None."""
        self._data += data

    def next(self) -> Command | None:
        """The next command; None when there is no whole line.

        Raises: RemoteProtocolError when the line is too long: there is no telling
            where the next one begins, so hang up.
        """
        end = self._data.find(b"\n", 0, LINE_MAX)
        if end < 0:
            if len(self._data) >= LINE_MAX:
                raise RemoteProtocolError("line too long")
            return None
        line, self._data = self._data[:end], self._data[end + 1 :]
        verb, _, rest = line.removesuffix(b"\r").partition(b" ")
        return Command(verb=verb.upper(), rest=rest)

    def take_rest(self) -> bytes:
        """What was fed and is in no line yet; the reader is empty afterwards."""
        rest, self._data = self._data, b""
        return rest
