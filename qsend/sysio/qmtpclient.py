"""One QMTP or QMQP client of a listener.

What is said is formats/qmtp.py's. One task serves the connection from its first byte
to its last, and has no more of a message in memory than was just read.
Source: qmail-qmtpd.c, qmail-qmqpd.c.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol, assert_never

from qsend.core.access import ALLOWED, Access, Client
from qsend.core.errors import RemoteProtocolError
from qsend.core.loginbrake import network
from qsend.core.model import Letter as Outcome
from qsend.core.mx import canonical
from qsend.core.relay import Refused, Taken, Unlisted
from qsend.formats.qmtp import (
    Abandon,
    Begin,
    Bye,
    Commit,
    Dialogue,
    Envelope,
    Judge,
    Message,
    Say,
    Step,
    accepted,
    failed,
)
from qsend.formats.queuetexts import explain
from qsend.formats.smtpreceived import render_smtp_received
from qsend.sysio import clock
from qsend.sysio.intakeline import Letter
from qsend.sysio.patience import Patience
from qsend.sysio.runnerline import Intake, ProgramLetter

READ_MAX = 65536
SESSION_S = 3600.0
"""No connection lasts longer (qmail-qmtpd.c, qmail-qmqpd.c)."""
_LINGER_S = 30.0
"""How long the last words to a client may take."""


class Desk(Protocol):
    """What a client needs of the process, and of the service that it came for."""

    @property
    def me(self) -> bytes:
        """Who we are to it."""

    @property
    def timeout_s(self) -> float:
        """How long it may be silent, or take nothing."""

    def intake(self, client: Client, access: Access) -> Intake:
        """Where the messages of a client go."""

    def lets_in(self, client: Client) -> Access | None:
        """Why it may come in; None when it may not, or nobody knows."""

    def enter(self, client: QmtpClient) -> bool:
        """Whether there is room for one more, in all and from its network."""

    def leave(self, client: QmtpClient) -> None:
        """The client has gone."""

    def note(self, text: str) -> None:
        """Tell the operator, the same thing not too often."""

    def dialogue(self, access: Access) -> Dialogue:
        """What to speak with a client that came in so."""

    async def settle(self, unlisted: Unlisted) -> Taken | Refused:
        """Whether a recipient is taken."""


class QmtpClient:
    """One connection."""

    def __init__(
        self, desk: Desk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        peer = str((writer.get_extra_info("peername") or ("0.0.0.0",))[0])
        self._client = Client(address=canonical(peer.partition("%")[0]))
        self.network = network(self._client.address.encode())
        self._desk = desk
        self._reader = reader
        self._writer = writer
        self._access = ALLOWED
        self._letter: Letter | ProgramLetter | None = None
        self._patience = Patience(asyncio.get_running_loop(), self.abort)

    def abort(self) -> None:
        """Cut the client off."""
        self._writer.transport.abort()

    async def serve(self) -> None:
        """Serve it to its end."""
        access = self._desk.lets_in(self._client)
        if access is None or not self._desk.enter(self):
            self._writer.close()
            return
        try:
            async with asyncio.timeout(SESSION_S):
                self._access = access
                await self._converse(self._desk.dialogue(access))
        except RemoteProtocolError as exc:
            self._desk.note(f"{self._client.address}: {exc}")
        except TimeoutError:
            self.abort()  # it does not listen either
        except (OSError, EOFError):
            pass
        except Exception as exc:  # noqa: BLE001 - the outermost frame of a session
            text = f"session with {self._client.address} broke down: {exc!r}"
            self._desk.note(text)
        finally:
            self._abandon()
            await self._hang_up()
            self._patience.cancel()
            self._desk.leave(self)

    async def _converse(self, talk: Dialogue) -> None:
        """Raises: EOFError when the client has said all, TimeoutError, OSError,
        RemoteProtocolError.
        """
        while True:
            step = talk.next()
            if step is None:
                talk.feed(await self._read())
            elif isinstance(step, Bye):
                return
            else:
                await self._do(step, talk)

    async def _do(self, step: Step, talk: Dialogue) -> None:
        match step:
            case Begin():
                self._begin(talk)
            case Message() | Envelope():
                await self._give(step)
            case Judge(unlisted=unlisted):
                talk.judged(await self._desk.settle(unlisted))
            case Commit():
                talk.queued(await self._commit())
            case Abandon():
                self._abandon()
            case Say(text=text):
                await self._say(text)
            case Bye():
                pass
            case _:
                assert_never(step)

    # The message

    def _begin(self, talk: Dialogue) -> None:
        self._letter = self._desk.intake(self._client, self._access).begin()
        self._letter.write(
            render_smtp_received(
                address=self._client.address.encode(),
                host=self._client.host,
                info=self._client.info,
                helo=None,
                local=self._desk.me,
                protocol=talk.PROTOCOL,
                now=clock.now(),
            )
        )

    async def _give(self, step: Message | Envelope) -> None:
        assert self._letter is not None
        if isinstance(step, Message):
            self._letter.write(step.data)
        else:
            self._letter.envelope(step.data)
        await self._letter.room()

    async def _commit(self) -> bytes:
        letter, self._letter = self._letter, None
        assert letter is not None
        queued = await letter.finish()
        outcome, text = explain(queued.code, queued.custom)
        if outcome is Outcome.SUCCESS:
            return accepted(clock.now(), queued.qp)
        return failed(outcome, text)

    def _abandon(self) -> None:
        letter, self._letter = self._letter, None
        if letter is not None:
            letter.abort()

    # Bytes

    # Who is late is cut off, and what waits for it ends with EOFError or OSError.

    async def _read(self) -> bytes:
        self._patience.give(self._desk.timeout_s)
        data = await self._reader.read(READ_MAX)
        # While we work, and while the disk does, it may be silent.
        self._patience.give(SESSION_S)
        if not data:
            raise EOFError
        return data

    async def _say(self, text: bytes) -> None:
        self._patience.give(self._desk.timeout_s)
        self._writer.write(text)
        await self._writer.drain()
        self._patience.give(SESSION_S)

    async def _hang_up(self) -> None:
        self._patience.give(_LINGER_S)
        self._writer.close()
        try:
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        finally:
            self.abort()
