"""The words of service managers, both ways."""

from __future__ import annotations

import pytest

from qsend.formats import supervision
from qsend.formats.supervision import Offer, parse_offer

PID = 321
MINE = {b"LISTEN_PID": b"321"}


@pytest.mark.parametrize(
    ("environ", "want"),
    [
        ({}, Offer()),
        ({b"NOTIFY_SOCKET": b"/run/notify"}, Offer(notify=b"/run/notify")),
        ({b"NOTIFY_SOCKET": b"@abstract"}, Offer(notify=b"\0abstract")),
        ({b"NOTIFY_SOCKET": b""}, Offer()),
        ({b"NOTIFY_SOCKET": b"@"}, Offer()),
        ({b"NOTIFY_SOCKET": b"vsock:2:1234"}, Offer()),
        ({b"WATCHDOG_USEC": b"120000000"}, Offer(watchdog_s=120.0)),
        (
            {b"WATCHDOG_USEC": b"500000", b"WATCHDOG_PID": b"321"},
            Offer(watchdog_s=0.5),
        ),
        ({b"WATCHDOG_USEC": b"120000000", b"WATCHDOG_PID": b"322"}, Offer()),
        ({b"WATCHDOG_USEC": b"0"}, Offer()),
        ({b"WATCHDOG_USEC": b"-1"}, Offer()),
        ({b"WATCHDOG_USEC": b"soon"}, Offer()),
        ({b"WATCHDOG_USEC": b"9" * 30}, Offer()),
        ({**MINE, b"LISTEN_FDS": b"2"}, Offer(descriptors=2)),
        ({**MINE, b"LISTEN_FDS": b"257"}, Offer()),
        ({**MINE, b"LISTEN_FDS": b"two"}, Offer()),
        (MINE, Offer()),
        ({b"LISTEN_FDS": b"2"}, Offer()),
        ({b"LISTEN_PID": b"322", b"LISTEN_FDS": b"2"}, Offer()),
    ],
)
def test_offer(environ: dict[bytes, bytes], want: Offer) -> None:
    assert parse_offer(environ, PID) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"serving", b"STATUS=serving"),
        (b"two\nlines\n", b"STATUS=two lines"),
        (b"\x1b[2J bad \xff", b"STATUS=[2J bad \xef\xbf\xbd"),
        (b"a" * 5000, b"STATUS=" + b"a" * 512),
        (b"", b"STATUS="),
    ],
)
def test_status_is_one_printable_line(text: bytes, want: bytes) -> None:
    assert supervision.status(text) == want


def test_times_are_in_microseconds() -> None:
    assert supervision.reloading(1.5) == b"RELOADING=1\nMONOTONIC_USEC=1500000"
    assert supervision.stopping(80.0) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=80000000"
