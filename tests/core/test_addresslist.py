"""Address lists and their rewriting: tables of what qmail-header(5) promises."""

from __future__ import annotations

import pytest

from qsend.core.addresslist import Defaults, Tokens, rewrite_address, rewrite_list
from qsend.core.tokens import address_bytes
from qsend.formats.rfc822 import render_field, tokenize

DEFAULTS = Defaults(
    host=tokenize(b"dh"), domain=tokenize(b"dom.org"), plus=tokenize(b"plus.org")
)


def rewrite(address: Tokens) -> Tokens:
    return rewrite_address(address, DEFAULTS)


@pytest.mark.parametrize(
    ("address", "want"),
    [
        (b"", b""),
        (b"x", b"x@dh.dom.org"),
        (b"x@h", b"x@h.dom.org"),
        (b"x@h+", b"x@h.plus.org"),
        (b"x@h.i+", b"x@h.i.plus.org"),
        (b"x+", b"x+@dh.dom.org"),
        (b"x@+", b"x@.plus.org"),
        (b'x@"h+"', b"x@h+.dom.org"),
        (b"x@y.z", b"x@y.z"),
        (b"x@y.", b"x@y.dom.org"),
        (b"x@y.z.", b"x@y.z"),
        (b"x@y.z..", b"x@y.z."),
        (b"x@", b"x@dh.dom.org"),
        (b"x@.", b"x@dh.dom.org"),
        (b"x.@", b"x.@dh.dom.org"),
        (b".", b""),
        (b"@", b""),
        (b"x@[1.2.3.4]", b"x@[1.2.3.4]"),
        (b"x@[]", b"x@[]"),
        (b"@r:x@[]", b"@r:x@[]"),
        (b"@r:x@y", b"x@y.dom.org"),
        (b"@r,@s:x@y", b"x@y.dom.org"),
        (b"@r:", b""),
        (b"@r", b""),
        (b"a.b", b"a.b@dh.dom.org"),
        (b'"a b"@h', b"a b@h.dom.org"),
        (b"x@y@z", b"x@y@z.dom.org"),
        (b"x(c)@y.z", b"x@y.z"),
    ],
)
def test_rewrite_address_completes(address: bytes, want: bytes) -> None:
    assert address_bytes(rewrite(tokenize(address))) == want


def test_rewrite_address_default_host_may_end_in_plus() -> None:
    defaults = Defaults(host=tokenize(b"d.h+"), domain=(), plus=tokenize(b"p.org"))
    assert address_bytes(rewrite_address(tokenize(b"x"), defaults)) == b"x@d.h.p.org"


@pytest.mark.parametrize(
    ("text", "field", "addresses"),
    [
        (b"", b"To:", []),
        (b"a b", b"To: a@dh.dom.org, b@dh.dom.org", [b"b@dh.dom.org", b"a@dh.dom.org"]),
        (b"a@b.c d@e.f", b"To: a@b.c, d@e.f", [b"d@e.f", b"a@b.c"]),
        (b"<>", b"To: <>", [b""]),
        (b"<@r:x@y>", b"To: <x@y.dom.org>", [b"x@y.dom.org"]),
        (b"J (x) D<a@b.c>", b"To: J (x) D <a@b.c>", [b"a@b.c"]),
        (b"J. Q. D <a@b.c>", b"To: J.Q.D <a@b.c>", [b"a@b.c"]),
        (b"a@b.c (Joe)", b"To: a@b.c (Joe)", [b"a@b.c"]),
        (b"a (Joe) @b.c", b"To: a@b.c (Joe)", [b"a@b.c"]),
        (b"a @ b . c", b"To: a@b.c", [b"a@b.c"]),
        (b"g: a@b.c, d@e.f;", b"To: g: a@b.c, d@e.f;", [b"d@e.f", b"a@b.c"]),
        (b"not shown:;", b"To: not shown: ;", []),
        (b"x@y.z, g: a@b.c;, h@i.j", None, [b"h@i.j", b"a@b.c", b"x@y.z"]),
        (b"a@b.c; x@y.z", b"To: a@b.c;, x@y.z", [b"x@y.z", b"a@b.c"]),
        (b",,", b"To: , ,", []),
        (b"<a@b.c> d@e.f", b"To: <a@b.c>, d@e.f", [b"d@e.f", b"a@b.c"]),
        (b"<a@b.c>, <d@e.f>", b"To: <a@b.c>, <d@e.f>", [b"d@e.f", b"a@b.c"]),
        (b"<a,b@c.d>", b"To: <a, b@c.d>", [b"a,b@c.d"]),
        (b"a@[1.2] b@[]", b"To: a@[1.2], b@[]", [b"b@[]", b"a@[1.2]"]),
    ],
)
def test_rewrite_list_finds_addresses_right_to_left(
    text: bytes, field: bytes | None, addresses: list[bytes]
) -> None:
    found = rewrite_list(tokenize(text), rewrite)
    assert found.is_complete
    assert list(found.addresses) == addresses
    if field is not None:
        assert render_field(b"To", found.tokens) == field + b"\n"


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        (b"a@b.c: d@e.f", [b"d@e.f"]),
        (b"g: a@b.c; h: i;, x@y.z; ,j@k.l;", [b"j@k.l"]),
        (b"x@y.z, a@b.c>", [b"x@y.z,a@b.c"]),
        (b"a@b.c, ;;d@e.f", [b"d@e.f"]),
        (b":", []),
    ],
)
def test_rewrite_list_error_keeps_addresses_right_of_it(
    text: bytes, addresses: list[bytes]
) -> None:
    found = rewrite_list(tokenize(text), rewrite)
    assert not found.is_complete
    assert list(found.addresses) == addresses


def test_rewrite_list_of_many_addresses_is_linear() -> None:
    found = rewrite_list(tokenize(b"a@b.c," * 20_000), rewrite)
    assert len(found.addresses) == 20_000
