from __future__ import annotations

import struct

from qsend.formats.utmp import parse_utmp


def record(kind: int, user: bytes, line: bytes) -> bytes:
    """One struct utmp of Linux with 64 bit."""
    return struct.pack(
        "@hi32s4s32s256shhiii4i20x", kind, 1, line, b"id", user, b"", *[0] * 9
    )


def test_logins_only_are_listed() -> None:
    long_name = b"u" * 32
    content = (
        record(7, b"joe", b"pts/1")
        + record(8, b"joe", b"pts/2")
        + record(7, long_name, b"tty1")
    )
    want = [(b"joe", b"pts/1"), (long_name, b"tty1")]
    assert list(parse_utmp(content)) == want
    assert list(parse_utmp(content + b"x" * 100)) == want
    assert list(parse_utmp(content[:100])) == list(parse_utmp(b"")) == []
