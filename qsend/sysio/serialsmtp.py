"""Sending the files named on a descriptor over one SMTP connection, one by one.

Blocking, over two descriptors as a UCSPI client has them (6 to read, 7 to write).
Must not do: connect, remove files.
Source: serialsmtp(1), serialsmtp.c; RFC 5321, 2920. Unlike it: a message without a
final line end gets one, which there ends the connection, for good, as the message is
the first again next time; a lone CR goes out as a line end; an address that SMTP
cannot carry is a failure; 2yz where 3yz is due, or the reverse, is no success; a
reply has its time limit as a whole; the quotes of a Return-Path are not sent twice.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from qsend.core.address import quote
from qsend.core.errors import RemoteProtocolError, TempFail
from qsend.core.model import Letter
from qsend.core.smtpaddress import is_sendable, unsendable_answer
from qsend.core.smtptypes import Command, Reply, Verb
from qsend.formats.serialmail import HEAD_MAX, Head, Result, parse_head
from qsend.formats.smtp import ContentEncoder, ReplyReader, render_commands
from qsend.sysio import clock

READ_S = 81.0
"""Longest wait for a reply (serialsmtp.c)."""
WRITE_S = 73.0
"""Longest wait until the peer takes more (serialsmtp.c)."""

_CHUNK_BYTES = 65536
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_RSET = Command(Verb.RSET)


class SessionRefused(TempFail):
    """The server takes no mail from us now; nothing was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """Both directions of the connection, and what is put in front of replies."""

    reading: int
    writing: int
    remote: bytes


class Serial:
    """One connection, used for any number of messages."""

    def __init__(
        self, wire: Wire, prefix: bytes, report: Callable[[Result], None]
    ) -> None:
        """Nothing is read or written before `open`.

        Args:
            prefix: what recipients in Delivered-To lines begin with; taken off.
            report: gets the result of each message.
        """
        self._wire = wire
        self._prefix = prefix
        self._report = report
        self._reader = ReplyReader()
        self._is_pipelining = False
        self._needs_reset = False
        for fd in (wire.reading, wire.writing):
            try:
                os.set_blocking(fd, False)
            except OSError:
                pass  # told when it is used

    def open(self, helo: bytes) -> None:
        """Wait for the greeting and give our name.

        Raises: SessionRefused; TempFail when the connection is lost.
        """
        if self._reply().code != 220:
            self.quit()
            raise SessionRefused("connected but greeting failed")
        reply = self._ask(Command(Verb.EHLO, helo))
        if reply.code == 250:
            self._is_pipelining = _offers_pipelining(reply.text)
            return
        if self._ask(Command(Verb.HELO, helo)).code != 250:
            self.quit()
            raise SessionRefused("connected but my name was rejected")

    def send(self, name: bytes) -> None:
        """Send one file, if its recipient has the prefix; report how it went.

        A file that is gone is passed over: somebody has taken it.
        Raises: TempFail when the connection is lost, the peer breaks the protocol, or
            the file cannot be read: no other message can be sent.
        """
        try:
            fd = os.open(name, _OPEN)
        except FileNotFoundError:
            return
        except OSError as exc:
            raise _unopened(name, exc) from exc
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _unopened(name, OSError(errno.EINVAL, "not a file"))
            self._send(name, fd)
        finally:
            os.close(fd)

    def quit(self) -> None:
        """Say QUIT; nothing depends on it."""
        try:
            self._write(render_commands([Command(Verb.QUIT)]))
        except TempFail:
            pass  # the peer has left first

    def _send(self, name: bytes, fd: int) -> None:
        head = parse_head(_read_at(fd, HEAD_MAX, 0))
        if head is None or not head.recip.startswith(self._prefix):
            return
        recip = head.recip[len(self._prefix) :]
        for address in (head.sender, recip):
            if not is_sendable(address):
                answer = unsendable_answer(is_sender=address is head.sender)
                self._report(Result(name=name, letter=answer.letter, text=answer.text))
                return
        reply = self._transact(head, recip, fd, name)
        if reply is not None:
            self._tell(name, reply)

    def _transact(self, head: Head, recip: bytes, fd: int, name: bytes) -> Reply | None:
        """The reply that decides; None if it has been told already."""
        envelope = [
            Command(Verb.MAIL, quote(head.sender)),
            Command(Verb.RCPT, quote(recip)),
            Command(Verb.DATA),
        ]
        commands = [_RSET, *envelope] if self._needs_reset else envelope
        self._needs_reset = True
        if self._is_pipelining:
            reply = self._envelope_at_once(commands, name)
        else:
            reply = self._envelope_in_steps(commands)
        if reply is None or reply.code >= 400:
            return reply
        if reply.code < 300:
            raise _violation()
        self._blast(fd, head.length)
        reply = self._reply()
        if 300 <= reply.code < 400:
            raise _violation()
        return reply

    def _envelope_in_steps(self, commands: Sequence[Command]) -> Reply:
        """The first refusal, or what was said to DATA."""
        reply = Reply(0, b"")
        for command in commands:
            reply = self._ask(command)
            if reply.code >= 400:
                if command is _RSET:
                    raise _violation()
                break
            if reply.code >= 300 and command.verb is not Verb.DATA:
                raise _violation()
        return reply

    def _envelope_at_once(
        self, commands: Sequence[Command], name: bytes
    ) -> Reply | None:
        """What was said to DATA; None after a refusal, which is told by then."""
        self._write(render_commands(commands))
        for command in commands[:-1]:
            reply = self._reply()
            if 300 <= reply.code < 400 or (command is _RSET and reply.code >= 400):
                raise _violation()
            if reply.code >= 400:
                self._tell(name, reply)
                # What follows must be refused as well, or the server would now take
                # a message without an envelope.
                behind = commands[commands.index(command) + 1 :]
                if any(self._reply().code < 400 for _ in behind):
                    raise _violation()
                return None
        return self._reply()

    def _tell(self, name: bytes, reply: Reply) -> None:
        if reply.code >= 500:
            letter = Letter.FAILURE
        else:
            letter = Letter.DEFERRAL if reply.code >= 400 else Letter.SUCCESS
        last = reply.text.rstrip(b"\n").rpartition(b"\n")[2]
        if self._wire.remote:
            last = self._wire.remote + b" said: " + last
        self._report(Result(name=name, letter=letter, text=last + b"\n"))

    def _blast(self, fd: int, at: int) -> None:
        """The message behind its two lines, and the final dot."""
        encoder = ContentEncoder()
        while chunk := _read_at(fd, _CHUNK_BYTES, at):
            at += len(chunk)
            self._write(encoder.encode(chunk))
        self._write(encoder.finish())

    # the connection

    def _ask(self, command: Command) -> Reply:
        self._write(render_commands([command]))
        return self._reply()

    def _reply(self) -> Reply:
        """The next reply. Raises: TempFail."""
        deadline_mono = clock.mono() + READ_S
        try:
            while (reply := self._reader.take()) is None:
                self._reader.feed(self._read(deadline_mono))
        except RemoteProtocolError as exc:
            raise _violation() from exc
        return reply

    def _read(self, deadline_mono: float) -> bytes:
        fd = self._wire.reading
        while True:
            try:
                _wait(fd, select.POLLIN, deadline_mono)
                data = os.read(fd, _CHUNK_BYTES)
            except BlockingIOError:
                continue
            except OSError as exc:
                raise TempFail(f"network read error: {exc.strerror}") from exc
            if not data:
                raise TempFail("network read error: end of file")
            return data

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                _wait(self._wire.writing, select.POLLOUT, clock.mono() + WRITE_S)
                rest = rest[os.write(self._wire.writing, rest) :]
            except BlockingIOError:
                continue
            except OSError as exc:
                raise TempFail(f"network write error: {exc.strerror}") from exc


