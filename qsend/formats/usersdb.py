"""users/cdb: the keys a local part is looked up by, and what a record says.

A record's value is `user\\0uid\\0gid\\0home\\0dash\\0ext`, the ext without a NUL at
its end. The record with the empty key lists the bytes that a wildcard may end in.
Unlike qmail-lspawn, which compares lower-case keys with that set as written (so
that a wildcard ending in an upper-case letter never matches), both are lower case.
Source: qmail-users(5), qmail-newu.c, qmail-lspawn.c nughde_get().
"""

from __future__ import annotations

from collections.abc import Iterator

from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.model import Ownership, User

FILE = "users/cdb"
WILDCARDS_KEY = b""

RECORD_MAX = 2048
"""Longest value in bytes; with a local part of ADDRESS_MAX bytes added to its ext
every field still fits the wires between processes (4096)."""

_UID_MAX = 2**32 - 2
"""The largest uid and gid; 2**32 - 1 means "leave it" to setuid."""


def damaged(problem: str) -> ConfigError:
    """The error for a users/cdb that cannot be used."""
    return ConfigError([ConfigFault(file=FILE, line=0, problem=problem)])


def keys(local: bytes, wildcards: frozenset[int]) -> Iterator[tuple[bytes, bytes]]:
    """(key, rest) pairs in the order they are tried; the first hit decides.

    First the exact key, `!` + lower(local) + NUL; then every prefix whose last
    byte is a wildcard end, longest first; at last the bare `!`. `rest` is what the
    prefix leaves of `local`, in its own case: it is added to the record's ext.
    """
    base = b"!" + local.lower()
    yield base + b"\0", b""
    for length in range(len(base), 1, -1):
        if base[length - 1] in wildcards:
            yield base[:length], local[length - 1 :]
    yield b"!", local


def parse_wildcards(value: bytes | None) -> frozenset[int]:
    """The bytes that wildcards end in, from the record with the empty key.

    Raises: ConfigError when there is no such record; qmail-newu always writes it.
    """
    if value is None:
        raise damaged("expected a record with an empty key, found none")
    return frozenset(value.lower())


def parse_record(value: bytes, rest: bytes) -> User:
    """The user of one record, `rest` added to its ext.

    Raises: ConfigError on anything but six fields of plain sense; an unusable
    record makes mail wait, it does not give it to somebody else.
    """
    if len(value) > RECORD_MAX:
        raise damaged(f"expected at most {RECORD_MAX} bytes, found {len(value)}")
    fields = value.split(b"\0")
    if len(fields) != 6:
        raise damaged(f"expected 6 fields in a record, found {len(fields)}")
    name, uid, gid, home, dash, ext = fields
    if home[:1] != b"/":
        raise damaged("expected a home that starts with a slash")
    return User(
        name=name,
        uid=_number(uid),
        gid=_number(gid),
        home=home,
        dash=dash,
        ext=ext + rest,
        ownership=Ownership.TRUSTED,
    )


def _number(text: bytes) -> int:
    # isdigit of bytes is ASCII only; ten digits hold any uid.
    if not text.isdigit() or len(text) > 10 or int(text) > _UID_MAX:
        raise damaged("expected a number as uid and gid")
    return int(text)
