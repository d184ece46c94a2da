"""Frames: how qsend's own processes cut the bytes they exchange.

Every wire of our own is a SOCK_SEQPACKET unix socket. One packet holds whole
frames, one after another: a 4-byte big-endian body length, one type byte, the
body. Inside a body, fields are fixed-width big-endian integers or strings with a
4-byte length. A packet that does not end with a frame, a body with bytes left
over, and an unknown type are protocol errors: the reader drops that peer.
"""

from __future__ import annotations

import struct

from qsend.core.errors import RemoteProtocolError
from qsend.core.light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 1
"""Said in every HELLO; raise it whenever a frame's meaning changes."""

PACKET_MAX = 65536
"""Longest packet: below the default socket buffer of every Linux, and long
enough for the largest single command (two addresses of 1002 bytes and paths)."""

FRAME_MAX = PACKET_MAX - 5
FDS_MAX = 64
"""Descriptors in one packet; the kernel allows 253."""

HELLO = b"h"
"""Body: u16 VERSION, u32 slots (how many deliveries the sender takes at once)."""

PING = b"\x00"
"""Body: empty. Are you there? Endpoints answer it by themselves with PONG."""
PONG = b"\x01"
"""Body: empty."""

_HEAD = struct.Struct("!IB")
_U32 = struct.Struct("!I")


def frame(kind: bytes, body: bytes) -> bytes:
    """One frame; `kind` is a single byte, `body` at most FRAME_MAX bytes."""
    if len(body) > FRAME_MAX:
        raise ValueError(f"frame body of {len(body)} bytes")
    return _HEAD.pack(len(body), kind[0]) + body


def split(packet: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The (kind, body) pairs of one packet, in order.

    Raises: RemoteProtocolError when the packet does not end with a whole frame.
    """
    at, end = 0, len(packet)
    while at < end:
        if end - at < 5:
            raise RemoteProtocolError("packet ends inside a frame head")
        length, kind = _HEAD.unpack_from(packet, at)
        at += 5
        if length > end - at:
            raise RemoteProtocolError("packet ends inside a frame body")
        yield bytes((kind,)), packet[at : at + length]
        at += length


def is_one(packet: bytes, kind: bytes) -> bool:
    """Whether the packet is one whole frame, of this kind (one byte)."""
    if packet[_HEAD.size - 1 : _HEAD.size] != kind:
        return False
    length: int = _HEAD.unpack_from(packet)[0]
    return len(packet) == _HEAD.size + length


def string(value: bytes) -> bytes:
    """One string field: 4-byte length, then the bytes."""
    return _U32.pack(len(value)) + value


class Fields:
    """Reads the fields of one body in order; `end` proves that none is left.

    Every method raises RemoteProtocolError on short input.
    """

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        """The integers of one struct layout."""
        try:
            values = layout.unpack_from(self._body, self._at)
        except struct.error as exc:
            raise RemoteProtocolError("frame body too short") from exc
        self._at += layout.size
        return values

    def string(self, limit: int = FRAME_MAX) -> bytes:
        """One string field of at most `limit` bytes."""
        (length,) = self.take(_U32)
        start = self._at
        if length > limit or start + length > len(self._body):
            raise RemoteProtocolError(f"string field of {length} bytes")
        self._at = start + length
        return self._body[start : self._at]

    def rest(self) -> bytes:
        """Everything not yet read."""
        value = self._body[self._at :]
        self._at = len(self._body)
        return value

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._body):
            raise RemoteProtocolError("bytes after the last field")


_HELLO = struct.Struct("!HI")


def hello(slots: int) -> bytes:
    """The first frame on a wire between two processes."""
    return frame(HELLO, _HELLO.pack(VERSION, slots))


def parse_hello(body: bytes) -> int:
    """The slots of a HELLO.

    Raises: RemoteProtocolError on another version or a malformed body.
    """
    fields = Fields(body)
    version, slots = fields.take(_HELLO)
    fields.end()
    if version != VERSION:
        raise RemoteProtocolError(f"wire version {version}, expected {VERSION}")
    return slots
