"""New passwords: made up, and as the mailbox table stores them."""

from __future__ import annotations

import secrets
from typing import assert_never

from qsend.core.errors import PermFail
from qsend.core.passwords import GIVEN_MAX, Kind, mysql_password
from qsend.sysio.crypt3 import crypt

_LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Without those that look like another."""
_SALT = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LENGTH = 16
"""93 bits: nobody guesses that, whatever way it is stored."""


def generate() -> str:
    """A password of 16 letters and digits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))


def stored(password: str, kind: Kind) -> str:
    """What stands in the column `password` for it.

    Crypt-Password is SHA-512 of crypt(5): every crypt(3) of today knows it, and a
    login costs milliseconds.
    Raises: PermFail when it cannot be a password; TempFail without crypt(3).
    """
    given = password.encode("utf-8", "surrogateescape")
    if not given:
        raise PermFail("the password is empty: nobody could log in with it")
    if len(given) > GIVEN_MAX:
        raise PermFail(f"the password is longer than {GIVEN_MAX} bytes")
    if any(byte < 32 or byte == 127 for byte in given):
        raise PermFail("the password has a control character")
    match kind:
        case Kind.PASSWORD:
            return password
        case Kind.CRYPT:
            salt = "".join(secrets.choice(_SALT) for _ in range(_LENGTH))
            return crypt(given, f"$6${salt}$".encode()).decode("ascii")
        case Kind.MYSQL:
            return mysql_password(given).decode("ascii")
        case _:
            assert_never(kind)
