"""What a listener and runner say to each other about queueing programs.

The listener sends RUN with two descriptors, the reading ends of pipes for message and
envelope, then COMMIT when its client has said all, or ABORT when it will not. The
answer to each RUN is one RESULT, but none is wanted after ABORT; it may come before
COMMIT. Numbers are the listener's. Which program it is runner finds out for itself.
Source: docs/NETWORK.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from qsend.core.access import Client
from qsend.core.errors import RemoteProtocolError
from qsend.formats.frames import Fields, frame, string

RUN = b"R"
"""Body: u32 number, u8 flags, then strings: service, address, host, info, login; two
descriptors come with it."""
COMMIT = b"."
"""Body: u32 number; message and envelope are on their way as a whole."""
ABORT = b"x"
"""Body: u32 number; the envelope will not be complete."""
RESULT = b"="
"""Body: u32 number, i16 exit code (-1 for a signal), u32 pid, then the custom text."""

_NUMBER = struct.Struct("!I")
_HEAD = struct.Struct("!IB")
_RESULT = struct.Struct("!IhI")
_HAS_HOST, _HAS_INFO, _HAS_LOGIN = 1, 2, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """For whom a program is to be run.

    `service` is one of tcprules.SERVICES, `login` who has logged in, None for nobody.
    """

    number: int
    service: str
    client: Client
    login: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a program ended: `code` and `custom` are for queueexit.explain."""

    number: int
    code: int
    pid: int = 0
    custom: bytes = b""


def render_request(request: Request) -> bytes:
    """The RUN frame."""
    client = request.client
    given = (client.host, client.info, request.login)
    flags = sum(1 << at for at, each in enumerate(given) if each is not None)
    words = (request.service.encode(), client.address.encode(), *given)
    return frame(
        RUN,
        _HEAD.pack(request.number, flags)
        + b"".join(string(word or b"") for word in words),
    )


def parse_request(body: bytes) -> Request:
    """The same back. Raises: RemoteProtocolError, also for a NUL in it."""
    fields = Fields(body)
    number, flags = fields.take(_HEAD)
    service, address, host, info, login = (fields.string() for _ in range(5))
    fields.end()
    if any(b"\0" in each for each in (service, address, host, info, login)):
        raise RemoteProtocolError("NUL in a RUN frame")
    return Request(
        number=number,
        service=service.decode("ascii", "replace"),
        client=Client(
            address=address.decode("ascii", "replace"),
            host=host if flags & _HAS_HOST else None,
            info=info if flags & _HAS_INFO else None,
        ),
        login=login if flags & _HAS_LOGIN else None,
    )


def render_word(kind: bytes, number: int) -> bytes:
    """A COMMIT or ABORT frame."""
    return frame(kind, _NUMBER.pack(number))


def parse_word(body: bytes) -> int:
    """The number in a COMMIT or ABORT body. Raises: RemoteProtocolError."""
    fields = Fields(body)
    (number,) = fields.take(_NUMBER)
    fields.end()
    return number


def render_result(result: Result) -> bytes:
    """The RESULT frame."""
    head = _RESULT.pack(result.number, result.code, result.pid)
    return frame(RESULT, head + result.custom)


def parse_result(body: bytes) -> Result:
    """The same back. Raises: RemoteProtocolError."""
    fields = Fields(body)
    number, code, pid = fields.take(_RESULT)
    return Result(number=number, code=code, pid=pid, custom=fields.rest())
