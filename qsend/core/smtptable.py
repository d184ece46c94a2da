"""The state table of the SMTP client: for every state and event, what to do.

Must not do: anything; smtpc carries out what the table says. The enums are ints
because the table is asked for every reply and ints hash four times as fast.
Source: RFC 5321 sections 3 and 4.3.2, RFC 2920, 3207, 4954; qmail-remote.c smtp().
"""

from __future__ import annotations

from enum import IntEnum, auto


class State(IntEnum):
    """What the client waits for: mostly the reply to the named command."""

    GREETING = auto()
    EHLO = auto()
    HELO = auto()
    STARTTLS = auto()
    TLS = auto()
    """The TLS handshake."""
    AUTH = auto()
    IDLE = auto()
    """Nothing: a transaction may begin."""
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    CONTENT = auto()
    """The driver writes the content; no reply is due before its final dot."""
    DOT = auto()
    VOID = auto()
    """The reply to a lone dot, sent because nobody was accepted."""
    RSET = auto()
    QUIT = auto()
    CLOSED = auto()


class Event(IntEnum):
    """What happens: replies by class, then what goes wrong, then our own side."""

    POSITIVE = auto()
    """2yz"""
    INTERMEDIATE = auto()
    """3yz"""
    TRANSIENT = auto()
    """4yz"""
    PERMANENT = auto()
    """5yz"""
    GARBAGE = auto()
    """The peer sent what is not a reply."""
    LOST = auto()
    """Connection closed, broken, or silent past its deadline."""
    BEGIN = auto()
    SENT = auto()
    SECURED = auto()
    UNSECURED = auto()
    """TLS could not be made, or broke at once."""
    LEAVE = auto()


class Do(IntEnum):
    """The client's moves."""

    GREETED = auto()
    """Greeting: 220 asks for EHLO, any other code fails the session."""
    NAMED = auto()
    """EHLO accepted: note the extensions; ready, or STARTTLS or AUTH when wanted."""
    NAMED_SHORT = auto()
    """HELO accepted: ready, without extensions, if none is needed."""
    FALL_BACK = auto()
    """EHLO not known: HELO."""
    FAIL_GREETING = auto()
    FAIL_NAME = auto()
    FAIL_GARBAGE = auto()
    FAIL_LOST = auto()
    SECURE = auto()
    NAME_AGAIN = auto()
    """TLS is up: forget what was said in clear, EHLO again."""
    PLAIN_ON = auto()
    """STARTTLS refused: the session goes on in clear, or fails if it must not."""
    FAIL_TLS = auto()
    AUTH_MORE = auto()
    """The server wants the next part of user and password."""
    FAIL_AUTH = auto()
    BEGIN = auto()
    SENDER_OK = auto()
    SENDER_REFUSED = auto()
    RECIP_OK = auto()
    RECIP_DEFERRED = auto()
    RECIP_REFUSED = auto()
    DATA_GO = auto()
    DATA_REFUSED = auto()
    CUT_SHORT = auto()
    """Refused in the middle of the content: that is the answer, and the end."""
    AWAIT_DOT = auto()
    ACCEPTED = auto()
    CONTENT_REFUSED = auto()
    MANGLED = auto()
    """A reply that cannot be here: the transaction is deferred, the peer dropped."""
    DIED = auto()
    REST = auto()
    """Nothing pending any more: ready."""
    LEAVE = auto()
    CLOSE = auto()
    IGNORE = auto()
    FORBID = auto()
    """Our own mistake."""


def _row(
    state: State,
    *,
    positive: Do,
    intermediate: Do,
    transient: Do,
    permanent: Do,
    garbage: Do,
    lost: Do,
    begin: Do = Do.FORBID,
    sent: Do = Do.FORBID,
    secured: Do = Do.FORBID,
    unsecured: Do = Do.FORBID,
    leave: Do = Do.FORBID,
) -> dict[tuple[State, Event], Do]:
    return {
        (state, Event.POSITIVE): positive,
        (state, Event.INTERMEDIATE): intermediate,
        (state, Event.TRANSIENT): transient,
        (state, Event.PERMANENT): permanent,
        (state, Event.GARBAGE): garbage,
        (state, Event.LOST): lost,
        (state, Event.BEGIN): begin,
        (state, Event.SENT): sent,
        (state, Event.SECURED): secured,
        (state, Event.UNSECURED): unsecured,
        (state, Event.LEAVE): leave,
    }


