"""A POP3 session from its login to its end, on a line to the client.

Runs as the mailbox's user and goes into its maildir; one process, one session.
Source: RFC 1939; qmail-pop3d.c.
"""

from __future__ import annotations

import os
from typing import assert_never

from qsend.core.errors import RemoteProtocolError, TempFail
from qsend.core.pop3 import (
    NO_MAILDIR,
    NO_SCAN,
    NO_SUCH,
    NOT_ALL_REMOVED,
    Listed,
    Send,
    Transaction,
    Update,
)
from qsend.core.pop3auth import OK, TOO_LONG, Say
from qsend.core.pop3lines import Command, Lines
from qsend.core.pop3message import Rendering
from qsend.sysio.clientline import ClientGone, ClientLine
from qsend.sysio.popmaildir import PopMaildir

_PIECE = 65536


def serve(line: ClientLine, maildir: bytes) -> str:
    """Serve the maildir at that path until the client leaves.

    The first thing that the client hears is OK, or why it cannot be served. Nothing
    is changed unless it says QUIT.
    Returns: why the mailbox could not be served, for a log; "" when it was.
    """
    try:
        try:
            os.chdir(maildir)
        except OSError as exc:
            line.write(NO_MAILDIR)
            line.flush()
            return f"unable to enter {os.fsdecode(maildir)}: {exc.strerror}"
        try:
            mailbox = PopMaildir()
        except TempFail as exc:
            line.write(NO_SCAN)
            line.flush()
            return str(exc)
        _Session(line, mailbox).run()
    except ClientGone:
        pass  # without QUIT nothing is changed
    return ""


class _Session:
    def __init__(self, line: ClientLine, mailbox: PopMaildir) -> None:
        self._line = line
        self._mailbox = mailbox
        self._transaction = Transaction(
            [Listed(size=each.size, uid=each.uid) for each in mailbox.messages]
        )

    def run(self) -> None:
        """Serve until QUIT. Raises: ClientGone."""
        lines = Lines()
        self._line.write(OK)
        while True:
            try:
                command = lines.next()
            except RemoteProtocolError:
                self._line.write(TOO_LONG)
                self._line.flush()
                return
            if command is None:
                lines.feed(self._line.read())
            elif not self._obey(command):
                self._line.flush()
                return

    def _obey(self, command: Command) -> bool:
        """Whether the session goes on."""
        match self._transaction.take(command):
            case Say(text=text):
                self._line.write(text)
            case Send(index=index, body_lines=body_lines):
                self._send(index, Rendering(body_lines))
            case Update(removed=removed):
                try:
                    is_complete = self._mailbox.finish(removed)
                except OSError:
                    is_complete = not removed
                self._line.write(OK if is_complete else NOT_ALL_REMOVED)
                return False
            case _ as step:
                assert_never(step)
        return True

    def _send(self, index: int, rendering: Rendering) -> None:
        try:
            fd = self._mailbox.open(index)
        except OSError:
            self._line.write(NO_SUCH)
            return
        try:
            self._line.write(OK)
            while not rendering.is_complete and (piece := self._read(fd)):
                self._line.write(rendering.feed(piece))
        finally:
            os.close(fd)
        self._line.write(rendering.finish())

    def _read(self, fd: int) -> bytes:
        """The next piece. Raises: ClientGone: half a message must not look whole."""
        try:
            return os.read(fd, _PIECE)
        except OSError as exc:
            raise ClientGone from exc
