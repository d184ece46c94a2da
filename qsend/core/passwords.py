"""Whether a password is the stored one: the kinds that need no crypt(3).

Comparisons take the same time wherever the values differ. Must not: log, keep or
return a password.
Source: password_type of the mailbox table; MySQL's PASSWORD() and OLD_PASSWORD();
RFC 1939 section 7 (APOP).
"""

from __future__ import annotations

import hashlib
import hmac
from enum import Enum

GIVEN_MAX = 512
"""Longest password taken from a client: checkpassword reads no more in all."""

_SHA1_LENGTH = 41
_OLD_LENGTH = 16
_WORD = 0xFFFFFFFF


class Kind(Enum):
    """How a password is stored; the value is what the mailbox table calls it."""

    PASSWORD = "Password"
    CRYPT = "Crypt-Password"
    MYSQL = "MySQL-Password"


def kind_of(name: str) -> Kind | None:
    """The kind with that name, in any case; None when there is none."""
    return next((each for each in Kind if each.value.lower() == name.lower()), None)


def is_plain(stored: bytes, given: bytes) -> bool:
    """Whether `given` is `stored`; an empty one is never right."""
    # Digests of equal length: compare_digest tells lengths apart by its time.
    same = hmac.compare_digest(_fingerprint(stored), _fingerprint(given))
    return same and given != b""


def is_mysql(stored: bytes, given: bytes) -> bool:
    """Whether MySQL scrambles `given` to `stored`; an empty password is never right.

    `stored` is `*` and 40 hexadecimal digits (MySQL 4.1 and later), or 16 digits.
    Anything else is nobody's password.
    """
    if len(stored) == _SHA1_LENGTH:
        scrambled = mysql_password(given)
    elif len(stored) == _OLD_LENGTH:
        scrambled = mysql_old_password(given)
    else:
        return False
    same = hmac.compare_digest(scrambled.lower(), stored.lower())
    return same and given != b""


def mysql_password(given: bytes) -> bytes:
    """What PASSWORD() of MySQL 4.1 and later gives: `*` and 40 digits."""
    twice = hashlib.sha1(hashlib.sha1(given).digest())
    return b"*" + twice.hexdigest().upper().encode()


def mysql_old_password(given: bytes) -> bytes:
    """What OLD_PASSWORD() gives, 16 digits; blanks in the password do not count.

    Source: hash_password() of the client library before 4.1.
    """
    first, second, add = 1345345333, 0x12345671, 7
    for byte in given:
        if byte in b" \t":
            continue
        first ^= ((((first & 63) + add) * byte) + (first << 8)) & _WORD
        second = (second + ((second << 8) ^ first)) & _WORD
        add += byte
    return b"%08x%08x" % (first & 0x7FFFFFFF, second & 0x7FFFFFFF)


def is_apop(stored: bytes, challenge: bytes, digest: bytes) -> bool:
    """Whether `digest` is that of the challenge and a password stored in plain text.

    Args:
        challenge: the greeting's timestamp with its angle brackets, never empty.
        digest: 32 hexadecimal digits as the client sent them.
    """
    want = hashlib.md5(challenge + stored).hexdigest()
    same = hmac.compare_digest(want.encode(), digest.lower())
    return same and stored != b"" and challenge != b""


def _fingerprint(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