TABLE: dict[tuple[State, Event], Do] = {
    **_row(
        State.GREETING,
        positive=Do.GREETED,
        intermediate=Do.FAIL_GREETING,
        transient=Do.FAIL_GREETING,
        permanent=Do.FAIL_GREETING,
        garbage=Do.FAIL_GARBAGE,
        lost=Do.FAIL_LOST,
    ),
    **_row(
        State.EHLO,
        positive=Do.NAMED,
        intermediate=Do.FAIL_NAME,
        transient=Do.FAIL_NAME,
        permanent=Do.FALL_BACK,
        garbage=Do.FAIL_GARBAGE,
        lost=Do.FAIL_LOST,
        unsecured=Do.FAIL_TLS,
    ),
    **_row(
        State.HELO,
        positive=Do.NAMED_SHORT,
        intermediate=Do.FAIL_NAME,
        transient=Do.FAIL_NAME,
        permanent=Do.FAIL_NAME,
        garbage=Do.FAIL_GARBAGE,
        lost=Do.FAIL_LOST,
    ),
    **_row(
        State.STARTTLS,
        positive=Do.SECURE,
        intermediate=Do.FAIL_GARBAGE,
        transient=Do.PLAIN_ON,
        permanent=Do.PLAIN_ON,
        garbage=Do.FAIL_GARBAGE,
        lost=Do.FAIL_LOST,
    ),
    **_row(  # bytes in clear while TLS is being made are an attack
        State.TLS,
        positive=Do.FAIL_GARBAGE,
        intermediate=Do.FAIL_GARBAGE,
        transient=Do.FAIL_GARBAGE,
        permanent=Do.FAIL_GARBAGE,
        garbage=Do.FAIL_GARBAGE,
        lost=Do.FAIL_LOST,
        secured=Do.NAME_AGAIN,
        unsecured=Do.FAIL_TLS,
    ),
    **_row(
        State.AUTH,
        positive=Do.REST,
        intermediate=Do.AUTH_MORE,
        transient=Do.FAIL_AUTH,
        permanent=Do.FAIL_AUTH,
        garbage=Do.FAIL_GARBAGE,
        lost=Do.FAIL_LOST,
    ),
    **_row(  # a peer that speaks unasked (421 mostly) is leaving
        State.IDLE,
        positive=Do.CLOSE,
        intermediate=Do.CLOSE,
        transient=Do.CLOSE,
        permanent=Do.CLOSE,
        garbage=Do.CLOSE,
        lost=Do.CLOSE,
        begin=Do.BEGIN,
        leave=Do.LEAVE,
    ),
    **_row(
        State.MAIL,
        positive=Do.SENDER_OK,
        intermediate=Do.MANGLED,
        transient=Do.SENDER_REFUSED,
        permanent=Do.SENDER_REFUSED,
        garbage=Do.MANGLED,
        lost=Do.DIED,
    ),
    **_row(
        State.RCPT,
        positive=Do.RECIP_OK,
        intermediate=Do.MANGLED,
        transient=Do.RECIP_DEFERRED,
        permanent=Do.RECIP_REFUSED,
        garbage=Do.MANGLED,
        lost=Do.DIED,
    ),
    **_row(
        State.DATA,
        positive=Do.MANGLED,
        intermediate=Do.DATA_GO,
        transient=Do.DATA_REFUSED,
        permanent=Do.DATA_REFUSED,
        garbage=Do.MANGLED,
        lost=Do.DIED,
    ),
    **_row(
        State.CONTENT,
        positive=Do.MANGLED,
        intermediate=Do.MANGLED,
        transient=Do.CUT_SHORT,
        permanent=Do.CUT_SHORT,
        garbage=Do.MANGLED,
        lost=Do.DIED,
        sent=Do.AWAIT_DOT,
    ),
    **_row(
        State.DOT,
        positive=Do.ACCEPTED,
        intermediate=Do.MANGLED,
        transient=Do.CONTENT_REFUSED,
        permanent=Do.CONTENT_REFUSED,
        garbage=Do.MANGLED,
        lost=Do.DIED,
    ),
    **_row(
        State.VOID,
        positive=Do.REST,
        intermediate=Do.CLOSE,
        transient=Do.REST,
        permanent=Do.REST,
        garbage=Do.CLOSE,
        lost=Do.CLOSE,
    ),
    **_row(
        State.RSET,
        positive=Do.REST,
        intermediate=Do.CLOSE,
        transient=Do.CLOSE,
        permanent=Do.CLOSE,
        garbage=Do.CLOSE,
        lost=Do.CLOSE,
    ),
    **_row(
        State.QUIT,
        positive=Do.CLOSE,
        intermediate=Do.CLOSE,
        transient=Do.CLOSE,
        permanent=Do.CLOSE,
        garbage=Do.CLOSE,
        lost=Do.CLOSE,
    ),
    **_row(  # what was on its way when we closed
        State.CLOSED,
        positive=Do.IGNORE,
        intermediate=Do.IGNORE,
        transient=Do.IGNORE,
        permanent=Do.IGNORE,
        garbage=Do.IGNORE,
        lost=Do.IGNORE,
        sent=Do.IGNORE,
        secured=Do.IGNORE,
        unsecured=Do.IGNORE,
        leave=Do.IGNORE,
    ),
}
