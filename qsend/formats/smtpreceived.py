"""The Received field that an SMTP server puts in front of a message.

Source: received.c; RFC 5321 4.4, RFC 3848 (the word behind "with").
"""

from __future__ import annotations

from collections.abc import Mapping

from qsend.core.calendar import render_date

_KEPT = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.@%+/=:-[]"
)
_SAFE = bytes(byte if byte in _KEPT else ord("?") for byte in range(256))


def render_smtp_received(
    *,
    address: bytes,
    host: bytes | None,
    info: bytes | None,
    helo: bytes | None,
    local: bytes,
    protocol: bytes,
    now: int,
) -> bytes:
    """The whole field with its LFs; bytes that could mean something become `?`.

    Args:
        address: the client's; `host` its name, `info` what it or ident says it is.
        helo: what it called itself, None when it did not.
        local: who we are to it.
        protocol: `SMTP`, `ESMTPS` ...
        now: wall clock, whole seconds.
    """
    host = host or b"unknown"
    called = b""
    if helo is not None and helo.lower() != host.lower():
        called = b" (HELO %b)" % helo.translate(_SAFE)
    said = b"" if info is None else info.translate(_SAFE) + b"@"
    return b"Received: from %b%b (%b%b)\n  by %b with %b; %b\n" % (
        host.translate(_SAFE),
        called,
        said,
        address.translate(_SAFE),
        local.translate(_SAFE),
        protocol,
        render_date(now),
    )


def render_received_of(
    environ: Mapping[bytes, bytes], *, helo: bytes | None, protocol: bytes, now: int
) -> bytes:
    """The same for a client of whom tcpserver has told by the environment."""
    local = environ.get(b"TCPLOCALHOST") or environ.get(b"TCPLOCALIP")
    return render_smtp_received(
        address=environ.get(b"TCPREMOTEIP") or b"unknown",
        host=environ.get(b"TCPREMOTEHOST"),
        info=environ.get(b"TCPREMOTEINFO"),
        helo=helo,
        local=local or b"unknown",
        protocol=protocol,
        now=now,
    )
