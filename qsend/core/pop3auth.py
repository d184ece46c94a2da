"""POP3 before the login: who is it?

    >>> auth = Authorization(challenge=b"<1.2@here.example>")
    >>> auth.take(Command(verb=b"USER", rest=b"ann"))
    Say(text=b'+OK \r\n')

Must not: know whether a password is right. Whoever serves does what the returned
step says, in order, and takes no further line before it is done.
Source: RFC 1939 sections 4 and 7, RFC 2449, RFC 2595 section 4, RFC 3206;
qmail-popup.c.
"""

from __future__ import annotations

from dataclasses import dataclass

from qsend.core.lookups import Proof
from qsend.core.passwords import GIVEN_MAX
from qsend.core.pop3lines import Command

OK = b"+OK \r\n"
UNAUTHORIZED = b"-ERR authorization first\r\n"
SYNTAX = b"-ERR syntax error\r\n"
REFUSED = b"-ERR [AUTH] authorization failed\r\n"
TEMPORARY = b"-ERR [SYS/TEMP] unable to check logins now; try again later\r\n"
TOO_MANY = b"-ERR [SYS/TEMP] too many sessions; try again later\r\n"
TOO_SOON = b"-ERR [LOGIN-DELAY] too many failed logins; try again later\r\n"
TOO_LONG = b"-ERR line too long\r\n"
TLS_FIRST = b"-ERR [AUTH] passwords in clear are not taken here; use TLS\r\n"
CAPABILITIES = (
    b"TOP", b"USER", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING",
    b"EXPIRE NEVER", b"IMPLEMENTATION qsend",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """Send the text; take the next line."""

    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bye:
    """Send the text and hang up."""

    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTls:
    """Forget what came after the line, send the text, and negotiate TLS.

    What came after it was sent in the clear, by anybody: it must never count as
    said inside TLS.
    """

    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """Judge this login; `refused` if it is wrong. What `secret` is, `proof` says."""

    proof: Proof
    name: bytes
    secret: bytes

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Try({self.proof.name}, {self.name!r})"


Step = Say | Bye | StartTls | Try


class Authorization:
    """One connection until its login succeeds."""

    def __init__(
        self, *, challenge: bytes, offers_tls: bool = False, needs_tls: bool = False
    ) -> None:
        """Start with the greeting.

        Args:
            challenge: a timestamp in angle brackets, never used before.
            offers_tls: whether STLS may be answered with StartTls; not inside TLS.
            needs_tls: whether USER and PASS are refused until `secured`. APOP is not:
                it does not tell the password.
        """
        self._challenge = challenge
        self._offers_tls = offers_tls
        self._needs_tls = needs_tls
        self._name = b""

    def greeting(self) -> bytes:
        """The first line that the client sees."""
        return b"+OK %b\r\n" % self._challenge

    def secured(self) -> None:
        """TLS is there: all that was said before is forgotten."""
        self._offers_tls = self._needs_tls = False
        self._name = b""

    def take(self, command: Command) -> Step:
        """What to do about one line."""
        if b"\0" in command.rest:
            return Say(text=SYNTAX)
        match command.verb:
            case b"USER" | b"PASS" if self._needs_tls:
                return Say(text=TLS_FIRST)
            case b"USER":
                return self._user(command.argument)
            case b"PASS":
                return self._pass(command.rest)
            case b"APOP":
                return self._apop(command.argument)
            case b"STLS" if self._offers_tls and not command.argument:
                return StartTls(text=b"+OK begin TLS\r\n")
            case b"CAPA":
                return Say(
                    text=capabilities(
                        offers_tls=self._offers_tls, needs_tls=self._needs_tls
                    )
                )
            case b"NOOP":
                return Say(text=OK)
            case b"QUIT":
                return Bye(text=OK)
            case _:
                return Say(text=UNAUTHORIZED)

    def _user(self, name: bytes) -> Step:
        if not name:
            return Say(text=SYNTAX)
        self._name = name
        return Say(text=OK)

    def _pass(self, secret: bytes) -> Step:
        name, self._name = self._name, b""
        if not name:
            return Say(text=b"-ERR USER first\r\n")
        return _try(Proof.PASS, name, secret)

    def _apop(self, argument: bytes) -> Step:
        name, _, digest = argument.rpartition(b" ")
        self._name = b""
        return _try(Proof.APOP, name.strip(b" "), digest)


def _try(proof: Proof, name: bytes, secret: bytes) -> Step:
    if not name or not secret or len(name) + len(secret) > GIVEN_MAX:
        return Say(text=SYNTAX)
    return Try(proof=proof, name=name, secret=secret)


def capabilities(*, offers_tls: bool, needs_tls: bool = False) -> bytes:
    """The answer to CAPA; with `needs_tls` before TLS, when USER is refused."""
    listed = [each for each in CAPABILITIES if not (needs_tls and each == b"USER")]
    if offers_tls:
        listed.append(b"STLS")
    return OK + b"".join(b"%b\r\n" % each for each in listed) + b".\r\n"
