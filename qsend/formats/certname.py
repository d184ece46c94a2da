"""The name a certificate goes by, for people to read; it proves nothing.

A certificate that nobody verified is not decoded by the ssl module, so this walks
its DER. What counts is decided from what the ssl module says of a verified one.
Must not be used to decide anything.
Source: RFC 5280 4.1, X.690 8.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

NAME_MAX = 100
"""Longest name shown; a host name of a mail server is shorter."""

_SEQUENCE, _SET, _OID, _OCTETS, _EXTENSIONS = 0x30, 0x31, 0x06, 0x04, 0xA3
_DNS, _ADDRESS = 0x82, 0x87
_ALT_NAME = bytes.fromhex("551d11")
_COMMON_NAME = bytes.fromhex("550403")
_STRINGS = (0x0C, 0x13, 0x14, 0x16)
"""UTF8String, PrintableString, TeletexString, IA5String."""


class _Unreadable(Exception):
    """Not DER, or not a certificate."""


def cert_name(der: bytes) -> bytes:
    """The first DNS name of a certificate, else its common name, else b"?".

    Printable ASCII without blanks; what is not becomes `?`. Never raises.
    """
    try:
        fields = list(_items(_inside(_inside(der, _SEQUENCE), _SEQUENCE)))
    except _Unreadable:
        return b"?"
    name = _first(_alt_names, fields) or _first(_common_names, fields) or b"?"
    return bytes(byte if 33 <= byte <= 126 else 63 for byte in name[:NAME_MAX])


def _first(
    find: Callable[[list[tuple[int, bytes]]], Iterator[bytes]],
    fields: list[tuple[int, bytes]],
) -> bytes:
    try:
        return next(find(fields), b"")
    except _Unreadable:
        return b""


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of each element, one after the other. Raises: _Unreadable."""
    at = 0
    while at < len(data):
        head = data[at : at + 2]
        if len(head) < 2 or head[0] & 0x1F == 0x1F:
            raise _Unreadable
        tag, size = head
        at += 2
        if size & 0x80:
            octets = size & 0x7F
            size = int.from_bytes(data[at : at + octets], "big")
            at += octets
            if not 1 <= octets <= 4:
                raise _Unreadable
        if at + size > len(data):
            raise _Unreadable
        yield tag, data[at : at + size]
        at += size


def _inside(data: bytes, tag: int) -> bytes:
    """The content of the first element, which must have this tag."""
    for found, content in _items(data):
        if found == tag:
            return content
        break
    raise _Unreadable


def _alt_names(fields: list[tuple[int, bytes]]) -> Iterator[bytes]:
    for tag, content in fields:
        if tag != _EXTENSIONS:
            continue
        for _tag, extension in _items(_inside(content, _SEQUENCE)):
            parts = list(_items(extension))
            if parts[:1] == [(_OID, _ALT_NAME)] and parts[-1][0] == _OCTETS:
                names = _items(_inside(parts[-1][1], _SEQUENCE))
                yield from (name for kind, name in names if kind == _DNS)


def _common_names(fields: list[tuple[int, bytes]]) -> Iterator[bytes]:
    # serial, algorithm, issuer, validity, subject; a version may stand in front.
    sequences = [content for tag, content in fields if tag == _SEQUENCE]
    for tag, content in _items(sequences[3] if len(sequences) > 3 else b""):
        if tag != _SET:
            continue
        for _tag, pair in _items(content):
            parts = list(_items(pair))
            if parts[:1] == [(_OID, _COMMON_NAME)] and parts[-1][0] in _STRINGS:
                yield parts[-1][1]
