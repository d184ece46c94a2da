from __future__ import annotations

import pytest

from qsend.core.errors import PermFail, TempFail
from qsend.formats.aliases import ADDRESS_MAX
from qsend.formats.maillist import parse_lines, render_lines


def test_lines_become_commands_and_lines_again() -> None:
    text = b"# c\n\n a\n&b@c \t\n./l\n/m x\nd@e"
    commands = list(parse_lines(text))
    assert commands == [b"& a", b"&b@c", b"./l", b"/m x", b"&d@e"]
    binary = b"".join(command + b"\0" for command in commands)
    printed = b"".join(render_lines(binary))
    assert printed == b"& a\n&b@c\n./l\n/m x\n&d@e\n"
    assert list(parse_lines(printed)) == commands


@pytest.mark.parametrize("text", [b"a\0b", b"x" * (ADDRESS_MAX + 1)])
def test_wrong_line_is_refused(text: bytes) -> None:
    with pytest.raises(TempFail):
        list(parse_lines(text))


@pytest.mark.parametrize(
    "binary",
    [b"&a", b"a@b\0", b"|p\0", b"\0", b"&a\nb\0", b"&a \0", b"&a\t\0", b"&%999d\0" % 1],
)  # fmt: skip
def test_what_is_no_list_is_refused(binary: bytes) -> None:
    with pytest.raises(PermFail):
        list(render_lines(binary))


def test_empty_list_is_one() -> None:
    assert list(render_lines(b"")) == list(parse_lines(b"")) == []
