"""The values an SMTP client deals in: commands, replies, outcomes, actions.

Must not do: decide anything beyond how an outcome reads for one recipient.
Source: RFC 5321; qmail-remote.c and qmail-rspawn.c report() for the outcomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, TypeAlias

from qsend.core.model import Cause, Letter


class Verb(bytes, Enum):
    """The commands a client sends."""

    EHLO = b"EHLO"
    HELO = b"HELO"
    STARTTLS = b"STARTTLS"
    AUTH_PLAIN = b"AUTH PLAIN"
    AUTH_LOGIN = b"AUTH LOGIN"
    CREDENTIAL = b""
    """No command: what AUTH LOGIN asks for."""
    MAIL = b"MAIL"
    RCPT = b"RCPT"
    DATA = b"DATA"
    RSET = b"RSET"
    QUIT = b"QUIT"


class Command(NamedTuple):
    """One command line.

    `arg` is the host name of EHLO and HELO, or the quoted address of MAIL and
    RCPT, or what AUTH PLAIN and CREDENTIAL tell, not yet in base64. `size` in bytes
    and `eight_bit` become parameters of MAIL.
    """

    verb: Verb
    arg: bytes = b""
    size: int | None = None
    eight_bit: bool = False


class Reply(NamedTuple):
    """One whole reply.

    `code` is 200 to 599. `text` is what the peer said: its lines with their
    codes, each ending in LF, without CR and NUL, bounded by the decoder.
    """

    code: int
    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One message's envelope as the client sends it.

    `sender` and `recips` (1 or more) are unquoted addresses without CR, LF, NUL.
    `size` counts the bytes of the content; `eight_bit` says whether any of them
    is above 127.
    """

    sender: bytes
    recips: Sequence[bytes]
    size: int
    eight_bit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A delivery's letter and the text that goes with it."""

    letter: Letter
    text: bytes
    cause: Cause = Cause.NORMAL


class Fate(Enum):
    """What the peer said to one RCPT; the value is qmail-remote's item byte."""

    ACCEPTED = b"r"
    DEFERRED = b"s"
    REFUSED = b"h"


class RecipAnswer(NamedTuple):
    """The answer to one RCPT.

    `text` is b"" of an accepted recipient. `is_later` marks a deferred one that
    may be tried in a next transaction at once (452 after an accepted RCPT).
    """

    fate: Fate
    text: bytes = b""
    is_later: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one transaction ended.

    `recips` answers the first recipients of the envelope, in order; it is short
    or empty when the transaction ended before all were asked. `verdict` is
    qmail-remote's message item: what holds for the accepted recipients, and for
    those not asked. `giving_up` is the line that ends a refused recipient's
    report. `is_untouched`: the connection ended before the peer answered
    anything of this transaction, so that nothing can have been delivered.
    `session` is a line about the session's encryption that ends every report, b""
    in clear.
    """

    recips: Sequence[RecipAnswer]
    verdict: Answer
    giving_up: bytes
    is_untouched: bool = False
    session: bytes = b""

    def answer(self, index: int) -> Answer | None:
        """What to report for one recipient; None: put it into a next transaction.

        Source: qmail-rspawn.c report().
        """
        answer = self._answer(index)
        if answer is None or not self.session:
            return answer
        return replace(answer, text=answer.text + self.session)

    def _answer(self, index: int) -> Answer | None:
        if index >= len(self.recips):
            return self.verdict
        said = self.recips[index]
        if said.fate is Fate.ACCEPTED:
            return self.verdict
        if said.is_later and self.verdict.letter is Letter.SUCCESS:
            return None
        letter = Letter.FAILURE if said.fate is Fate.REFUSED else Letter.DEFERRAL
        return Answer(letter=letter, text=said.text + self.giving_up)

    def items(self) -> bytes:
        r"""The transaction as qmail-remote prints it.

        One item per recipient asked, `r`, `h` or `s` and its text, then one
        message item `K`, `Z` or `D` and its text; each ends in NUL.
        """
        parts = [said.fate.value + said.text for said in self.recips]
        parts.append(self.verdict.letter.value + self.verdict.text + self.session)
        return b"".join(part.replace(b"\0", b"?") + b"\0" for part in parts)


class Send(NamedTuple):
    """Write these commands, all in one write; each gets one reply."""

    commands: Sequence[Command]


class SendContent(NamedTuple):
    """Write the encoded content and its final dot, then call `Client.sent`."""


class SendDot(NamedTuple):
    """Write the final dot alone: there is nobody to receive the content."""


class Secure(NamedTuple):
    """Begin TLS on the connection, then call `Client.secured` or `unsecured`."""


class Ready(NamedTuple):
    """The connection can serve a transaction now."""


class Failed(NamedTuple):
    """The session never came up; try another host. The connection is over.

    `is_busy`: the peer said 421, it takes no more sessions just now.
    `is_insecure`: TLS could not be made; without it the session might come up.
    """

    answer: Answer
    is_busy: bool = False
    is_insecure: bool = False


class Done(NamedTuple):
    """The transaction is over; Ready or Close follows, now or later."""

    outcome: Outcome


class Close(NamedTuple):
    """Close the connection; nothing more will be sent."""


Action: TypeAlias = (
    Send | SendContent | SendDot | Secure | Ready | Failed | Done | Close
)
