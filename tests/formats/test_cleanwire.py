"""Requests to clean and its answers, both directions, and garbage."""

from __future__ import annotations

import pytest

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import FileIdentity, MessId
from qsend.formats import cleanwire
from qsend.formats.cleanwire import Answer, Aside, Foop, Request, Todo
from qsend.formats.frames import split

N = MessId(2**64 - 1)
WHO = FileIdentity(mtime_ns=1_700_000_000_123_456_789, size=2**40)

REQUESTS: list[tuple[bytes, Request]] = [
    (cleanwire.render_foop(N, WHO), Foop(messid=N, identity=WHO)),
    (
        cleanwire.render_foop(N, WHO, orphan=True),
        Foop(messid=N, identity=WHO, orphan=True),
    ),
    # Without an identity it must not touch a number that has a todo/N.
    (cleanwire.render_foop(N, None), Foop(messid=N, identity=None, orphan=True)),
    (cleanwire.render_todo(N), Todo(messid=N)),
    (
        cleanwire.render_aside(N, 5, b"todo: \xff"),
        Aside(messid=N, stamp=5, reason=b"todo: \xff"),
    ),
    (
        cleanwire.render_aside(N, 5, b"a\nb" + b"x" * 5000),
        Aside(messid=N, stamp=5, reason=b"a b" + b"x" * 997),
    ),
]


@pytest.mark.parametrize(("packet", "want"), REQUESTS)
def test_request_goes_both_ways(packet: bytes, want: Request) -> None:
    [(kind, body)] = split(packet)
    assert cleanwire.parse_request(kind, body) == want


@pytest.mark.parametrize("errno", [0, 5, 116])
@pytest.mark.parametrize(("packet", "request_"), REQUESTS)
def test_answer_goes_both_ways(packet: bytes, request_: Request, errno: int) -> None:
    op = packet[4:5]
    [(kind, body)] = split(cleanwire.render_answer(request_, errno))
    assert kind == (cleanwire.FAILED if errno else cleanwire.DONE)
    want = Answer(op=op, messid=N, errno=errno)
    assert cleanwire.parse_answer(kind, body) == want


@pytest.mark.parametrize(("packet", "_request"), REQUESTS)
def test_request_cut_or_lengthened_is_refused(packet: bytes, _request: Request) -> None:
    [(kind, body)] = split(packet)
    for end in range(len(body)):
        with pytest.raises(RemoteProtocolError):
            cleanwire.parse_request(kind, body[:end])
    with pytest.raises(RemoteProtocolError):
        cleanwire.parse_request(kind, body + b"\0")


@pytest.mark.parametrize("flags", [0, 4, 255])
def test_foop_that_would_remove_anything_is_refused(flags: int) -> None:
    body = bytes(24) + bytes([flags])
    with pytest.raises(RemoteProtocolError):
        cleanwire.parse_request(cleanwire.FOOP, body)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"?", bytes(9)),
        (cleanwire.DONE, b"f" + bytes(7)),
        (cleanwire.DONE, b"f" + bytes(9)),
        (cleanwire.DONE, b"q" + bytes(8)),
        (cleanwire.FAILED, b"f" + bytes(8)),
        (cleanwire.FAILED, b"f" + bytes(12)),
    ],
)
def test_answer_that_is_none_is_refused(kind: bytes, body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        cleanwire.parse_answer(kind, body)


def test_request_of_another_kind_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        cleanwire.parse_request(b"z", bytes(8))
