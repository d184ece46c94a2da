"""AUTH PLAIN and AUTH LOGIN: from lines in base64 to a name and a password.

Must not: judge a login, or take one outside TLS.
Source: RFC 4954, RFC 4616, draft-murchison-sasl-login.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from qsend.core.passwords import GIVEN_MAX

MECHANISMS = (b"PLAIN", b"LOGIN")
_ASK_NAME = b"334 VXNlcm5hbWU6\r\n"
_ASK_PASSWORD = b"334 UGFzc3dvcmQ6\r\n"
_GO_ON = b"334 \r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the client says of itself; `repr` does not show the secret."""

    name: bytes
    secret: bytes

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Credentials({self.name!r})"


class BadExchange(Exception):
    """The client broke the exchange off, or what it sent is none."""


class AuthExchange:
    """One AUTH command until the client has said all."""

    def __init__(self, mechanism: bytes) -> None:
        """`mechanism` is one of MECHANISMS."""
        self._is_plain = mechanism == b"PLAIN"
        self._name: bytes | None = None

    def begin(self, initial: bytes) -> bytes | Credentials:
        """The next line to say, or all; `initial` is the initial response or b"".

        Raises: BadExchange, as `take` does.
        """
        if initial:
            return self.take(b"" if initial == b"=" else initial)
        return _GO_ON if self._is_plain else _ASK_NAME

    def take(self, line: bytes) -> bytes | Credentials:
        """The same for a line of the client."""
        if line == b"*":
            raise BadExchange
        try:
            said = base64.b64decode(line, validate=True)
        except binascii.Error as exc:
            raise BadExchange from exc
        if self._is_plain:
            parts = said.split(b"\0")
            if len(parts) != 3 or parts[0] not in (b"", parts[1]):
                raise BadExchange
            return _credentials(parts[1], parts[2])
        if self._name is None:
            self._name = said
            return _ASK_PASSWORD
        return _credentials(self._name, said)


def _credentials(name: bytes, secret: bytes) -> Credentials:
    if not name or not secret or len(name) + len(secret) > GIVEN_MAX:
        raise BadExchange
    if b"\0" in name + secret:
        raise BadExchange
    return Credentials(name=name, secret=secret)
