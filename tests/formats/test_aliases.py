from __future__ import annotations

import pytest

from qsend.core.errors import PermFail, TempFail
from qsend.formats.addressitems import Domains
from qsend.formats.aliases import ADDRESS_MAX, parse_aliases, parse_include

DOMAINS = Domains(host=b"host.org", domain=b"dom.org", plus=b"plus.org")


def aliases(text: bytes) -> list[tuple[bytes, bytes]]:
    return list(parse_aliases(text, DOMAINS))


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        (b"root: adam", b":root@", b"&adam@host.org\0"),
        (b"ROOT : Adam", b":root@", b"&Adam@host.org\0"),
        (b"root adam", b":root@", b"&adam@host.org\0"),
        (b"a.b: c.d", b":a.b@", b"&c.d@host.org\0"),
        # As newaliases.c orders them: from the right, programs before addresses.
        (b"r: a, b@c.d, e", b":r@", b"&e@host.org\0&b@c.d\0&a@host.org\0"),
        (b'r: a, "|p", b', b":r@", b"!p\0&b@host.org\0&a@host.org\0"),
        (b'r: "|p x", |q', b":r@", b"!q\0!p x\0"),
        (b"r: |\"p 'x'\"", b":r@", b"!p 'x'\0"),
        (b"r: :include:/l, a", b":r@", b"/l.bin\0&a@host.org\0"),
        (b"r: :include:l", b":r@", b"./l.bin\0"),
        (b"r: :include:./l.bin", b":r@", b"./l.bin.bin\0"),
        (b"r: /v/box", b":r@", b"|mboxdeliver '/v/box'\0"),
        (b'r: "/v/a b\'s"', b":r@", b"|mboxdeliver '/v/a b'\\''s'\0"),
        (b"r: /dev/null", b":r@", b"|exit 0\0"),
        (b"r: |x@y.org", b":r@", b"&|x@y.org\0"),
        (b"r: /x@y.org", b":r@", b"&/x@y.org\0"),
        (b"r: Bob (boss) <b@c.d> (x)", b":r@", b"&b@c.d\0"),
        (b'"a b": c', b":a b@", b"&c@host.org\0"),
        (b"u@Virtual.org: c", b":u@virtual.org", b"&c@host.org\0"),
        (b"@virtual.org: c", b":@virtual.org", b"&c@host.org\0"),
        (b"u@: c", b":u@", b"&c@host.org\0"),
        (b"r: c@h, d@h+", b":r@", b"&d@h.plus.org\0&c@h.dom.org\0"),
        (b"r: \\r", b":r@", b"&r@host.org\0"),
    ],
)
def test_one_alias(text: bytes, key: bytes, value: bytes) -> None:
    assert aliases(text) == [(key, value)]
    assert aliases(text + b"\n") == [(key, value)]
    assert aliases(text + b"\r\n") == [(key, value)]


def test_lines_go_on_after_blanks_and_empty_lines() -> None:
    text = (
        b"# comment\n  of two lines\n\n \nr:\n\n  a,\n\tb\n\n  # no comment\n"
        b's: c\n#t: d\nu: "|x\n  y"\n'
    )
    values = b"".join(b"&%b@host.org\0" % each for each in b"comment no # b a".split())
    assert aliases(text) == [
        (b":r@", values),
        (b":s@", b"&c@host.org\0"),
        (b":u@", b"!x  y\0"),
    ]


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        (b"owner-l: a", (b"?l@", b"owner-l@host.org")),
        (b"Owner-L: a", (b"?l@", b"Owner-L@host.org")),
        (b"owner-l@v.org: a", (b"?l@v.org", b"owner-l@v.org")),
    ],
)
def test_owner_alias_makes_an_owner_too(
    text: bytes, owner: tuple[bytes, bytes]
) -> None:
    first, second = aliases(text)
    assert first == owner
    assert second[0] == b":" + text.split(b":")[0].lower() + (
        b"" if b"@" in text else b"@"
    )


def test_both_of_two_definitions_are_there_in_order() -> None:
    assert [value for _, value in aliases(b"r: a@b.c\nr: d@e.f\n")] == [
        b"&a@b.c\0",
        b"&d@e.f\0",
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"r:",
        b"r",
        b": r",
        b'r: "a',
        b"r: (a",
        b"r: <a",
        b"r: <>",
        b"r: a, <>, b",
        b'"": a',
        b'"|p": a',
        b"/f: a",
        b":include:x",
        b"r: :include:",
        b'r: "a\0b"',
    ],
)
def test_wrong_line_is_named(line: bytes) -> None:
    with pytest.raises(TempFail, match="line 3"):
        aliases(b"ok: a\n\n" + line + b"\n")


def test_long_address_is_refused() -> None:
    longest = b"x" * (ADDRESS_MAX - 4) + b"@y.z"
    assert aliases(b"r: " + longest) == [(b":r@", b"&" + longest + b"\0")]
    for line in (b"r: x" + longest, b"x" + longest + b": r"):
        with pytest.raises(PermFail, match="line 1"):
            aliases(line)


def include(text: bytes) -> list[bytes]:
    return list(parse_include(text, DOMAINS))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"", []),
        (b"a\nb@c.d, e@f+\n", [b"&a@host.org", b"&e@f.plus.org", b"&b@c.d"]),
        (b"#a\n\n  b (x)", [b"&b@host.org"]),
        (b"<>\n", []),
        (b":include:l\n:include:/m.bin\n", [b"./l.bin", b"/m.bin"]),
        (b"|x@y.z\n", [b"&|x@y.z"]),
    ],
)
def test_included_list(text: bytes, want: list[bytes]) -> None:
    assert include(text) == want


@pytest.mark.parametrize(
    "line", [b"|prog", b'"|prog x"', b"/file", b"(", b":include:", b'a@b."c "', b"\0"]
)
def test_included_list_has_addresses_only(line: bytes) -> None:
    with pytest.raises(TempFail, match="line 2"):
        include(b"a\n" + line)


def test_included_address_is_at_most_so_long() -> None:
    with pytest.raises(TempFail, match="line 1"):
        include(b"x" * ADDRESS_MAX + b"@y.z")
