from __future__ import annotations

import pytest

from qsend.core.localenv import (
    LoopScan,
    delivered_to,
    environment,
    from_line,
    return_path,
)
from qsend.core.model import Ownership, User

USER = User(
    name=b"joe", uid=1, gid=2, home=b"/home/joe", dash=b"-", ext=b"A-b-c-d",
    ownership=Ownership.UID,
)  # fmt: skip


@pytest.mark.parametrize(
    ("local", "domain", "want"),
    [
        (b"joe-A", b"h.org", b"Delivered-To: joe-A@h.org\n"),
        (b"a\nb", b"h\n", b"Delivered-To: a_b@h_\n"),
        (b"%d", b"%s", b"Delivered-To: %d@%s\n"),
    ],
)
def test_delivered_to_line(local: bytes, domain: bytes, want: bytes) -> None:
    assert delivered_to(local, domain) == want


@pytest.mark.parametrize(
    ("sender", "want"),
    [
        (b"", b"Return-Path: <>\n"),
        (b"a@b", b"Return-Path: <a@b>\n"),
        (b"a b@c", b'Return-Path: <"a b"@c>\n'),
        (b"#@[]", b"Return-Path: <#@[]>\n"),
        (b"a@b\nX: y", b"Return-Path: <a@b_X: y>\n"),
    ],
)
def test_return_path_line(sender: bytes, want: bytes) -> None:
    assert return_path(sender) == want


@pytest.mark.parametrize(
    ("sender", "now", "want"),
    [
        (b"", 0, b"From MAILER-DAEMON Thu Jan 01 00:00:00 1970\n"),
        (b"a b\tc\nd@e", 951786061, b"From a-b-c-d@e Tue Feb 29 01:01:01 2000\n"),
        (b"x@y", 1735689599, b"From x@y Tue Dec 31 23:59:59 2024\n"),
    ],
)
def test_from_line(sender: bytes, now: int, want: bytes) -> None:
    assert from_line(sender, now) == want


def test_environment_is_exactly_this() -> None:
    got = environment(
        {b"PATH": b"/bin", b"DEFAULT": b"inherited", b"USER": b"root"},
        USER,
        local=b"joe-A-b-c-d",
        domain=b"x.y.z",
        sender=b"s t@u",
        new_sender=b"n@o",
        default=None,
        now=0,
    )
    assert got == {
        b"PATH": b"/bin",
        b"SENDER": b"s t@u",
        b"NEWSENDER": b"n@o",
        b"RECIPIENT": b"joe-A-b-c-d@x.y.z",
        b"LOCAL": b"joe-A-b-c-d",
        b"HOST": b"x.y.z",
        b"HOST2": b"x.y",
        b"HOST3": b"x",
        b"HOST4": b"x",
        b"USER": b"joe",
        b"HOME": b"/home/joe",
        b"EXT": b"A-b-c-d",
        b"EXT2": b"b-c-d",
        b"EXT3": b"c-d",
        b"EXT4": b"d",
        b"DTLINE": b"Delivered-To: joe-A-b-c-d@x.y.z\n",
        b"RPLINE": b'Return-Path: <"s t"@u>\n',
        b"UFLINE": b"From s-t@u Thu Jan 01 00:00:00 1970\n",
    }


@pytest.mark.parametrize(
    ("ext", "want"),
    [
        (b"", (b"", b"", b"")),
        (b"a", (b"", b"", b"")),
        (b"a-", (b"", b"", b"")),
        (b"a-b-c", (b"b-c", b"c", b"")),
        (b"-a-b-c-d", (b"a-b-c-d", b"b-c-d", b"c-d")),
    ],
)
def test_environment_ext_parts(ext: bytes, want: tuple[bytes, ...]) -> None:
    user = User(
        name=b"j",
        uid=1,
        gid=1,
        home=b"/",
        dash=b"-",
        ext=ext,
        ownership=Ownership.TRUSTED,
    )
    got = environment(
        {}, user, local=b"", domain=b"localhost", sender=b"", new_sender=b"",
        default=ext, now=0,
    )  # fmt: skip
    assert (got[b"EXT2"], got[b"EXT3"], got[b"EXT4"]) == want
    assert got[b"DEFAULT"] == ext
    assert {got[b"HOST2"], got[b"HOST3"], got[b"HOST4"]} == {b"localhost"}


LINE = b"Delivered-To: a@b\n"
SCANS = [
    (LINE + b"\nbody\n", True),
    (b"From: x\n" + LINE + b"To: y\n\nbody\n", True),
    (b"From: x\n" + LINE, True),
    (b"From: x\n\n" + LINE, False),
    (b"\n" + LINE, False),
    (b"Delivered-To: A@b\n\n", False),
    (b"delivered-to: a@b\n\n", False),
    (b"X-Delivered-To: a@b\n\n", False),
    (b"Delivered-To: a@b \n\n", False),
    (b"Delivered-To: a@b", False),
    (b"", False),
    (b"X: " + b"y" * 200 + b"\n" + LINE, True),
]


@pytest.mark.parametrize(("message", "want"), SCANS)
@pytest.mark.parametrize("size", [1, 2, 3, 20, 10**6])
def test_loop_scan_finds_the_exact_line_in_the_header_only(
    message: bytes, want: bool, size: int
) -> None:
    scan = LoopScan(LINE)
    for at in range(0, len(message), size):
        if scan.feed(message[at : at + size]):
            break
    assert scan.found is want


def test_loop_scan_stops_at_the_end_of_the_header() -> None:
    scan = LoopScan(LINE)
    assert not scan.feed(b"A: b\n")
    assert scan.feed(b"\nbody")
    assert not scan.found
