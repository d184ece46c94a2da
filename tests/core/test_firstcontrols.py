"""The first controls are those of config-fast."""

from __future__ import annotations

import pytest

from qsend.core.errors import ConfigError
from qsend.core.firstcontrols import check_host_name, first_controls


@pytest.mark.parametrize(
    ("me", "defaultdomain", "plusdomain"),
    [
        (b"a.b.c.d", b"b.c.d", b"c.d"),
        (b"a.b.c", b"b.c", b"b.c"),
        (b"b.c", b"b.c", b"b.c"),
    ],
)
def test_domains_come_from_the_name(
    me: bytes, defaultdomain: bytes, plusdomain: bytes
) -> None:
    assert first_controls(me) == {
        "me": me + b"\n",
        "defaultdomain": defaultdomain + b"\n",
        "plusdomain": plusdomain + b"\n",
        "locals": me + b"\n",
        "rcpthosts": me + b"\n",
    }


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("mail.example.org", b"mail.example.org"),
        ("Mail.Example.ORG.", b"mail.example.org"),
        ("a-1.example", b"a-1.example"),
        ("a" * 63 + ".example", b"a" * 63 + b".example"),
    ],
)
def test_host_name_is_lowered(text: str, want: bytes) -> None:
    assert check_host_name(text) == want


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "localhost", "a..b", ".a.b", "-a.b", "a b.c", "a.b\nc", "ä.example",
        "a" * 64 + ".b", "a." * 130 + "b", "a_b.c", "[1.2.3.4]",
    ],
)  # fmt: skip
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a full host name"):
        check_host_name(text)
