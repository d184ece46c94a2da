"""What start and its children say to each other.

start to a child: CONTROLS (a new generation of the control files that this
process may know), with SECRETs before it, and PEER (a replaced sibling's socket, one
descriptor); to enqueue besides DETACH.
A child to start: READY once it serves. send besides: ASK, with a request for
the whole tree, and a listener ASK for a runner; and from start to send: SIGNAL, an
operator's signal, and PING, which send answers with PONG.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from qsend.core.errors import RemoteProtocolError
from qsend.formats.frames import FRAME_MAX, Fields, frame, string

CONTROLS = b"c"
"""Body: u32 generation, then u32 count of files and (name, content) strings;
a snapshot too long for one frame comes as CONTROLS_PART frames first."""
CONTROLS_PART = b"p"
SECRET = b"k"
"""Body: the name of a secret control file; one descriptor with its content comes with
it. It belongs to the CONTROLS that follow."""
PEER = b"n"
"""Body: the sibling's role; one descriptor comes with it."""
READY = b"r"
"""Body: empty."""
ASK = b"a"
"""Body: one of the ASK_ words below."""
DETACH = b"d"
"""start to enqueue, body empty: when this line closes, go on without start."""
SIGNAL = b"s"
"""Body: one of the SIGNAL_ words below."""
PING = b"i"
"""start to send, body empty: say that you are alive."""
PONG = b"o"
"""send to start; body: one line of text, how it does."""

ASK_RELOAD = b"reload"
ASK_STOP = b"stop"
ASK_STOP_ALL = b"stop-all"
ASK_ISOLATED = b"isolated"
"""A remote child of its own for a suspect; the answer is PEER "isolated"."""
ASK_KILL = b"kill "
"""Followed by the role of a child that does not answer: kill it, start it again."""

ASK_RUNNER = b"runner"
"""What a listener needs for a queueing program; the answer is PEER "runner"."""

SIGNAL_ALRM = b"alrm"
SIGNAL_TERM = b"term"

_LISTENERS = ("smtpd", "qmtpd")
_COUNT = struct.Struct("!I")
_HEAD = struct.Struct("!II")


def may_ask(kind: str, word: bytes) -> bool:
    """Whether children of that kind may send an ASK with the word."""
    return kind in _LISTENERS if word == ASK_RUNNER else kind == "send"


def render_controls(generation: int, files: Mapping[str, bytes]) -> list[bytes]:
    """The frames that carry one snapshot, to be sent in order."""
    body = _HEAD.pack(generation, len(files)) + b"".join(
        string(name.encode()) + string(content) for name, content in files.items()
    )
    pieces = [body[at : at + FRAME_MAX] for at in range(0, len(body), FRAME_MAX)]
    *parts, last = pieces
    return [frame(CONTROLS_PART, part) for part in parts] + [frame(CONTROLS, last)]


def parse_controls(body: bytes) -> tuple[int, dict[str, bytes]]:
    """(generation, name to content) of a whole body, its parts joined.

    Raises: RemoteProtocolError.
    """
    fields = Fields(body)
    generation, count = fields.take(_HEAD)
    files = {}
    for _ in range(count):
        name = fields.string()
        try:
            files[name.decode()] = fields.string(len(body))
        except UnicodeDecodeError as exc:
            raise RemoteProtocolError("control file name") from exc
    fields.end()
    return generation, files
