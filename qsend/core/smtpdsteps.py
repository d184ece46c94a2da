"""The steps of an SMTP server, and what it knows of its client.

Source: RFC 5321, RFC 2034; qmail-smtpd.c.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from qsend.core.relay import RelayRules, Taken, Unlisted
from qsend.core.smtpdauth import Credentials

DIGITS_MAX = 20
"""No more are a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRules:
    """What holds for every client.

    `own` are this machine's addresses, canonical. Of `databytes` 0 is no limit.
    """

    greeting: bytes
    relay: RelayRules
    own: Container[str] = frozenset()
    databytes: int = 0
    recipients_max: int = 1000
    errors_max: int = 20
    checks_recipients: bool = False


@dataclass(slots=True, kw_only=True)
class Peer:
    """What is known of one client and of what it may.

    `relay_suffix` is $RELAYCLIENT, None without; `databytes` overrides that of the
    rules. `is_screened`: block lists were asked, or need not be; `blocked` is the
    reply that they make of everything, None without.
    """

    relay_suffix: bytes | None = None
    databytes: int | None = None
    is_screened: bool = True
    blocked: bytes | None = None
    offers_tls: bool = False
    offers_login: bool = False
    must_log_in: bool = False
    is_filtered: bool = False
    """Whether mail filters are asked."""


@dataclass(slots=True, kw_only=True)
class Mail:
    """One transaction; `parameters` are those of MAIL, as they came, upper case."""

    sender: bytes
    parameters: tuple[bytes, ...] = ()
    recips: list[bytes] = field(default_factory=list)
    is_filtered: bool = False
    """Whether the filters have heard of it."""


def databytes_of(variables: Mapping[bytes, bytes]) -> int | None:
    """What $DATABYTES says; what is no number is no limit (scan_ulong)."""
    digits = variables.get(b"DATABYTES")
    if digits is None:
        return None
    return int(digits) if digits.isdigit() and len(digits) < DIGITS_MAX else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """Send the text."""

    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bye:
    """Send the text and hang up; a message that was begun is forgotten."""

    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTls:
    """Send the text and negotiate TLS; then `secured`."""

    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LogIn:
    """Have the login judged; then `logged_in`."""

    credentials: Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """Ask the block lists; then `screened`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Find out whether a recipient is taken; then `judged`.

    `verdict` is what the rules say; `checks`: it must exist, too.
    """

    verdict: Taken | Unlisted
    checks: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Ask the mail filters about a recipient that is taken; then `filtered`.

    `is_first`: of a message that they have not heard of.
    """

    sender: bytes
    parameters: tuple[bytes, ...]
    recip: bytes
    is_first: bool
    helo: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """A message begins: `protocol` is the word for its Received line."""

    sender: bytes
    recips: tuple[bytes, ...]
    helo: bytes | None
    protocol: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Bytes of the message."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The message is complete: queue it; then `finished`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon:
    """Forget the message that was begun."""


Step = (
    Say
    | Bye
    | StartTls
    | LogIn
    | Screen
    | Judge
    | Filter
    | Begin
    | Chunk
    | Finish
    | Abandon
)
