"""Envelopes in todo/N and on fd 1: tables both ways, every cut, every limit."""

from __future__ import annotations

import pytest

from qsend.core.errors import LocalProtocolError, QueueCorrupt
from qsend.formats.queueexit import QueueExit
from qsend.formats.todo import (
    ADDRESS_MAX,
    Envelope,
    EnvelopeReader,
    parse_todo,
    render_head,
    render_todo,
    render_wire,
)

LONGEST = b"x" * ADDRESS_MAX


def envelope(sender: bytes, *recips: bytes, uid: int = 1, pid: int = 2) -> Envelope:
    return Envelope(uid=uid, pid=pid, sender=sender, recips=recips)


BOTH_WAYS = [
    (b"u1\0p2\0Fa@b\0Tc@d\0", envelope(b"a@b", b"c@d")),
    (b"u1\0p2\0F\0", envelope(b"")),
    (
        b"u0\0p4194304\0F#@[]\0T\0Tx\r\ny\0",
        envelope(b"#@[]", b"", b"x\r\ny", uid=0, pid=1 << 22),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("content", "want"), BOTH_WAYS)
def test_parse_and_render_agree(content: bytes, want: Envelope) -> None:
    assert parse_todo(content) == want
    assert render_todo(want) == content


@pytest.mark.parametrize(
    ("content", "want"),
    [
        (b"Tc\0Fa\0p2\0u1\0Td\0", envelope(b"a", b"c", b"d")),
        (b"Fa\0Fb\0Tc\0u1\0p2\0", envelope(b"a", b"c")),
        (b"Fa\0", envelope(b"a", uid=0, pid=0)),
    ],
)
def test_parse_takes_any_order_and_the_first_sender(
    content: bytes, want: Envelope
) -> None:
    assert parse_todo(content) == want


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"u1\0p2\0",
        b"u1\0p2\0Fa\0Tb",
        b"u1\0p2\0Fa\0Xb\0",
        b"u1\0p2\0Fa\0\0",
        b"u\0Fa\0",
        b"u-1\0Fa\0",
        b"u1x\0Fa\0",
        b"p" + b"9" * 21 + b"\0Fa\0",
        b"p" + b"9" * 20 + b"\0Fa\0",
    ],
)
def test_parse_damaged_content_raises(content: bytes) -> None:
    with pytest.raises(QueueCorrupt):
        parse_todo(content)


def test_render_wire_is_the_fd1_form() -> None:
    assert render_wire(b"a@b", [b"c@d", b""]) == b"Fa@b\0Tc@d\0T\0\0"
    assert render_wire(b"", []) == b"F\0\0"
    for sender, recip in [(b"a\0", b"b"), (b"a", b"b\0c")]:
        with pytest.raises(LocalProtocolError):
            render_wire(sender, [recip])


WIRE = [
    # (input, exit code, stored)
    (b"Fa@b\0Tc@d\0\0", 0, b"Fa@b\0Tc@d\0"),
    (b"F\0\0", 0, b"F\0"),
    (b"Fa\0T\0T\0\0", 0, b"Fa\0T\0T\0"),
    (b"Fa\r\n\0Tb\nc\0\0", 0, b"Fa\r\n\0Tb\nc\0"),
    (b"Fa\0Tb\0\0ignored", 0, b"Fa\0Tb\0"),
    (b"Fa\0Tb\0\0Fa\0", 0, b"Fa\0Tb\0"),
    (
        b"F" + LONGEST + b"\0T" + LONGEST + b"\0\0",
        0,
        b"F" + LONGEST + b"\0T" + LONGEST + b"\0",
    ),
    (b"F" + LONGEST + b"x\0\0", QueueExit.TOO_LONG, None),
    (b"Fa\0T" + LONGEST + b"x\0\0", QueueExit.TOO_LONG, None),
    (b"Fa\0T" + LONGEST * 3, QueueExit.TOO_LONG, None),
    (b"Fa\0T" + LONGEST, QueueExit.READ, None),
    (b"", QueueExit.READ, None),
    (b"F", QueueExit.READ, None),
    (b"Fa", QueueExit.READ, None),
    (b"Fa\0", QueueExit.READ, None),
    (b"Fa\0Tb", QueueExit.READ, None),
    (b"Fa\0Tb\0", QueueExit.READ, None),
    (b"\0", QueueExit.FORMAT, None),
    (b"Ta\0\0", QueueExit.FORMAT, None),
    (b"fa\0\0", QueueExit.FORMAT, None),
    (b"Fa\0Fb\0\0", QueueExit.FORMAT, None),
    (b"Fa\0Tb\0Xc\0\0", QueueExit.FORMAT, None),
]  # fmt: skip


@pytest.mark.parametrize("cut", [1, 2, 3, 100000])
@pytest.mark.parametrize(("wire", "code", "stored"), WIRE)
def test_reader_gives_code_and_stored_form_however_cut(
    wire: bytes, code: int, stored: bytes | None, cut: int
) -> None:
    reader = EnvelopeReader()
    kept = [reader.feed(wire[at : at + cut]) for at in range(0, len(wire), cut)]
    assert reader.finish() == code
    assert reader.finish() == code
    if stored is not None:
        assert b"".join(kept) == stored
        assert reader.is_complete
        head = render_head(7, 8)
        assert parse_todo(head + stored).uid == 7


@pytest.mark.parametrize("cut", [1, 7, 1003, 65536])
def test_reader_keeps_nothing_of_a_long_list(cut: int) -> None:
    wire = b"Fa\0" + b"Trecip@example.org\0" * 20000 + b"\0"
    reader = EnvelopeReader()
    stored = 0
    for at in range(0, len(wire), cut):
        stored += len(reader.feed(wire[at : at + cut]))
    assert reader.finish() == 0
    assert stored == len(wire) - 1


def test_reader_stops_storing_at_the_first_error() -> None:
    reader = EnvelopeReader()
    assert reader.feed(b"Fa\0") == b"Fa\0"
    assert reader.feed(b"X") == b""
    assert reader.error == QueueExit.FORMAT
    assert reader.feed(b"Tb\0\0") == b""
    assert reader.finish() == QueueExit.FORMAT
