"""POP3 after the login: what a client does with the messages of one mailbox.

The numbers of messages are those of the list that the session began with. Nothing
is changed before QUIT. Unlike qmail-pop3d, STAT leaves out deleted messages, as
RFC 1939 wants, and CAPA is answered.
Source: RFC 1939 sections 5 and 6, RFC 2449; qmail-pop3d.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qsend.core.pop3auth import OK, Say, capabilities
from qsend.core.pop3lines import Command

NO_MAILDIR = b"-ERR this user has no $HOME/Maildir\r\n"
NO_SCAN = b"-ERR [SYS/TEMP] unable to scan $HOME/Maildir\r\n"
NO_SUCH = b"-ERR unable to open that message\r\n"
NOT_ALL_REMOVED = b"-ERR unable to unlink all deleted messages\r\n"
_DIGITS_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One message: its size in bytes as stored, and what UIDL says of it."""

    size: int
    uid: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send the message with this index, from 0: all of it, or the header and so
    many lines of the body; if it cannot be opened, NO_SUCH."""

    index: int
    body_lines: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """QUIT: remove the messages with these indices, move all others to cur, send OK
    or NOT_ALL_REMOVED, hang up."""

    removed: frozenset[int]


Step = Say | Send | Update


class _Refused(Exception):
    """The answer is an error; its text."""


class Transaction:
    """One session with one list of messages."""

    def __init__(self, messages: Sequence[Listed]) -> None:
        """Begin; the first line that the client gets is OK."""
        self._messages = messages
        self._deleted: set[int] = set()
        self._last = 0
        self._verbs = {
            b"STAT": self._stat,
            b"LIST": self._list,
            b"UIDL": self._uidl,
            b"RETR": self._retr,
            b"TOP": self._top,
            b"DELE": self._dele,
            b"LAST": self._say_last,
            b"RSET": self._rset,
            b"NOOP": self._noop,
            b"CAPA": self._capa,
            b"QUIT": self._quit,
        }

    def take(self, command: Command) -> Step:
        """What to do about one line."""
        verb = self._verbs.get(command.verb)
        if verb is None:
            return Say(text=b"-ERR unimplemented\r\n")
        try:
            return verb(command.argument)
        except _Refused as exc:
            return Say(text=b"-ERR %b\r\n" % str(exc).encode())

    def _index(self, argument: bytes) -> int:
        number = _number(argument)
        if number == 0:
            raise _Refused("messages are counted from 1")
        if number > len(self._messages):
            raise _Refused("not that many messages")
        if number - 1 in self._deleted:
            raise _Refused("already deleted")
        return number - 1

    def _left(self) -> list[tuple[int, Listed]]:
        """Number and message of all that are not deleted."""
        return [
            (number, message)
            for number, message in enumerate(self._messages, start=1)
            if number - 1 not in self._deleted
        ]

    def _stat(self, _argument: bytes) -> Step:
        left = self._left()
        total = sum(message.size for _, message in left)
        return Say(text=b"+OK %d %d\r\n" % (len(left), total))

    def _list(self, argument: bytes) -> Step:
        if argument:
            index = self._index(argument)
            size = self._messages[index].size
            return Say(text=b"+OK %d %d\r\n" % (index + 1, size))
        return _listing([(n, b"%d" % message.size) for n, message in self._left()])

    def _uidl(self, argument: bytes) -> Step:
        if argument:
            index = self._index(argument)
            uid = self._messages[index].uid
            return Say(text=b"+OK %d %b\r\n" % (index + 1, uid))
        return _listing([(n, message.uid) for n, message in self._left()])

    def _retr(self, argument: bytes) -> Step:
        index = self._index(argument)
        self._last = max(self._last, index + 1)
        return Send(index=index, body_lines=None)

    def _top(self, argument: bytes) -> Step:
        # Without a second number qmail-pop3d sends all.
        number, _, count = argument.partition(b" ")
        index = self._index(number)
        return Send(index=index, body_lines=_number(count.strip()) if count else None)

    def _dele(self, argument: bytes) -> Step:
        index = self._index(argument)
        self._deleted.add(index)
        self._last = max(self._last, index + 1)
        return Say(text=OK)

    def _say_last(self, _argument: bytes) -> Step:
        return Say(text=b"+OK %d\r\n" % self._last)

    def _rset(self, _argument: bytes) -> Step:
        self._deleted.clear()
        self._last = 0
        return Say(text=OK)

    def _noop(self, _argument: bytes) -> Step:
        return Say(text=OK)

    def _capa(self, _argument: bytes) -> Step:
        return Say(text=capabilities(offers_tls=False))

    def _quit(self, _argument: bytes) -> Step:
        return Update(removed=frozenset(self._deleted))


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > _DIGITS_MAX:
        raise _Refused("syntax error")
    return int(text)


def _listing(rows: Sequence[tuple[int, bytes]]) -> Say:
    lines = b"".join(b"%d %b\r\n" % row for row in rows)
    return Say(text=OK + lines + b".\r\n")
