"""Lines cut into records for syslog, however the stream is cut."""

from __future__ import annotations

import pytest

from qsend.formats.splog import RECORD_MAX, LogCutter, Urgency

ROWS = [
    (b"", []),
    (b"\n\n", []),
    (b"no end", []),
    (b"status: x\n", [("status: x", True, Urgency.INFO)]),
    (b"warning: x\n", [("warning: x", True, Urgency.WARNING)]),
    (b"alert: x\n", [("alert: x", True, Urgency.ALERT)]),
    (b"alert x\nwarning:", [("alert x", True, Urgency.INFO)]),
    (b"a\0\xff\tb\n", [("a???b", True, Urgency.INFO)]),
    (b"a" * 799 + b"\n", [("a" * 799, True, Urgency.INFO)]),
    (
        b"a" * 800 + b"\n\nb\n",
        [
            ("a" * 799, True, Urgency.INFO),
            ("a", False, Urgency.INFO),
            ("b", True, Urgency.INFO),
        ],
    ),
    (
        b"alert:" + b"a" * 1694 + b"\n",
        [
            ("alert:" + "a" * 793, True, Urgency.ALERT),
            ("a" * 799, False, Urgency.ALERT),
            ("a" * 102, False, Urgency.ALERT),
        ],
    ),
]


@pytest.mark.parametrize("cut", [1, 2, 3, 799, 800, 10000])
@pytest.mark.parametrize(("data", "want"), ROWS)
def test_records(data: bytes, want: list[tuple[str, bool, Urgency]], cut: int) -> None:
    cutter = LogCutter()
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
    found = [record for piece in pieces for record in cutter.feed(piece)]
    assert [(each.text, each.is_first, each.urgency) for each in found] == want


def test_long_line_waits_for_no_end() -> None:
    found = list(LogCutter().feed(b"x" * (2 * RECORD_MAX + 1)))
    assert [len(record.text) for record in found] == [RECORD_MAX] * 2
