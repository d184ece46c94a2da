"""What lookup answers besides users: places of addresses, yes or no, logins.

Trouble (core/users.py) stands among the answers of every kind: it could not be
found out now, and nobody may take it for a "no".
Source: docs/ARCHITECTURE.md; the rules are core/sqlrules.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from qsend.core.model import User
from qsend.core.users import Trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The database takes the recipient: local, and stored as `address`."""

    address: bytes


class Listing(Enum):
    """The database does not take the recipient: what it knows of the host."""

    NONE = "none"
    """Nothing: the control files decide."""
    HOST = "host"
    """It has rows for the host: without an entry in control/virtualdomains the
    recipient does not exist, and the mail must not leave this machine."""


Locality = Stored | Listing | Trouble
"""The answer to "where does mail for this address go?"."""

YesNo = bool | Trouble
"""The answer to "is this host ours?" and "does this address exist?"."""


class Proof(IntEnum):
    """How a client proves who it is."""

    PASS = 0
    """It sends the password (POP3 PASS, checkpassword, AUTH PLAIN)."""
    APOP = 1
    """It sends the digest of a challenge and the password (RFC 1939)."""


class Verdict(IntEnum):
    """What a login is."""

    OK = 0
    WRONG = 1
    """The secret does not fit."""
    SUSPENDED = 2
    UNKNOWN = 3
    """No mailbox of that name: accounts of the machine may have it."""
    TROUBLE = 4
    """It could not be found out now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A login to be judged.

    `secret` is the password, or the digest in hex; `challenge` what APOP was
    challenged with, b"" otherwise; `client` the address it came from, for the log.
    """

    proof: Proof
    name: bytes
    secret: bytes
    challenge: bytes = b""
    client: bytes = b""

    def __repr__(self) -> str:
        """Without the secret: it must not reach a log by way of a traceback."""
        return f"Login({self.proof.name}, {self.name!r}, from {self.client!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The verdict on a login; `text` is a reason for the log.

    `user` is whose mailbox it is, given only with OK, and only to those who may
    become it.
    """

    verdict: Verdict
    text: bytes = b""
    user: User | None = None
