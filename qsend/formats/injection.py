"""Injection frames: how a program hands a message to the enqueue process.

A client numbers its streams as it likes and may interleave many on one
connection: MESSAGE frames, then ENVELOPE frames, then COMMIT; the answer to each
stream is one RESULT, after which the number may be used again. A RESULT may come
before COMMIT (disk full, bad envelope): the client then sends ABORT, or closes.
Must not hold addresses: the envelope passes as bytes in qmail-queue's fd 1 form.
"""

from __future__ import annotations

import struct

from qsend.core.errors import RemoteProtocolError
from qsend.core.light import TYPE_CHECKING
from qsend.formats.frames import FRAME_MAX, Fields, frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qsend.core.model import MessId

MESSAGE = b"M"
"""Body: u32 stream, then bytes of the message."""
ENVELOPE = b"E"
"""Body: u32 stream, then bytes of the envelope, cut anywhere."""
COMMIT = b"."
"""Body: u32 stream; message and envelope are complete."""
ABORT = b"x"
"""Body: u32 stream; forget it. Has no answer; after COMMIT it comes too late."""
RESULT = b"="
"""enqueue to client; body: u32 stream, u8 exit code, u64 qp."""
QUEUED = b"q"
"""enqueue to send; body: u64 messid, any number of them."""
PRESSURE = b"p"
"""send to enqueue; body: u8, 1 when send has too much to take up, 0 when no more."""
HANDOVER = b"v"
"""A new start to a detached enqueue, body empty; the answer is the same frame
with the listening socket."""

WHOLE_CONNECTION = 2**32 - 1
"""Stream number of a RESULT that refuses the connection; clients must not use it."""

CHUNK_MAX = 61440
"""Bytes of message or envelope in one frame: 15 pages, and the frame fits."""

_STREAM = struct.Struct("!I")
_RESULT = struct.Struct("!IBQ")
_QUEUED_MAX = FRAME_MAX // 8


def render_chunks(kind: bytes, stream: int, data: bytes) -> Iterator[bytes]:
    """The MESSAGE or ENVELOPE frames that carry `data`; none for b""."""
    head = _STREAM.pack(stream)
    for at in range(0, len(data), CHUNK_MAX):
        yield frame(kind, head + data[at : at + CHUNK_MAX])


def render_word(kind: bytes, stream: int) -> bytes:
    """A COMMIT or ABORT frame."""
    return frame(kind, _STREAM.pack(stream))


def parse_stream(body: bytes) -> tuple[int, bytes]:
    """(stream, bytes behind it) of a client's frame.

    Raises: RemoteProtocolError on a short body or a number clients must not use.
    """
    fields = Fields(body)
    (stream,) = fields.take(_STREAM)
    if stream == WHOLE_CONNECTION:
        raise RemoteProtocolError("reserved stream number")
    return stream, fields.rest()


def render_result(stream: int, code: int, qp: int) -> bytes:
    """The RESULT frame; `code` is 0 to 255, `qp` the number shown in the log."""
    return frame(RESULT, _RESULT.pack(stream, code, qp))


def parse_result(body: bytes) -> tuple[int, int, int]:
    """(stream, exit code, qp). Raises: RemoteProtocolError."""
    fields = Fields(body)
    stream, code, qp = fields.take(_RESULT)
    fields.end()
    return stream, code, qp


def render_queued(messids: Sequence[MessId]) -> Iterator[bytes]:
    """The QUEUED frames that carry `messids`, in order."""
    for at in range(0, len(messids), _QUEUED_MAX):
        part = messids[at : at + _QUEUED_MAX]
        yield frame(QUEUED, struct.pack(f"!{len(part)}Q", *part))


def render_pressure(*, is_pressed: bool) -> bytes:
    """The PRESSURE frame."""
    return frame(PRESSURE, bytes((is_pressed,)))


def parse_pressure(body: bytes) -> bool:
    """Whether there is pressure. Raises: RemoteProtocolError."""
    if body not in (b"\0", b"\1"):
        raise RemoteProtocolError("PRESSURE body")
    return body == b"\1"


def parse_queued(body: bytes) -> list[MessId]:
    """The messids of a QUEUED body. Raises: RemoteProtocolError on a broken one."""
    if len(body) % 8:
        raise RemoteProtocolError("QUEUED body is not whole numbers")
    return [number for (number,) in struct.iter_unpack("!Q", body)]
