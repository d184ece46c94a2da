from __future__ import annotations

import pytest

from qsend.formats.crlf import Unix, network


@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_there_and_back(step: int) -> None:
    text = b"a\n\rb\r\n\n\nc\rd"
    wire = network(text)
    lines = Unix()
    pieces = [wire[at : at + step] for at in range(0, len(wire), step)]
    assert b"".join(map(lines.feed, pieces)) + lines.end() == text


def test_last_cr_is_not_lost() -> None:
    lines = Unix()
    assert (lines.feed(b"a\r"), lines.end(), lines.end()) == (b"a", b"\r", b"")
