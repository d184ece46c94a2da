from __future__ import annotations

import pytest

from qsend.core.bounce import Identity, compose, paragraph

WHO = Identity(
    bouncefrom=b"MAILER-DAEMON",
    bouncehost=b"mail.example",
    doublebounceto=b"postmaster",
    doublebouncehost=b"mail.example",
)
DATE = b"1 Jan 2026 00:00:00 -0000"


@pytest.mark.parametrize(
    ("report", "want"),
    [
        (b"no such user\n", b"<a@b>:\nno such user\n\n"),
        (b"no line end", b"<a@b>:\nno line end\n\n"),
        (b"", b"<a@b>:\n\n"),
        (b"a\n\nb\n", b"<a@b>:\na\n/b\n\n"),
        (b"a\n\n\nb\n", b"<a@b>:\na\n//b\n\n"),
        (b"a\n\n", b"<a@b>:\na\n\n\n"),
        (b"a\n\n\n", b"<a@b>:\na\n/\n\n"),
        (b"\n\n\n", b"<a@b>:\n//\n\n"),
        (b"\n", b"<a@b>:\n\n\n"),
        (b"50% \xff", b"<a@b>:\n50% \xff\n\n"),
    ],
)
def test_paragraph_has_no_empty_line_inside(report: bytes, want: bytes) -> None:
    assert paragraph(b"a@b", report, {}) == want


def test_paragraph_hides_line_breaks_of_the_address() -> None:
    assert paragraph(b"a\nb@c", b"x\n", {}) == b"<a_b@c>:\nx\n\n"


def test_paragraph_shows_the_address_without_virtual_prefix() -> None:
    text = paragraph(b"joe-a@v.dom", b"x\n", {b"v.dom": b"joe"})
    assert text == b"<a@v.dom>:\nx\n\n"


def test_single_bounce_goes_to_the_sender_from_nobody() -> None:
    head = compose(b"me@home", WHO, DATE)
    assert head is not None
    assert (head.sender, head.recip) == (b"", b"me@home")
    fields, _, intro = head.before.partition(b"\n\n")
    assert fields == (
        b"Date: 1 Jan 2026 00:00:00 -0000\n"
        b"From: MAILER-DAEMON@mail.example\n"
        b"To: me@home\n"
        b"Subject: failure notice"
    )
    assert intro.startswith(b"Hi. This is the qmail-send program at mail.example.\n")
    assert intro.endswith(b"\n\n")
    assert b"\n\n" not in intro[:-2]
    assert head.after.startswith(b"--- Below this line is a copy of the message.\n\n")
    assert head.after.endswith(b"\nReturn-Path: <me@home>\n")


def test_verp_sender_gets_the_bounce_without_its_suffix() -> None:
    head = compose(b"list-owner-@host-@[]", WHO, DATE)
    assert head is not None
    assert head.recip == b"list-owner-@host"


def test_bounce_of_a_bounce_goes_to_the_postmaster() -> None:
    head = compose(b"", WHO, DATE)
    assert head is not None
    assert (head.sender, head.recip) == (b"#@[]", b"postmaster@mail.example")
    assert b"--- Below this line is the original bounce.\n" in head.after
    assert head.after.endswith(b"Return-Path: <>\n")


def test_bounce_of_a_double_bounce_is_discarded() -> None:
    assert compose(b"#@[]", WHO, DATE) is None


def test_addresses_in_the_header_are_quoted() -> None:
    head = compose(b"a b@home", WHO, DATE)
    assert head is not None
    assert b'To: "a b"@home\n' in head.before
    assert b'Return-Path: <"a b"@home>\n' in head.after


def test_line_end_in_the_sender_adds_no_header_field() -> None:
    head = compose(b"a\nBcc: x@y@home", WHO, DATE)
    assert head is not None
    fields = head.before.partition(b"\n\n")[0].split(b"\n")
    assert len(fields) == 4
    assert head.after.count(b"\n") == 3
