from __future__ import annotations

import pytest

from qsend.core.errors import PermFail
from qsend.formats.addressitems import (
    Domains,
    Include,
    Item,
    Name,
    complete,
    parse_items,
)

DOMAINS = Domains(host=b"host", domain=b"dom.org", plus=b"plus.org")


def bare(text: bytes) -> Name:
    return Name(text, has_at=False)


def at(text: bytes) -> Name:
    return Name(text, has_at=True)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"", []),
        (b" (only a comment) ", []),
        (b"joe", [bare(b"joe")]),
        (b"\\joe", [bare(b"joe")]),
        (b"a, b@c.d ,\te", [bare(b"a"), at(b"b@c.d"), bare(b"e")]),
        (b"a b", [bare(b"a"), bare(b"b")]),
        (b"a.b @ c . d", [at(b"a.b@c.d")]),
        (b"Joe Q. Public <joe@x>, b", [at(b"joe@x"), bare(b"b")]),
        (b'"J, P" <joe@x> (c) b', [at(b"joe@x"), bare(b"b")]),
        (b"a <b> <c>", [bare(b"b"), bare(b"c")]),
        (b'"a b"@c.d', [at(b"a b@c.d")]),
        (b'"a@b"', [bare(b"a@b")]),
        (b"<>", [bare(b"")]),
        (b'""', [bare(b"")]),
        (b"|prog", [bare(b"|prog")]),
        (b'"|/usr/bin/prog -x \\"a b\\""', [bare(b'|/usr/bin/prog -x "a b"')]),
        (b'|"/usr/bin/prog -x", a', [bare(b"|/usr/bin/prog -x"), bare(b"a")]),
        (b'"|exec a || exit 75 #joe"', [bare(b"|exec a || exit 75 #joe")]),
        (b"|prog@x", [at(b"|prog@x")]),
        (b"/var/box.1", [bare(b"/var/box.1")]),
        (b":include:/etc/l.txt", [Include(b"/etc/l.txt")]),
        (b": Include : /etc/l", [Include(b"/etc/l")]),
        (b':include:"/etc/a b"', [Include(b"/etc/a b")]),
        (b":include:", [Include(b"")]),
        (b"a: b", [bare(b"a"), bare(b"b")]),
        (b"a: :include:l, b", [bare(b"a"), Include(b"l"), bare(b"b")]),
        (b"@d.org: x", [at(b"@d.org"), bare(b"x")]),
        (b"u@: x", [at(b"u@"), bare(b"x")]),
        (b"a@[1.2.3.4]", [at(b"a@[1.2.3.4]")]),
        (b"a;b", [bare(b"a"), bare(b"b")]),
        (b"a\r", [bare(b"a")]),
    ],
)
def test_items_of_a_line(text: bytes, want: list[Item]) -> None:
    assert parse_items(text) == want[::-1]


@pytest.mark.parametrize(
    "text", [b'"a', b"(a", b"a\\", b"a>", b"<a", b"a <b", b"[1", b'"a\0b"']
)
def test_what_does_not_match_is_refused(text: bytes) -> None:
    with pytest.raises(PermFail):
        parse_items(text)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        (bare(b"x"), b"x@host.dom.org"),
        (bare(b"x@y"), b"x@y@host.dom.org"),
        (at(b"x@"), b"x@host.dom.org"),
        (at(b"x@h"), b"x@h.dom.org"),
        (at(b"x@h+"), b"x@h.plus.org"),
        (at(b"x.y@h"), b"x.y@h.dom.org"),
        (at(b"x@h.org"), b"x@h.org"),
        (at(b"x@[::1]"), b"x@[::1]"),
        (at(b"@h"), b"@h.dom.org"),
    ],
)
def test_addresses_are_completed(name: Name, want: bytes) -> None:
    assert complete(name, DOMAINS) == want
