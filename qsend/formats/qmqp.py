r"""What a client of QMQP sends and hears, and who its servers are.

    >>> envelope = EnvelopeNetstrings()
    >>> envelope.feed(b"Fa@b\0Tc@d\0\0")
    b'3:a@b,3:c@d,'

Source: qmail-qmqpc.c; djb's qmqp.html; qmail-control(5).
"""

from __future__ import annotations

from dataclasses import dataclass

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import Letter
from qsend.formats import netstring
from qsend.formats.controllines import lines
from qsend.formats.netstring import NetstringReader
from qsend.formats.queueexit import QueueExit
from qsend.formats.relayhost import parse_host
from qsend.formats.todo import EnvelopeReader

PORT = 628
SERVERS = "qmqpservers"
"""Name of the control file."""
_ANSWER_MAX = 10_000
_LETTERS = {letter.value: letter for letter in Letter}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A QMQP server: `host` is an address or a name."""

    host: str
    port: int


def parse_servers(content: bytes) -> list[Server]:
    """The servers of control/qmqpservers, in order; what names none is passed over.

    `host` or `host:port`; an IPv6 address in brackets if a port follows.
    """
    found = (parse_host(line.strip()) for _, line in lines(content))
    return [
        Server(host=each.host.decode("ascii"), port=each.port or PORT)
        for each in found
        if each is not None
    ]


class EnvelopeNetstrings:
    """Turns an envelope in qmail-queue's form into netstrings, as it comes."""

    def __init__(self) -> None:
        self._reader = EnvelopeReader()
        self._begun = b""

    @property
    def error(self) -> QueueExit:
        """QUEUED, or the exit code for what was fed."""
        return self._reader.error

    @property
    def is_complete(self) -> bool:
        """Whether the last byte that counts was fed."""
        return self._reader.is_complete

    def feed(self, data: bytes) -> bytes:
        """The netstrings of the addresses that are complete now."""
        *whole, self._begun = (self._begun + self._reader.feed(data)).split(b"\0")
        return b"".join(netstring.render(record[1:]) for record in whole)


class AnswerReader:
    """The answer of a server, as it comes."""

    def __init__(self) -> None:
        self._reader = NetstringReader(_ANSWER_MAX)
        self._is_open = False

    def feed(self, data: bytes) -> Letter | None:
        """What the server has decided; None when its answer does not say so yet.

        Raises: RemoteProtocolError for what is no answer.
        """
        self._reader.feed(data)
        if not self._is_open:
            self._is_open = self._reader.open() is not None
        if not self._is_open:
            return None
        if not self._reader.left:
            raise RemoteProtocolError("an empty answer")
        said = self._reader.read()[:1]
        if not said:
            return None
        if said not in _LETTERS:
            raise RemoteProtocolError(f"answer {said!r}")
        return _LETTERS[said]
