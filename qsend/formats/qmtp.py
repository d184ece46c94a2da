r"""What servers of QMTP and QMQP say and do, without doing it.

    >>> talk = QmqpDialogue()
    >>> talk.feed(b"30:14:Subject: x\n\ny\n,3:a@b,3:c@d,,")
    >>> [talk.next() for _ in range(4)]
    [Begin(), Message(data=b'Subject: x\n\ny\n'), Envelope(data=...), Commit()]
    >>> talk.queued(b"Kok 812345679 qp 1234")
    >>> talk.next()
    Say(text=b'21:Kok 812345679 qp 1234,')

Whoever serves does what each step says, in order, and asks for the next one only when
it is done; None asks for more bytes. What cannot be understood, or is too much, raises
RemoteProtocolError: then the message under way is forgotten, without an answer.
Must not: keep a message, or a list of recipients.
Source: qmail-qmtpd.c, qmail-qmqpd.c; djb's qmtp.txt and qmqp.html.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import Letter
from qsend.core.relay import (
    RECIP_MAX,
    TOO_LONG,
    Refused,
    RelayRules,
    Taken,
    Unlisted,
    judge_recipient,
)
from qsend.formats import netstring
from qsend.formats.netstring import NetstringReader, NetstringTooLong

SENDER_MAX = 999
"""Longest sender (qmail-qmtpd.c)."""
RECIPIENTS_MAX = 100_000
"""Of one QMTP package: each has an answer, which waits for the last of them."""
_BAD_RECIPIENT = b"Dsorry, I can't handle that recipient (#5.1.3)"
_BAD_SENDER = b"Dunacceptable sender (#5.1.7)"
_TOO_LARGE = b"Dsorry, that message size exceeds my databytes limit (#5.3.4)"
_BAD_ADDRESS = b"Dsorry, I can't accept addresses like that (#5.1.3)"
_PIECE = 32768
"""Bytes of an envelope that are given on together."""
_ANSWERS = 500
"""So many at a time, for a client that does not read them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """A message begins; the Received field goes in front of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Bytes of the message, lines ended by LF."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Bytes of the envelope in the form of qmail-queue's descriptor 1."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Find out whether a recipient is taken; then `judged`."""

    unlisted: Unlisted


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Message and envelope are complete: have them queued; then `queued`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon:
    """Forget the message that was begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """Send the text."""

    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bye:
    """Hang up when all is sent."""


def accepted(now: int, qp: int) -> bytes:
    """The result of a message that is queued; `now` in seconds since the epoch."""
    return b"Kok %d qp %d" % (now, qp)


def failed(letter: Letter, text: str) -> bytes:
    """The result of a message that is not; as formats.queueexit.explain says."""
    return letter.value + text.encode("utf-8", "surrogateescape")


Step = Begin | Message | Envelope | Judge | Commit | Abandon | Say | Bye
T = TypeVar("T")
Steps = Generator[Step | None, None, T]
"""Steps as they come; None among them asks for bytes."""


class Dialogue:
    """One connection; QmtpDialogue or QmqpDialogue."""

    PROTOCOL: ClassVar[bytes]
    """The word for the Received field."""

    def __init__(self) -> None:
        self._reader = NetstringReader()
        self._talk = self._converse()
        self._verdict: Taken | Refused | None = None
        self._result = b""
        self._envelope = bytearray()

    # The driver's side

    def feed(self, data: bytes) -> None:
        """Bytes of the client."""
        self._reader.feed(data)

    def next(self) -> Step | None:
        """What to do now; None: nothing before more bytes come.

        Raises: RemoteProtocolError; NetstringTooLong for what is well said.
        """
        return next(self._talk, Bye())

    def judged(self, verdict: Taken | Refused) -> None:
        """What became of a recipient."""
        self._verdict = verdict

    def queued(self, result: bytes) -> None:
        """What became of the message: K, Z or D, and a text."""
        self._result = result

    # Parts of a conversation

    def _converse(self) -> Steps[None]:
        raise NotImplementedError

    def _open(self) -> Steps[int]:
        while (length := self._reader.open()) is None:
            yield None
        return length

    def _close(self) -> Steps[None]:
        while not self._reader.close():
            yield None

    def _piece(self) -> Steps[bytes]:
        """Some of the netstring that is open; it has bytes left."""
        while not (piece := self._reader.read()):
            yield None
        return piece

    def _address(self, most: int) -> Steps[bytes | None]:
        """A whole netstring; None for one that is no address."""
        length = yield from self._open()
        found = b""
        while self._reader.left:
            piece = yield from self._piece()
            if length <= most:
                found += piece
        yield from self._close()
        return None if length > most or b"\0" in found else found

    def _add(self, record: bytes) -> Steps[None]:
        """Add to the envelope, and give it on when there is enough of it."""
        self._envelope += record
        if len(self._envelope) > _PIECE:
            yield self._take_envelope()

    def _take_envelope(self) -> Envelope:
        step = Envelope(data=bytes(self._envelope))
        self._envelope.clear()
        return step

    def _commit(self) -> Steps[None]:
        """Have it queued; `_result` is the answer then."""
        self._envelope += b"\0"
        yield self._take_envelope()
        yield Commit()


class QmqpDialogue(Dialogue):
    """One message of a client that may send anything, and its answer."""

    PROTOCOL = b"QMQP"

    def _converse(self) -> Steps[None]:
        yield from self._open()
        yield from self._open()
        yield Begin()
        while self._reader.left:
            yield Message(data=(yield from self._piece()))
        yield from self._close()
        is_good = yield from self._addresses()
        yield from self._close()
        if is_good:
            yield from self._commit()
        else:
            self.queued(_BAD_ADDRESS)
        yield Say(text=netstring.render(self._result))

    def _addresses(self) -> Steps[bool]:
        """The envelope; whether it is good. If not the message is abandoned."""
        is_good, kind, most = True, b"F", SENDER_MAX
        while kind == b"F" or self._reader.left:
            address = yield from self._address(most)
            if address is None and is_good:
                is_good = False
                yield Abandon()
            if is_good and address is not None:
                yield from self._add(b"%b%b\0" % (kind, address))
            kind, most = b"T", RECIP_MAX
        return is_good


class QmtpDialogue(Dialogue):
    """Any number of messages, an answer for each recipient of each."""

    PROTOCOL = b"QMTP"

    def __init__(
        self, rules: RelayRules, relay_suffix: bytes | None, databytes: int
    ) -> None:
        """`relay_suffix` as for judge_recipient; of `databytes` 0 is no limit."""
        super().__init__()
        self._rules = rules
        self._relay_suffix = relay_suffix
        self._databytes = databytes

    def _converse(self) -> Steps[None]:
        while True:
            yield from self._package()

    def _package(self) -> Steps[None]:
        refusal = yield from self._message()
        sender = yield from self._address(SENDER_MAX)
        if not refusal and sender is None:
            refusal = _BAD_SENDER
            yield Abandon()
        elif not refusal and sender is not None:
            yield from self._add(b"F%b\0" % sender)
        answers = _Answers()
        yield from self._open()
        while self._reader.left:
            if len(answers) == RECIPIENTS_MAX:
                raise NetstringTooLong(f"more than {RECIPIENTS_MAX} recipients")
            yield from self._recipient(answers, is_wanted=not refusal)
        yield from self._close()
        if refusal:
            self.queued(refusal)
        elif answers.has_taken:
            yield from self._commit()
        else:
            self._envelope.clear()
            yield Abandon()
        for text in answers.render(self._result):
            yield Say(text=text)

    def _message(self) -> Steps[bytes]:
        """The message; why it is refused, b"" for one that is under way."""
        encoding = b""
        if (yield from self._open()):
            piece = yield from self._piece()
            encoding, piece = piece[:1], piece[1:]
        if encoding not in (b"\n", b"\r"):
            raise RemoteProtocolError("expected a message that begins with LF or CR")
        lines = _Lines(has_cr=encoding == b"\r")
        yield Begin()
        is_small = yield from self._give(lines.take(piece), lines)
        while self._reader.left:
            piece = yield from self._piece()
            if is_small:
                is_small = yield from self._give(lines.take(piece), lines)
        if is_small:
            is_small = yield from self._give(lines.end(), lines)
        yield from self._close()
        return b"" if is_small else _TOO_LARGE

    def _give(self, data: bytes, lines: _Lines) -> Steps[bool]:
        """Give bytes on; False when the message has become too large."""
        if 0 < self._databytes < lines.size:
            yield Abandon()
            return False
        if data:
            yield Message(data=data)
        return True

    def _recipient(self, answers: _Answers, *, is_wanted: bool) -> Steps[None]:
        recip = yield from self._address(RECIP_MAX)
        if recip is None:
            answers.add(_BAD_RECIPIENT)
            return
        verdict = judge_recipient(recip, self._rules, self._relay_suffix)
        if isinstance(verdict, Unlisted):
            yield Judge(unlisted=verdict)
            assert self._verdict is not None
            verdict = self._verdict
        if isinstance(verdict, Refused):
            answers.add(_refusal(verdict))
            return
        answers.add(b"")
        if is_wanted:
            yield from self._add(b"T%b\0" % verdict.recip)


def _refusal(refused: Refused) -> bytes:
    if refused.text == TOO_LONG:
        return _BAD_RECIPIENT
    letter = Letter.FAILURE if refused.is_permanent else Letter.DEFERRAL
    return failed(letter, refused.text)


class _Lines:
    """A message on its way to lines that end in LF; `size` counts what was given."""

    def __init__(self, *, has_cr: bool) -> None:
        self.size = 0
        self._has_cr = has_cr
        self._held = b""

    def take(self, data: bytes) -> bytes:
        """More of it; a last CR waits for what follows it."""
        if self._has_cr:
            data = self._held + data
            self._held = b"\r" if data[-1:] == b"\r" else b""
            data = data.removesuffix(b"\r").replace(b"\r\n", b"\n")
        self.size += len(data)
        return data

    def end(self) -> bytes:
        """What still waits."""
        self.size += len(self._held)
        return self._held


class _Answers:
    """The answers to the recipients of one package, in their order."""

    def __init__(self) -> None:
        self.has_taken = False
        """Whether one recipient waits for the message's own answer."""
        self._texts: list[bytes] = []
        self._known: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: bytes) -> None:
        """One more; b"" for what becomes of the message."""
        # Few differ: a hundred thousand must not have a text each.
        self._texts.append(self._known.setdefault(text, text))
        self.has_taken |= not text

    def render(self, result: bytes) -> Iterator[bytes]:
        """All as netstrings, some at a time."""
        for at in range(0, len(self._texts), _ANSWERS):
            some = self._texts[at : at + _ANSWERS]
            yield b"".join(netstring.render(text or result) for text in some)
