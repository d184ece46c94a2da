from __future__ import annotations

import pytest

from tests.cli.dotline import DotLine

WISH = b"Notice-Requested-Upon-Delivery-To: "


@pytest.mark.parametrize(
    ("header", "is_answered"),
    [
        (WISH + b"me@h.org\n", True),
        (WISH.lower() + b"x@y,\n Me <me@h.org> (hi)\n", True),
        (WISH + b"x@y\n" + WISH + b"me@h.org\n", True),
        (WISH + b"ME@h.org\n", False),
        (WISH + b"x@y\n", False),
        (b"To: me@h.org\n", False),
        (b"To: x\n\n" + WISH + b"me@h.org\n", False),
    ],
)
def test_receipt_only_for_who_asks_for_it(
    line: DotLine, header: bytes, is_answered: bool
) -> None:
    content = header + b"Message-ID: <1@x>\n\nbody\n"
    got = line.run("qreceipt", "me@h.org", content=content, SENDER="a b@t")
    assert (got.code, got.stdout, got.stderr) == (0, b"", b"")
    assert (got.envelope is not None) is is_answered
    if is_answered:
        assert (got.sender, got.recips) == (b"", [b"a b@t"])
        assert got.header == [
            b'From: DELIVERY NOTICE SYSTEM <"a b"@t>',
            b'To: <"a b"@t>',
            b"Subject: success notice",
        ]
        assert b" following address: me@h.org\n" in got.message
        assert got.message.endswith(b"Your Message-ID: <1@x>\n")


@pytest.mark.parametrize("sender", ["", "#@[]"])
def test_no_receipt_for_a_bounce(line: DotLine, sender: str) -> None:
    content = WISH + b"me@h.org\n\n"
    got = line.run("qreceipt", "me@h.org", content=content, SENDER=sender)
    assert (got.code, got.envelope) == (0, None)


def test_receipt_without_message_id(line: DotLine) -> None:
    got = line.run("qreceipt", "me@h.org", content=WISH + b"me@h.org")
    assert got.code == 0
    assert b"Your" not in got.message


@pytest.mark.parametrize("value", [b'"x', b"(x", b"x; y;", b"x>"])
def test_field_that_cannot_be_parsed(line: DotLine, value: bytes) -> None:
    got = line.run("qreceipt", "me@h.org", content=WISH + value + b"\n\n")
    assert (got.code, got.envelope) == (100, None)
    shown = b"qreceipt: fatal: unable to parse this: " + WISH + value + b"\n"
    assert got.stderr == shown


def test_qreceipt_usage_and_queue(line: DotLine) -> None:
    usage = b"qreceipt: usage: qreceipt deliveryaddress\n"
    got = line.run("qreceipt")
    assert (got.code, got.stderr) == (100, usage)
    got = line.run("qreceipt", "me@h.org", unset=("SENDER",))
    assert (got.code, got.stderr) == (100, usage)
    content = WISH + b"me@h.org\n\n"
    for queue, code in (("31", 100), ("53", 111)):
        got = line.run("qreceipt", "me@h.org", content=content, QUEUE_EXIT=queue)
        assert got.code == code
