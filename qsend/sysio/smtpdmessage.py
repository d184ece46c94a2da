"""A message of an SMTP client on its way into the queue, through filters or not.

Source: docs/ARCHITECTURE.md; qmail-smtpd.c acceptmessage().
"""

from __future__ import annotations

from dataclasses import dataclass

from qsend.core import smtpdreplies as replies
from qsend.core.access import Client
from qsend.core.milter import Refusal
from qsend.core.model import Letter as Outcome
from qsend.core.smtpdsteps import Begin
from qsend.formats.queuetexts import explain
from qsend.formats.smtpreceived import render_smtp_received
from qsend.sysio import clock
from qsend.sysio.filteredletter import FilteredLetter
from qsend.sysio.filters import Filters
from qsend.sysio.intakeline import Letter
from qsend.sysio.runnerline import Intake, ProgramLetter


@dataclass(slots=True, kw_only=True)
class Message:
    """One that has begun."""

    letter: Letter | ProgramLetter | FilteredLetter
    sender: bytes
    recips: tuple[bytes, ...]

    async def finish(self) -> bytes | Refusal:
        """All of it was given: the reply, or that of a filter."""
        queued = await self.letter.commit(self.sender, self.recips)
        if isinstance(queued, Refusal):
            return queued
        outcome, text = explain(queued.code, queued.custom)
        if outcome is Outcome.SUCCESS:
            return b"250 2.0.0 ok %d qp %d\r\n" % (clock.now(), queued.qp)
        return replies.reply(554 if outcome is Outcome.FAILURE else 451, text)


def begin_message(
    step: Begin,
    client: Client,
    login: bytes | None,
    me: bytes,
    intake: Intake,
    filters: Filters | None,
) -> Message:
    """A new one, its Received field written; `me` is who we are to the client."""
    received = render_smtp_received(
        address=client.address.encode(),
        host=client.host,
        info=login or client.info,
        helo=step.helo,
        local=me,
        protocol=step.protocol,
        now=clock.now(),
    )
    letter: Letter | ProgramLetter | FilteredLetter
    if filters is None:
        letter = intake.begin()
        letter.write(received)
    else:
        letter = FilteredLetter(filters, intake, received)
    return Message(letter=letter, sender=step.sender, recips=step.recips)
