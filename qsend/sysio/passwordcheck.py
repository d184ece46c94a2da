"""Whether a password is right, whatever way it is stored.

May take a tenth of a second and more: never call it where others wait. Any thread
may. Source: docs/man/checkpassword.8.
"""

from __future__ import annotations

from qsend.core import passwords
from qsend.core.errors import TempFail
from qsend.core.passwords import Kind
from qsend.sysio.crypt3 import is_crypt


def check(stored: bytes, kind: str, given: bytes) -> bool:
    """Whether `given` is the password behind `stored`.

    Args:
        stored: as in the mailbox table, without NUL.
        kind: its password_type: Password, Crypt-Password or MySQL-Password.
        given: what the client said; an empty one is never right.
    Raises: TempFail when the kind, or the method of a Crypt-Password, is unknown.
    """
    match passwords.kind_of(kind):
        case Kind.PASSWORD:
            return passwords.is_plain(stored, given)
        case Kind.CRYPT:
            return is_crypt(stored, given)
        case Kind.MYSQL:
            return passwords.is_mysql(stored, given)
        case None:
            raise TempFail(f"unknown password_type {kind[:40]!r}")


def check_apop(stored: bytes, kind: str, challenge: bytes, digest: bytes) -> bool:
    """The same for APOP, which only a password in plain text allows.

    Raises: TempFail when the kind is unknown.
    """
    match passwords.kind_of(kind):
        case Kind.PASSWORD:
            return passwords.is_apop(stored, challenge, digest)
        case None:
            raise TempFail(f"unknown password_type {kind[:40]!r}")
        case _:
            return False
