from __future__ import annotations

import pytest

from qsend.formats.mbox import MboxText

TEXTS = [
    (b"", b"\n"),
    (b"a\n", b"a\n\n"),
    (b"a", b"a\n\n"),
    (b"\n", b"\n\n"),
    (b"From x\n", b">From x\n\n"),
    (b"From ", b">From \n\n"),
    (b"From", b"From\n\n"),
    (b"From\n", b"From\n\n"),
    (b"From: x\n", b"From: x\n\n"),
    (b">From x\n>>From y\nFrom z", b">>From x\n>>>From y\n>From z\n\n"),
    (b"x From y\n From z\n", b"x From y\n From z\n\n"),
    (b"a\n\nFrom b\n\nFrom c\n", b"a\n\n>From b\n\n>From c\n\n"),
    (b"a\nFromFrom x\n", b"a\nFromFrom x\n\n"),
    (b"a\n>F>From x\n", b"a\n>F>From x\n\n"),
    (b"a\n>Fro", b"a\n>Fro\n\n"),
    (b"a\n>>>", b"a\n>>>\n\n"),
    (b"a\n" + b">" * 50 + b"From x", b"a\n" + b">" * 51 + b"From x\n\n"),
    (b"a\rFrom x\n", b"a\rFrom x\n\n"),
]


@pytest.mark.parametrize(("message", "want"), TEXTS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 10**6])
def test_mbox_text_is_quoted_however_it_is_cut(
    message: bytes, want: bytes, size: int
) -> None:
    text = MboxText()
    cuts = range(0, len(message), size)
    got = b"".join(text.feed(message[at : at + size]) for at in cuts)
    assert got + text.finish() == want


def test_mbox_text_holds_back_no_more_than_four_bytes() -> None:
    text = MboxText()
    assert text.feed(b">" * 100_000) == b">" * 100_000
    assert text.feed(b"From") == b""
    assert text.feed(b" x") == b">From x"
