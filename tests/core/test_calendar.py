"""Times as header fields have them, against Python's own calendar."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsend.core.calendar import render_date, utc

FIRST, LAST = -62135596800, 253402300799
"""What datetime can say: the years 1 to 9999."""


@given(st.integers(FIRST, LAST))
def test_utc_is_what_datetime_says(now: int) -> None:
    assert utc(now) == datetime.fromtimestamp(now, UTC).timetuple()[:6]


@pytest.mark.parametrize(
    ("now", "want"),
    [
        (0, b"1 Jan 1970 00:00:00 -0000"),
        (812090813, b"26 Sep 1995 04:46:53 -0000"),
        (951782399, b"28 Feb 2000 23:59:59 -0000"),
        (951782400, b"29 Feb 2000 00:00:00 -0000"),
        (4102444800, b"1 Jan 2100 00:00:00 -0000"),
    ],
)
def test_date_is_in_utc(now: int, want: bytes) -> None:
    assert render_date(now) == want
