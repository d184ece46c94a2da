"""info/N in both directions, and what is no info file."""

from __future__ import annotations

import pytest

from qsend.core.errors import QueueCorrupt
from qsend.formats.info import parse_info, render_info


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


@pytest.mark.parametrize("content", [b"", b"F", b"Fa@x", b"Ta@x\0", b"\0F\0", b"f\0"])
def test_parse_info_of_something_else_is_corrupt(content: bytes) -> None:
    with pytest.raises(QueueCorrupt):
        parse_info(content)
