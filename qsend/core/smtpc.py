"""An SMTP client without I/O: replies in, things to do out, by one state table.

A Client is one connection. It says what to send (commands as values, the
content, the lone dot), when a transaction is over and with what outcome, and
whether the connection can serve another; smtpopening has its first half. With
PIPELINING the envelope goes out at once and the replies are read in the same states
as in lock-step.
Must not do: render or parse bytes (formats.smtp), wait, know descriptors.
Source: RFC 5321, 2920, 1870, 6152; qmail-remote.c smtp() for the rows and the
texts. We differ: EHLO, several recipients and transactions; 2yz where 3yz is
due, or the reverse, is a protocol error and no success; 452 after an accepted
recipient asks for a next transaction (RFC 5321 4.5.3.1.10).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qsend.core.address import quote
from qsend.core.errors import Bug, LocalProtocolError
from qsend.core.model import Letter
from qsend.core.smtpopening import CLEAR, QUIT, Opening, said_text
from qsend.core.smtptable import TABLE, Do, Event, State
from qsend.core.smtptypes import (
    Action,
    Answer,
    Close,
    Command,
    Done,
    Envelope,
    Fate,
    Outcome,
    RecipAnswer,
    Reply,
    Send,
    SendContent,
    SendDot,
    Verb,
)
from qsend.core.tlspolicy import Demand

_CLASSES = {
    2: Event.POSITIVE,
    3: Event.INTERMEDIATE,
    4: Event.TRANSIENT,
    5: Event.PERMANENT,
}
_NO_REPLY = Reply(0, b"")
_RSET = Send((Command(Verb.RSET),))
_DATA = Send((Command(Verb.DATA),))
_ACCEPTED = RecipAnswer(Fate.ACCEPTED)


class Client(Opening):
    """The client's side of one connection, from the greeting to QUIT."""

    __slots__ = (
        "_accepted",
        "_at",
        "_envelope",
        "_is_ahead",
        "_said",
        "_verdict",
    )

    def __init__(self, host: bytes, helo: bytes, demand: Demand = CLEAR) -> None:
        """Begin with the peer's greeting.

        Args:
            host: the peer's address as reports show it.
            helo: the name to say in EHLO.
            demand: whether to use STARTTLS and AUTH. The driver must know Secure,
                and judge the certificate.
        """
        super().__init__(host, helo, demand)
        self._envelope: Envelope | None = None
        self._reset()

    def _reset(self) -> None:
        self._said: list[RecipAnswer] = []
        self._verdict: Answer | None = None
        self._accepted = 0
        self._at = 0
        self._is_ahead = False

    def receive(self, reply: Reply) -> Sequence[Action]:
        """Take one reply; carry out what comes back, in order."""
        if reply.code == 421:
            self._is_leaving = True
        return self._step(_CLASSES[reply.code // 100], reply)

    def garbage(self, reason: bytes) -> Sequence[Action]:
        """The peer sent what is no reply; `reason` is ours, for the report."""
        return self._step(Event.GARBAGE, Reply(0, reason))

    def lost(self) -> Sequence[Action]:
        """The connection ended, or was silent past its deadline."""
        return self._step(Event.LOST, _NO_REPLY)

    def begin(self, envelope: Envelope) -> Sequence[Action]:
        """Start a transaction. Raises: LocalProtocolError unless idle."""
        self._step(Event.BEGIN, _NO_REPLY)
        self._reset()
        self._envelope = envelope
        self._is_ahead = b"PIPELINING" in self._extensions
        self.state = State.MAIL
        size = envelope.size if b"SIZE" in self._extensions else None
        eight_bit = envelope.eight_bit and b"8BITMIME" in self._extensions
        commands = [Command(Verb.MAIL, quote(envelope.sender), size, eight_bit)]
        if self._is_ahead:
            commands += (Command(Verb.RCPT, quote(r)) for r in envelope.recips)
            commands.append(Command(Verb.DATA))
        return (Send(commands),)

    def sent(self) -> Sequence[Action]:
        """The content and its final dot are written."""
        return self._step(Event.SENT, _NO_REPLY)

    def secured(self, session: bytes) -> Sequence[Action]:
        """TLS is up; `session` describes it in reports, in a few words."""
        self._session = session + b"\n"
        return self._step(Event.SECURED, _NO_REPLY)

    def unsecured(self, reason: bytes) -> Sequence[Action]:
        """TLS could not be made; `reason` is ours, for the report."""
        return self._step(Event.UNSECURED, Reply(0, reason))

    def leave(self) -> Sequence[Action]:
        """QUIT. Raises: LocalProtocolError unless idle or closed."""
        return self._step(Event.LEAVE, _NO_REPLY)

    def _step(self, event: Event, reply: Reply) -> Sequence[Action]:
        return _BY_EVENT[self.state, event](self, reply)

    # One transaction.

    def _go_on(self, _reply: Reply) -> Sequence[Action]:
        return ()

    def _sender_ok(self, _reply: Reply) -> Sequence[Action]:
        self.state = State.RCPT
        return () if self._is_ahead else (self._rcpt(),)

    def _rcpt(self) -> Send:
        return Send((Command(Verb.RCPT, quote(self._recips()[self._at])),))

    def _recips(self) -> Sequence[bytes]:
        if self._envelope is None:
            raise Bug("no transaction")
        return self._envelope.recips

    def _sender_refused(self, reply: Reply) -> Sequence[Action]:
        text = b"Connected to %s but sender was rejected.\n" % self._host
        self._verdict = _judged(reply, text)
        if self._is_leaving:
            return self._close(self._outcome(is_untouched=True))
        if not self._is_ahead:
            return self._end_by_rset()
        self.state = State.RCPT  # only to read what is on its way
        return ()

    def _recip_ok(self, _reply: Reply) -> Sequence[Action]:
        self._accepted += 1
        return self._next_recip(_ACCEPTED)

    def _recip_deferred(self, reply: Reply) -> Sequence[Action]:
        is_later = reply.code == 452 and self._accepted > 0
        text = self._dislike(reply)
        return self._next_recip(RecipAnswer(Fate.DEFERRED, text, is_later))

    def _recip_refused(self, reply: Reply) -> Sequence[Action]:
        return self._next_recip(RecipAnswer(Fate.REFUSED, self._dislike(reply)))

    def _dislike(self, reply: Reply) -> bytes:
        return b"%s does not like recipient.\n" % self._host + said_text(reply)

    def _next_recip(self, said: RecipAnswer) -> Sequence[Action]:
        if self._verdict is None:
            self._said.append(said)
        self._at += 1
        if self._at < len(self._recips()):
            return () if self._is_ahead else (self._rcpt(),)
        self.state = State.DATA
        if self._is_ahead:
            return ()
        return (_DATA,) if self._accepted else self._end_by_rset()

    def _data_go(self, _reply: Reply) -> Sequence[Action]:
        if self._accepted and self._verdict is None:
            self.state = State.CONTENT
            return (SendContent(),)
        if self._accepted:
            # MAIL refused, a RCPT accepted: a dot would deliver an empty message.
            return self._close(self._outcome())
        done = Done(self._outcome())
        self.state = State.VOID
        return (SendDot(), done)

    def _data_refused(self, reply: Reply) -> Sequence[Action]:
        if self._accepted and self._verdict is None:
            text = b"%s failed on DATA command.\n" % self._host
            self._verdict = _judged(reply, text)
        return self._end_by_rset()

    def _cut_short(self, reply: Reply) -> Sequence[Action]:
        self._is_leaving = True
        return self._content_refused(reply)

    def _await_dot(self, _reply: Reply) -> Sequence[Action]:
        self.state = State.DOT
        return ()

    def _accepted_message(self, reply: Reply) -> Sequence[Action]:
        text = b"%s accepted message.\n" % self._host + said_text(reply)
        self._verdict = Answer(letter=Letter.SUCCESS, text=text)
        return (Done(self._outcome()), *self._rest(reply))

    def _content_refused(self, reply: Reply) -> Sequence[Action]:
        text = b"%s failed after I sent the message.\n" % self._host
        self._verdict = _judged(reply, text)
        if self._is_leaving:
            return self._close(self._outcome())
        return (Done(self._outcome()), *self._rest(reply))

    def _mangled(self, reply: Reply) -> Sequence[Action]:
        if self._verdict is None:
            self._verdict = Answer(letter=Letter.DEFERRAL, text=self._not_smtp(reply))
        return self._close(self._outcome())

    def _died(self, _reply: Reply) -> Sequence[Action]:
        is_untouched = self.state is State.MAIL
        if self._verdict is None:
            self._verdict = Answer(letter=Letter.DEFERRAL, text=self._died_text())
        return self._close(self._outcome(is_untouched=is_untouched))

    def _outcome(self, *, is_untouched: bool = False) -> Outcome:
        giving_up = b"Giving up on %s.\n" % self._host
        verdict = self._verdict or Answer(letter=Letter.FAILURE, text=giving_up)
        return Outcome(
            recips=self._said,
            verdict=verdict,
            giving_up=giving_up,
            is_untouched=is_untouched,
            session=self._session,
        )

    # Between transactions, and the end.

    def _end_by_rset(self) -> Sequence[Action]:
        if self._is_leaving:
            return self._close(self._outcome())
        done = Done(self._outcome())
        self.state = State.RSET
        return (done, _RSET)

    def _leave(self, _reply: Reply) -> Sequence[Action]:
        self.state = State.QUIT
        return (QUIT,)

    def _close(self, outcome: Outcome) -> Sequence[Action]:
        self.state = State.CLOSED
        return (Done(outcome), Close())

    def _forbid(self, _reply: Reply) -> Sequence[Action]:
        raise LocalProtocolError(f"not now: the connection is in {self.state.name}")


_MOVES: dict[Do, Callable[[Client, Reply], Sequence[Action]]] = {
    Do.GREETED: Client._greeted,
    Do.NAMED: Client._named,
    Do.NAMED_SHORT: Client._named_short,
    Do.FALL_BACK: Client._fall_back,
    Do.FAIL_GREETING: Client._fail_greeting,
    Do.FAIL_NAME: Client._fail_name,
    Do.FAIL_GARBAGE: Client._fail_garbage,
    Do.FAIL_LOST: Client._fail_lost,
    Do.SECURE: Client._secure,
    Do.NAME_AGAIN: Client._name_again,
    Do.PLAIN_ON: Client._go_on_in_clear,
    Do.FAIL_TLS: Client._fail_tls,
    Do.AUTH_MORE: Client._log_in_more,
    Do.FAIL_AUTH: Client._fail_auth,
    Do.BEGIN: Client._go_on,
    Do.SENDER_OK: Client._sender_ok,
    Do.SENDER_REFUSED: Client._sender_refused,
    Do.RECIP_OK: Client._recip_ok,
    Do.RECIP_DEFERRED: Client._recip_deferred,
    Do.RECIP_REFUSED: Client._recip_refused,
    Do.DATA_GO: Client._data_go,
    Do.DATA_REFUSED: Client._data_refused,
    Do.CUT_SHORT: Client._cut_short,
    Do.AWAIT_DOT: Client._await_dot,
    Do.ACCEPTED: Client._accepted_message,
    Do.CONTENT_REFUSED: Client._content_refused,
    Do.MANGLED: Client._mangled,
    Do.DIED: Client._died,
    Do.REST: Client._rest,
    Do.LEAVE: Client._leave,
    Do.CLOSE: Client._close_idle,
    Do.IGNORE: Client._go_on,
    Do.FORBID: Client._forbid,
}
_BY_EVENT = {when: _MOVES[do] for when, do in TABLE.items()}


def _judged(reply: Reply, text: bytes) -> Answer:
    letter = Letter.FAILURE if reply.code >= 500 else Letter.DEFERRAL
    return Answer(letter=letter, text=text + said_text(reply))
