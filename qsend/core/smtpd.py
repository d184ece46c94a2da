r"""What an SMTP server says and does, without doing it.

    >>> talk = Dialogue(rules, Peer())
    >>> talk.feed(b"NOOP\r\n")
    >>> talk.next()
    Say(text=b'250 2.0.0 ok\r\n')

Whoever serves does what each step says, in order, and asks for the next one only when
it is done; None asks for more bytes. Must not: know how anything is found out.
Source: RFC 5321, 1870, 2034, 2920, 3207, 4954, 6152, 6531; qmail-smtpd.c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qsend.core import smtpdreplies as replies
from qsend.core.relay import (
    BAD_SENDER,
    NO_MAILBOX,
    Refused,
    Taken,
    Unlisted,
    is_bad_sender,
    judge_recipient,
    replace_literal,
)
from qsend.core.smtpdata import StrayNewline
from qsend.core.smtpdauth import MECHANISMS, AuthExchange, BadExchange, Credentials
from qsend.core.smtpdbody import Body
from qsend.core.smtpdlines import Lines, LineTooLong
from qsend.core.smtpdpath import mail_argument, rcpt_argument
from qsend.core.smtpdsteps import (
    Begin,
    Bye,
    Filter,
    Finish,
    Judge,
    LogIn,
    Mail,
    Peer,
    Say,
    Screen,
    ServerRules,
    StartTls,
    Step,
)

FAILURES_MAX = 3
"""Refused logins of one connection."""


class Dialogue:
    """One connection from its greeting on."""

    def __init__(self, rules: ServerRules, peer: Peer) -> None:
        """`rules` may be replaced between two steps."""
        self.rules = rules
        self.peer = peer
        self.login: bytes | None = None
        """Who has logged in."""
        self.is_secure = False
        self._lines = Lines()
        self._helo: bytes | None = None
        self._is_extended = False
        self._mail: Mail | None = None
        self._body: Body | None = None
        self._auth: AuthExchange | None = None
        self._pending: bytes | None = None
        self._errors = self._failures = 0

    # The driver's side

    @property
    def greeting(self) -> bytes:
        """The first line."""
        return b"220 %b ESMTP\r\n" % self.rules.greeting

    def feed(self, data: bytes) -> None:
        """Bytes of the client."""
        self._lines.feed(data)

    def next(self) -> Step | None:
        """What to do now; None: nothing before more bytes come."""
        if self._body is not None:
            return self._next_of_body(self._body)
        if self._pending is not None:
            line, self._pending = self._pending, None
        else:
            try:
                found = self._lines.next()
            except LineTooLong:
                self._auth = None
                return self._fault(replies.LINE_TOO_LONG)
            if found is None:
                return None
            line = found
        if self._auth is not None:
            return self._continue_login(self._auth, line)
        verb, _, rest = line.partition(b" ")
        command = _COMMANDS.get(verb.upper())
        if command is None:
            return self._fault(replies.UNIMPLEMENTED)
        return command(self, rest)

    def secured(self) -> None:
        """TLS is there: all that was said before is forgotten (RFC 3207 4.2)."""
        self._lines.take_rest()
        self.is_secure = True
        self.peer.offers_tls = False
        self._helo, self._is_extended = None, False
        self._mail = None

    def logged_in(self, name: bytes | None, refusal: bytes = b"") -> Say | Bye:
        """The login is right and is `name`; or None, and `refusal` is the reply."""
        if name is None:
            self._failures += 1
            fault = self._fault(refusal)
            return fault if self._failures < FAILURES_MAX else Bye(text=fault.text)
        self.login = name
        self._errors = 0
        return Say(text=replies.LOGGED_IN)

    def screened(self, blocked: bytes | None) -> None:
        """The block lists have answered: None, or the reply to RCPT and DATA."""
        self.peer.is_screened = True
        self.peer.blocked = blocked

    def judged(self, verdict: Taken | Refused) -> Say | Bye | Filter:
        """What became of a recipient."""
        if isinstance(verdict, Refused):
            code = 550 if verdict.text == NO_MAILBOX else 553
            text = replies.reply(code if verdict.is_permanent else 451, verdict.text)
            return self._fault(text) if verdict.is_permanent else Say(text=text)
        mail = self._mail
        assert mail is not None
        if not self.peer.is_filtered:
            return self._take(mail, verdict.recip)
        is_first, mail.is_filtered = not mail.is_filtered, True
        return Filter(
            sender=mail.sender,
            parameters=mail.parameters,
            recip=verdict.recip,
            is_first=is_first,
            helo=self._helo,
        )

    def filtered(self, asked: Filter, refusal: bytes | None) -> Say | Bye:
        """The filters have nothing against a recipient; or this is their reply."""
        assert self._mail is not None
        if refusal is None:
            return self._take(self._mail, asked.recip)
        return self.refused(refusal)

    def refused(self, text: bytes) -> Say | Bye:
        """The reply of a filter, which may be one that ends the session."""
        if text.startswith(b"421"):
            return Bye(text=text)
        return self._fault(text) if text.startswith(b"5") else Say(text=text)

    def _take(self, mail: Mail, recip: bytes) -> Say:
        mail.recips.append(recip)
        return Say(text=replies.RECIPIENT_OK)

    # Commands

    def _fault(self, text: bytes) -> Say | Bye:
        """Say that something was wrong; who is wrong too often is sent away."""
        self._errors += 1
        if self._errors > self.rules.errors_max:
            return Bye(text=replies.TOO_MANY_ERRORS)
        return Say(text=text)

    def _hello(self, rest: bytes) -> None:
        self._mail = None
        self._helo = rest.strip(b" ")

    def _helo_command(self, rest: bytes) -> Step:
        self._hello(rest)
        self._is_extended = False
        return Say(text=b"250 %b\r\n" % self.rules.greeting)

    def _ehlo(self, rest: bytes) -> Step:
        self._hello(rest)
        self._is_extended = True
        offered = replies.ehlo(
            self.rules.greeting,
            databytes=self._databytes,
            offers_tls=self.peer.offers_tls,
            mechanisms=MECHANISMS if self._may_log_in else (),
        )
        return Say(text=offered)

    @property
    def _databytes(self) -> int:
        own = self.peer.databytes
        return self.rules.databytes if own is None else own

    @property
    def _may_log_in(self) -> bool:
        return self.peer.offers_login and self.is_secure

    def _mail_command(self, rest: bytes) -> Step:
        may_relay = self.peer.relay_suffix is not None or self.login is not None
        if self.peer.must_log_in and not may_relay:
            return self._fault(replies.LOG_IN_FIRST)
        argument = mail_argument(
            rest, databytes=self._databytes, offers_login=self.peer.offers_login
        )
        if isinstance(argument, bytes):
            return self._fault(argument)
        self._mail = Mail(
            sender=self._localised(argument.address), parameters=argument.words
        )
        return Say(text=replies.SENDER_OK)

    def _localised(self, address: bytes) -> bytes:
        if address[-1:] != b"]":
            return address
        return replace_literal(address, self.rules.relay, self.rules.own)

    def _rcpt(self, rest: bytes) -> Step:
        mail = self._mail
        if mail is None:
            return self._fault(replies.MAIL_FIRST)
        if (screening := self._screening(b"RCPT " + rest)) is not None:
            return screening
        argument = rcpt_argument(rest)
        if isinstance(argument, bytes):
            return self._fault(argument)
        if len(mail.recips) >= self.rules.recipients_max:
            # No fault: the client sends the rest in another transaction.
            return Say(text=replies.TOO_MANY_RECIPIENTS)
        if is_bad_sender(mail.sender, self.rules.relay):
            return self._fault(replies.reply(553, BAD_SENDER))
        return self._judge(self._localised(argument.address))

    def _judge(self, recip: bytes) -> Step:
        suffix = self.peer.relay_suffix
        if suffix is None and self.login is not None:
            suffix = b""
        verdict = judge_recipient(recip, self.rules.relay, suffix)
        checks = self.rules.checks_recipients and suffix is None
        if isinstance(verdict, Unlisted) or (isinstance(verdict, Taken) and checks):
            return Judge(verdict=verdict, checks=checks)
        return self.judged(verdict)

    def _screening(self, line: bytes) -> Step | None:
        """What the block lists make of a command; `line` is obeyed after them."""
        if self.login is not None:
            return None
        if not self.peer.is_screened:
            self._pending = line
            return Screen()
        blocked = self.peer.blocked
        return None if blocked is None else self._fault(blocked)

    def _data(self, _rest: bytes) -> Step:
        mail = self._mail
        if mail is None:
            return self._fault(replies.MAIL_FIRST)
        if (screening := self._screening(b"DATA")) is not None:
            return screening
        if not mail.recips:
            return self._fault(replies.RCPT_FIRST)
        self._mail = None
        self._body = Body()
        return Begin(
            sender=mail.sender,
            recips=tuple(mail.recips),
            helo=self._helo,
            protocol=self._protocol(),
        )

    def _protocol(self) -> bytes:
        """Source: RFC 3848."""
        if not self._is_extended:
            return b"SMTP"
        secure = b"S" if self.is_secure else b""
        return b"ESMTP" + secure + (b"A" if self.login is not None else b"")

    def _next_of_body(self, body: Body) -> Step | None:
        if body.is_over:
            self._body = None
            self._lines.feed(body.rest)
            if body.refusal is not None:
                return self._fault(body.refusal)
            return Finish()
        data = self._lines.take_rest()
        if not data:
            return None
        try:
            step = body.feed(data, self._databytes)
        except StrayNewline:
            return Bye(text=replies.STRAY)
        return self._next_of_body(body) if step is None and body.is_over else step

    def _starttls(self, rest: bytes) -> Step:
        if not self.peer.offers_tls:
            return self._fault(replies.UNIMPLEMENTED)
        if rest.strip(b" "):
            return self._fault(replies.SYNTAX)
        # What came with the line was sent in the clear: it never counts as said.
        self._lines.take_rest()
        return StartTls(text=replies.GO_AHEAD_TLS)

    # AUTH

    def _auth_command(self, rest: bytes) -> Step:
        mechanism, _, initial = rest.strip(b" ").partition(b" ")
        if not self.peer.offers_login:
            return self._fault(replies.UNIMPLEMENTED)
        if not self.is_secure:
            return self._fault(replies.TLS_FIRST)
        if self.login is not None or self._mail is not None:
            return self._fault(replies.NOT_NOW)
        if mechanism.upper() not in MECHANISMS:
            return self._fault(replies.NO_MECHANISM)
        exchange = AuthExchange(mechanism.upper())
        return self._exchange(exchange, exchange.begin, initial.strip(b" "))

    def _continue_login(self, exchange: AuthExchange, line: bytes) -> Step:
        self._auth = None
        return self._exchange(exchange, exchange.take, line)

    def _exchange(
        self,
        exchange: AuthExchange,
        go_on: Callable[[bytes], bytes | Credentials],
        said: bytes,
    ) -> Step:
        try:
            outcome = go_on(said)
        except BadExchange:
            return self._fault(replies.NO_LOGIN)
        if isinstance(outcome, Credentials):
            return LogIn(credentials=outcome)
        self._auth = exchange
        return Say(text=outcome)

    # The rest

    def _rset(self, _rest: bytes) -> Step:
        self._mail = None
        return Say(text=b"250 2.0.0 flushed\r\n")

    def _noop(self, _rest: bytes) -> Step:
        return Say(text=replies.OK)

    def _vrfy(self, _rest: bytes) -> Step:
        return Say(text=b"252 2.1.5 send some mail, i'll try my best\r\n")

    def _help(self, _rest: bytes) -> Step:
        return Say(text=b"214 2.0.0 qsend: see RFC 5321\r\n")

    def _quit(self, _rest: bytes) -> Step:
        return Bye(text=b"221 2.0.0 %b\r\n" % self.rules.greeting)


_COMMANDS: Mapping[bytes, Callable[[Dialogue, bytes], Step]] = {
    b"HELO": Dialogue._helo_command,
    b"EHLO": Dialogue._ehlo,
    b"MAIL": Dialogue._mail_command,
    b"RCPT": Dialogue._rcpt,
    b"DATA": Dialogue._data,
    b"RSET": Dialogue._rset,
    b"NOOP": Dialogue._noop,
    b"VRFY": Dialogue._vrfy,
    b"HELP": Dialogue._help,
    b"QUIT": Dialogue._quit,
    b"STARTTLS": Dialogue._starttls,
    b"AUTH": Dialogue._auth_command,
}
