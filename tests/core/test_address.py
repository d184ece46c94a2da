"""Addresses: split, quoting, VERP and log form, from tables."""

from __future__ import annotations

import pytest

from qsend.core.address import log_safe, quote, quote_local, split, unverp, verp


@pytest.mark.parametrize(
    ("address", "want"),
    [
        (b"a@b", (b"a", b"b")),
        (b"a@b@c", (b"a@b", b"c")),
        (b"a@", (b"a", b"")),
        (b"@b", (b"", b"b")),
        (b"a", (b"a", None)),
        (b"", (b"", None)),
        (b"#@[]", (b"#", b"[]")),
    ],
)
def test_split_cuts_at_last_at(
    address: bytes, want: tuple[bytes, bytes | None]
) -> None:
    assert split(address) == want


PLAIN_PUNCTUATION = b"!#$%&'*+-/=?^_`{|}~"


@pytest.mark.parametrize(
    ("local", "want"),
    [
        (b"joe", b"joe"),
        (b"j.o.e", b"j.o.e"),
        (PLAIN_PUNCTUATION, PLAIN_PUNCTUATION),
        (b"", b'""'),
        (b".joe", b'".joe"'),
        (b"joe.", b'"joe."'),
        (b".", b'"."'),
        (b"j..e", b'"j..e"'),
        (b"a b", b'"a b"'),
        (b"a@b", b'"a@b"'),
        (b'a"b', b'"a\\"b"'),
        (b"a\\b", b'"a\\\\b"'),
        (b"a\rb", b'"a\\\rb"'),
        (b"a\nb", b'"a\\\nb"'),
        (b"a\tb", b'"a\tb"'),
        (b"a\0b", b'"a\0b"'),
        ("ä".encode(), '"ä"'.encode()),
        (b"\xff", b'"\xff"'),
        (b"a,b", b'"a,b"'),
    ],
)
def test_quote_local_quotes_what_is_no_dot_string(local: bytes, want: bytes) -> None:
    assert quote_local(local) == want


def test_quote_local_every_single_byte() -> None:
    plain = {b for b in range(256) if quote_local(bytes((b,))) == bytes((b,))}
    letters_digits = {b for b in range(128) if chr(b).isalnum()}
    assert plain == letters_digits | set(PLAIN_PUNCTUATION)


@pytest.mark.parametrize(
    ("address", "want"),
    [
        (b"", b""),
        (b"joe", b"joe"),
        (b"a b", b"a b"),
        (b"a b@c d", b'"a b"@c d'),
        (b"@d", b'""@d'),
        (b"a@b@c", b'"a@b"@c'),
        (b"joe@d", b"joe@d"),
        (b"#@[]", b"#@[]"),
    ],
)
def test_quote_quotes_only_the_local_part(address: bytes, want: bytes) -> None:
    assert quote(address) == want


@pytest.mark.parametrize(
    ("sender", "recip", "want"),
    [
        (b"l-owner-@h-@[]", b"a@b", b"l-owner-a=b@h"),
        (b"l-@h-@[]", b"a@b@c", b"l-a@b=c@h"),
        (b"x@l-@h-@[]", b"a@b", b"x@l-a=b@h"),
        (b"l-@h-@[]", b"@", b"l-=@h"),
        (b"l-@h-@[]", b"a", b"l-@h-@[]"),
        (b"l-@h", b"a@b", b"l-@h"),
        (b"nohost-@[]", b"a@b", b"nohost-@[]"),
        (b"#@[]", b"a@b", b"#@[]"),
        (b"-@[]", b"a@b", b"-@[]"),
        (b"", b"a@b", b""),
    ],
)
def test_verp_expands_for_one_recipient(
    sender: bytes, recip: bytes, want: bytes
) -> None:
    assert verp(sender, recip) == want


@pytest.mark.parametrize(
    ("sender", "want"),
    [
        (b"box@host-@[]", b"box@host"),
        (b"box@host", b"box@host"),
        (b"#@[]", b"#@[]"),
        (b"-@[]", b""),
        (b"", b""),
    ],
)
def test_unverp_removes_the_mark(sender: bytes, want: bytes) -> None:
    assert unverp(sender) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"did 1+0+0\n", b"did_1+0+0/"),
        (b"a\n\nb\r", b"a//b_"),
        (b"100%", b"100_"),
        (b"\0\x1f !~\x7f\x80\xff", b"___!~___"),
        (b"", b""),
    ],
)
def test_log_safe_maps_bytes(text: bytes, want: bytes) -> None:
    assert log_safe(text) == want
