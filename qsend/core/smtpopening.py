"""How an SMTP session comes up: greeting, name, TLS, login.

The first half of smtpc.Client, for the states of the table up to IDLE.
Must not do: anything of transactions; see smtpc.
Source: RFC 5321 3.1 and 3.2, RFC 3207, RFC 4954; qmail-remote.c smtp().
"""

from __future__ import annotations

from collections.abc import Sequence

from qsend.core.model import Cause, Letter
from qsend.core.smtptable import State
from qsend.core.smtptypes import (
    Action,
    Answer,
    Close,
    Command,
    Failed,
    Ready,
    Reply,
    Secure,
    Send,
    Verb,
)
from qsend.core.tlspolicy import Demand, Level

CLEAR = Demand()
"""Neither TLS nor a login."""
QUIT = Send((Command(Verb.QUIT),))


class Opening:
    """What a client knows of the session, and its moves until it is ready."""

    __slots__ = (
        "_credentials",
        "_extensions",
        "_helo",
        "_host",
        "_is_leaving",
        "_level",
        "_login",
        "_mechanisms",
        "_session",
        "state",
    )

    def __init__(self, host: bytes, helo: bytes, demand: Demand) -> None:
        """As Client."""
        self.state = State.GREETING
        self._host = host
        self._helo = helo
        self._level = demand.level
        self._login = demand.login
        self._session = b""
        self._credentials: list[Command] = []
        self._extensions: frozenset[bytes] = frozenset()
        self._mechanisms: frozenset[bytes] = frozenset()
        self._is_leaving = False

    def _greeted(self, reply: Reply) -> Sequence[Action]:
        if reply.code != 220:
            return self._fail_greeting(reply)
        return self._name(State.EHLO, Verb.EHLO)

    def _name(self, state: State, verb: Verb) -> Sequence[Action]:
        self.state = state
        return (Send((Command(verb, self._helo),)),)

    def _named(self, reply: Reply) -> Sequence[Action]:
        if reply.code != 250:
            return self._fail_name(reply)
        self._extensions = _keywords(reply.text)
        if self._login is not None:
            self._mechanisms = _mechanisms(reply.text)
        if self._level is not Level.NONE and b"STARTTLS" in self._extensions:
            self.state = State.STARTTLS
            return (Send((Command(Verb.STARTTLS),)),)
        return self._log_in(reply)

    def _named_short(self, reply: Reply) -> Sequence[Action]:
        return self._log_in(reply) if reply.code == 250 else self._fail_name(reply)

    def _fall_back(self, _reply: Reply) -> Sequence[Action]:
        return self._name(State.HELO, Verb.HELO)

    def _secure(self, _reply: Reply) -> Sequence[Action]:
        self.state = State.TLS
        return (Secure(),)

    def _name_again(self, _reply: Reply) -> Sequence[Action]:
        self._level = Level.NONE
        self._extensions = self._mechanisms = frozenset()
        return self._name(State.EHLO, Verb.EHLO)

    def _go_on_in_clear(self, reply: Reply) -> Sequence[Action]:
        if self._level.is_must or self._is_leaving:
            text = b"Connected to %s but STARTTLS was refused.\n" % self._host
            return self._fail(text + said_text(reply), QUIT)
        return self._log_in(reply)

    def _log_in(self, reply: Reply) -> Sequence[Action]:
        """What is left to do when names and TLS are settled."""
        if self._level.is_must:
            text = b"Connected to %s but it does not offer TLS. (#4.7.4)\n"
            return self._fail(text % self._host, QUIT)
        if self._login is None:
            return self._rest(reply)
        user, password = self._login.user, self._login.password
        if b"PLAIN" in self._mechanisms:
            first = Command(Verb.AUTH_PLAIN, b"\0%s\0%s" % (user, password))
        elif b"LOGIN" in self._mechanisms:
            parts = (password, user)  # the last one is asked for first
            self._credentials = [Command(Verb.CREDENTIAL, part) for part in parts]
            first = Command(Verb.AUTH_LOGIN)
        else:
            text = b"Connected to %s but it offers no way to log in. (#4.7.4)\n"
            return self._fail(text % self._host, QUIT)
        self.state = State.AUTH
        return (Send((first,)),)

    def _log_in_more(self, reply: Reply) -> Sequence[Action]:
        if not self._credentials:
            return self._fail_garbage(reply)
        return (Send((self._credentials.pop(),)),)

    def _fail_auth(self, reply: Reply) -> Sequence[Action]:
        text = b"Connected to %s but my login was refused.\n" % self._host
        return self._fail(text + said_text(reply), QUIT)

    def _fail_tls(self, reply: Reply) -> Sequence[Action]:
        text = b"Connected to %s but TLS failed: %s. (#4.7.5)\n"
        return self._fail(text % (self._host, reply.text), is_insecure=True)

    def _fail_greeting(self, reply: Reply) -> Sequence[Action]:
        text = b"Connected to %s but greeting failed.\n" % self._host
        return self._fail(text + said_text(reply), QUIT)

    def _fail_name(self, reply: Reply) -> Sequence[Action]:
        text = b"Connected to %s but my name was rejected.\n" % self._host
        return self._fail(text + said_text(reply), QUIT)

    def _fail_garbage(self, reply: Reply) -> Sequence[Action]:
        return self._fail(self._not_smtp(reply))

    def _fail_lost(self, reply: Reply) -> Sequence[Action]:
        is_again = self.state is State.EHLO and self._session != b""
        if self.state in (State.STARTTLS, State.TLS) or is_again:
            return self._fail_tls(Reply(0, b"connection died"))
        return self._fail(self._died_text())

    def _fail(
        self, text: bytes, *last: Action, is_insecure: bool = False
    ) -> Sequence[Action]:
        self.state = State.CLOSED
        answer = Answer(letter=Letter.DEFERRAL, text=text, cause=Cause.UNREACHABLE)
        return (Failed(answer, self._is_leaving, is_insecure), *last, Close())

    # What both halves say and do.

    def _not_smtp(self, reply: Reply) -> bytes:
        text = b"Connected to %s but it broke the protocol: %s. %s(#4.5.0)\n"
        reason = reply.text if reply.code == 0 else b"reply %d" % reply.code
        return text % (self._host, reason, self._duplicate())

    def _died_text(self) -> bytes:
        text = b"Connected to %s but connection died. %s(#4.4.2)\n"
        return text % (self._host, self._duplicate())

    def _duplicate(self) -> bytes:
        return b"Possible duplicate! " if self.state is State.DOT else b""

    def _rest(self, reply: Reply) -> Sequence[Action]:
        if self._is_leaving:
            return self._close_idle(reply)
        self.state = State.IDLE
        return (Ready(),)

    def _close_idle(self, _reply: Reply) -> Sequence[Action]:
        self.state = State.CLOSED
        return (Close(),)


def said_text(reply: Reply) -> bytes:
    """What a report says of a peer's words."""
    return b"Remote host said: " + reply.text if reply.text else b""


def _mechanisms(text: bytes) -> frozenset[bytes]:
    """What AUTH takes, in capitals; `AUTH=` is how old servers say it."""
    lines = (line[4:].upper().replace(b"AUTH=", b"AUTH ") for line in text.split(b"\n"))
    words = [line.split() for line in lines]
    return frozenset(
        word for line in words if line[:1] == [b"AUTH"] for word in line[1:]
    )


def _keywords(text: bytes) -> frozenset[bytes]:
    """The extensions of an EHLO reply, in capitals; its first line is the name."""
    lines = text.split(b"\n")[1:]
    words = (line[4:].split(None, 1) for line in lines)
    return frozenset(word[0].upper() for word in words if word)
