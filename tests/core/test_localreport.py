from __future__ import annotations

import pytest

from qsend.core.localreport import fit

NOTE = b"\nError report too long, sorry.\n"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"", b""),
        (b"x" * 3000, b"x" * 3000),
        (b"x" * 3001, b"x" * 2966 + NOTE),
        (b"x" * 99999, b"x" * 2966 + NOTE),
        (b"ab\0cd\n", b"ab"),
        (b"\0", b""),
        (b"x" * 2970 + b"\0" + b"x" * 99, b"x" * 2966 + NOTE),
    ],
)
def test_fit_keeps_the_head(text: bytes, want: bytes) -> None:
    assert fit(text) == want
    assert len(fit(text)) <= 3000


def test_fit_note_is_as_long_as_qmails() -> None:
    assert len(NOTE) == 31