def _wait(fd: int, event: int, deadline_mono: float) -> None:
    """Raises: OSError ETIMEDOUT."""
    poll = select.poll()
    poll.register(fd, event)
    left_ms = max(0, round((deadline_mono - clock.mono()) * 1000))
    if not poll.poll(left_ms):
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


def _read_at(fd: int, length: int, at: int) -> bytes:
    """Up to `length` bytes from `at`; less only at the end of the file."""
    parts = []
    try:
        while length and (piece := os.pread(fd, length, at)):
            parts.append(piece)
            at += len(piece)
            length -= len(piece)
    except OSError as exc:
        raise TempFail(f"unable to read file: {exc.strerror}") from exc
    return b"".join(parts)


def _offers_pipelining(text: bytes) -> bool:
    """Whether the reply to EHLO, but its first line, names it."""
    return any(line[4:].upper() == b"PIPELINING" for line in text.split(b"\n")[1:])


def _violation() -> TempFail:
    return TempFail("protocol violation")


def _unopened(name: bytes, exc: OSError) -> TempFail:
    return TempFail(f"unable to open {os.fsdecode(name)}: {exc.strerror}")


def names(fd: int) -> Iterator[bytes]:
    """File names from a descriptor, each ended by NUL, as they come.

    Raises: TempFail.
    """
    buffer = b""
    while True:
        try:
            piece = os.read(fd, _CHUNK_BYTES)
        except OSError as exc:
            raise TempFail(f"unable to read input: {exc.strerror}") from exc
        if not piece:
            return
        *found, buffer = (buffer + piece).split(b"\0")
        yield from found


def serve(serial: Serial, helo: bytes, name_fd: int) -> None:
    """The whole conversation. Raises: TempFail."""
    serial.open(helo)
    for name in names(name_fd):
        serial.send(name)
    serial.quit()
