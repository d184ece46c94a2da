"""What a spawner refuses before it starts anything."""

from __future__ import annotations

import pytest

from qsend.core import spawncheck
from qsend.core.spawncheck import BAD_PATH, NO_DOMAIN

TABLE = [
    (b"5/28", b"a@h", None),
    (b"0/0", b"@", None),
    (b"5", b"a@h", None),
    (b"5/" + b"1" * 97, b"a@h", None),
    (b"5/" + b"1" * 98, b"a@h", BAD_PATH),
    (b"", b"a@h", BAD_PATH),
    (b"/", b"a@h", BAD_PATH),
    (b"/5", b"a@h", BAD_PATH),
    (b"../5", b"a@h", BAD_PATH),
    (b"5/..", b"a@h", BAD_PATH),
    (b"5/5\n", b"a@h", BAD_PATH),
    (b"5/\xb2", b"a@h", BAD_PATH),
    (b"5/5\0", b"a@h", BAD_PATH),
    (b"5/5", b"", NO_DOMAIN),
    (b"5/5", b"a", NO_DOMAIN),
    # The path is looked at first.
    (b"x", b"a", BAD_PATH),
]


@pytest.mark.parametrize(("path", "recip", "want"), TABLE)
def test_refuse(path: bytes, recip: bytes, want: spawncheck.Answer | None) -> None:
    assert spawncheck.refuse(path, recip) == want


def test_lookup_trouble_is_one_line_of_bounded_length() -> None:
    letter, text = spawncheck.lookup_trouble(b"a\nb" * 1000)
    assert letter.value == b"Z"
    assert text.count(b"\n") == 1
    assert text.endswith(b". (#4.3.0)\n")
    assert len(text) < 600
