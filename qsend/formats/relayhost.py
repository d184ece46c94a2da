"""RELAYHOST: the host that a directory's mail is pushed to, on one line.

`host` or `host:port`; an IPv6 address in brackets if a port follows.
Source: docs/SERIALMAIL.md; qmail-control(5), smtproutes, for the form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from qsend.core.errors import PermFail

RELAYHOST_MAX = 1024
"""Longest file that is looked at; a host name has at most 255 bytes."""

_FORM = re.compile(
    rb"(?:\[(?P<bracketed>[0-9A-Za-z:.]+)\]|(?P<name>[0-9A-Za-z._-]{1,255}))(?::(?P<port>\d{1,5}))?"
    rb"|(?P<v6>[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayHost:
    """`port` is None where none is named."""

    host: bytes
    port: int | None


def parse_relayhost(content: bytes) -> RelayHost:
    """The first line that says something; `#` begins a comment line.

    Raises: PermFail when it names no host.
    """
    lines = (line.strip() for line in content[:RELAYHOST_MAX].split(b"\n"))
    first = next((line for line in lines if line and line[:1] != b"#"), b"")
    found = parse_host(first)
    if found is None:
        raise PermFail("RELAYHOST names no host; expected host or host:port")
    return found


def parse_host(text: bytes) -> RelayHost | None:
    """The host that one line names, None when it is none."""
    found = _FORM.fullmatch(text)
    port = int(found["port"]) if found and found["port"] else None
    if found is None or port == 0 or (port or 0) > 65535:
        return None
    host = found["bracketed"] or found["name"] or found["v6"]
    return RelayHost(host=host, port=port)
