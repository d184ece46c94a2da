"""What send asks of clean, and the answers.

    send to clean   FOOP   u64 messid, u64 mtime_ns, u64 size, u8 flags
                    TODO   u64 messid
                    ASIDE  u64 messid, u64 stamp, string reason
    clean to send   DONE   u8 op (the type byte of the request), u64 messid
                    FAILED u8 op, u64 messid, u32 errno

A FOOP names the file and not only the number: mtime_ns and size are those of the
mess/N that shall go (flag KNOWN); without them it is bound to flag ORPHAN, which
keeps clean from touching a number that has a todo/N. ESTALE says that mess/N is
another file by now, or that an orphan has a todo/N; nothing was removed then.
A classic cleaner (qmail-clean) takes `foop/N` and `todo/N` tokens instead; their
bytes are in formats/classic.py.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import FileIdentity, MessId
from qsend.formats.frames import Fields, frame, string

FOOP = b"f"
TODO = b"t"
ASIDE = b"a"
DONE = b"+"
FAILED = b"!"

REASON_MAX = 1000
"""Longest reason kept with a damaged message; longer ones are cut."""

_FOOP = struct.Struct("!QQQB")
_TODO = struct.Struct("!Q")
_ASIDE = struct.Struct("!QQ")
_DONE = struct.Struct("!cQ")
_FAILED = struct.Struct("!cQI")
_OPS = frozenset({FOOP, TODO, ASIDE})
_ORPHAN = 1
_KNOWN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Foop:
    """Remove a message: intd/N, todo/N, and when these are durably gone, mess/N.

    `identity` is that of mess/N; None compares nothing. `orphan` asks to remove it
    only if it has no todo/N. A classic `foop/N` has neither, and leaves todo/N
    alone.
    """

    messid: MessId
    identity: FileIdentity | None
    orphan: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """Finish preprocessing: remove intd/N, then todo/N, durably."""

    messid: MessId


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """Move mess, intd and todo of N to aside/<N>.<stamp>/, durably.

    `stamp` is wall clock, whole seconds, chosen by send, which moves its own
    files there after the answer. `reason` is one line for the operator.
    """

    messid: MessId
    stamp: int
    reason: bytes


Request = Foop | Todo | Aside


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a request; `op` is FOOP, TODO or ASIDE, `errno` 0 when done."""

    op: bytes
    messid: MessId
    errno: int


def render_foop(
    messid: MessId, identity: FileIdentity | None, *, orphan: bool = False
) -> bytes:
    """The FOOP frame; without an identity it is an orphan's."""
    if identity is None:
        return frame(FOOP, _FOOP.pack(messid, 0, 0, _ORPHAN))
    flags = _KNOWN | (_ORPHAN if orphan else 0)
    return frame(FOOP, _FOOP.pack(messid, identity.mtime_ns, identity.size, flags))


def render_todo(messid: MessId) -> bytes:
    """The TODO frame."""
    return frame(TODO, _TODO.pack(messid))


def render_aside(messid: MessId, stamp: int, reason: bytes) -> bytes:
    """The ASIDE frame; line breaks in `reason` become spaces."""
    line = reason[:REASON_MAX].replace(b"\n", b" ")
    return frame(ASIDE, _ASIDE.pack(messid, stamp) + string(line))


def parse_request(kind: bytes, body: bytes) -> Request:
    """The request of one frame. Raises: RemoteProtocolError."""
    fields = Fields(body)
    request: Request
    if kind == FOOP:
        request = _parse_foop(fields)
    elif kind == TODO:
        request = Todo(messid=MessId(fields.take(_TODO)[0]))
    elif kind == ASIDE:
        number, stamp = fields.take(_ASIDE)
        reason = fields.string(REASON_MAX)
        request = Aside(messid=MessId(number), stamp=stamp, reason=reason)
    else:
        raise RemoteProtocolError(f"unexpected frame {kind!r} from send")
    fields.end()
    return request


def _parse_foop(fields: Fields) -> Foop:
    number, mtime_ns, size, flags = fields.take(_FOOP)
    if flags not in (_ORPHAN, _KNOWN, _ORPHAN | _KNOWN):
        raise RemoteProtocolError(f"foop with flags {flags}")
    known = FileIdentity(mtime_ns=mtime_ns, size=size) if flags & _KNOWN else None
    orphan = bool(flags & _ORPHAN)
    return Foop(messid=MessId(number), identity=known, orphan=orphan)


def render_answer(request: Request, errno: int) -> bytes:
    """The DONE frame for errno 0, else the FAILED frame."""
    match request:
        case Foop():
            op = FOOP
        case Todo():
            op = TODO
        case Aside():
            op = ASIDE
    if errno == 0:
        return frame(DONE, _DONE.pack(op, request.messid))
    return frame(FAILED, _FAILED.pack(op, request.messid, errno))


def parse_answer(kind: bytes, body: bytes) -> Answer:
    """The answer of one frame. Raises: RemoteProtocolError."""
    layout = {DONE: _DONE, FAILED: _FAILED}.get(kind)
    if layout is None or len(body) != layout.size:
        raise RemoteProtocolError(f"unexpected frame {kind!r} from clean")
    op, number, *rest = layout.unpack(body)
    if op not in _OPS or rest == [0]:
        raise RemoteProtocolError("answer to nothing that was asked")
    return Answer(op=op, messid=MessId(number), errno=rest[0] if rest else 0)
