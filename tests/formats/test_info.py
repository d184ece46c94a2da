"""info/N in both directions, and what is no info file."""

from __future__ import annotations

import pytest

from qsend.core.errors import QueueCorrupt
from qsend.core.message import NO_NOTES, Note
from qsend.formats.info import parse_info, parse_notes, render_info


@pytest.mark.parametrize(
    ("sender", "content"),
    [
        (b"", b"F\0"),
        (b"joe@example.org", b"Fjoe@example.org\0"),
        (b"caf\xe9\n@x", b"Fcaf\xe9\n@x\0"),
    ],
)
def test_info_goes_both_ways(sender: bytes, content: bytes) -> None:
    assert render_info(sender) == content
    assert parse_info(content) == sender


def test_parse_info_with_several_records_takes_the_first() -> None:
    assert parse_info(b"Fa@x\0Fb@x\0rest") == b"a@x"


def test_notes_follow_the_sender_and_come_back() -> None:
    notes = {0: Note(b"a b@x"), 30: Note(b"c\n@x", is_unknown=True), 2**31: Note(b"")}
    content = render_info(b"me@x", notes)
    assert content.startswith(b"Fme@x\0O0 a b@x\0U30 c\n@x\0")
    assert parse_info(content) == b"me@x"
    assert parse_notes(content) == notes
    assert parse_notes(render_info(b"me@x")) == NO_NOTES


def test_what_else_follows_the_sender_is_no_note() -> None:
    for rest in (b"Fb@x\0", b"O\0", b"Ox a\0", b"O1 cut", b"X1 a\0", b"\0\0"):
        assert parse_notes(b"Fa@x\0" + rest + b"U7 z\0") in (
            {7: Note(b"z", is_unknown=True)},
            {1: Note(b"cutU7 z")},
        )


@pytest.mark.parametrize("content", [b"", b"F", b"Fa@x", b"Ta@x\0", b"\0F\0", b"f\0"])
def test_parse_info_of_something_else_is_corrupt(content: bytes) -> None:
    with pytest.raises(QueueCorrupt):
        parse_info(content)
