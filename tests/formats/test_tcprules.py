"""Access rules as text and as a cdb, compared with Debian's tcprules."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsend.core.access import Rule
from qsend.core.errors import ConfigError
from qsend.formats.tcprules import (
    parse_lengths,
    parse_rule,
    records,
    render_line,
    render_rule,
)
from qsend.sysio.cdbmaker import fill

SOURCES = [
    b"",
    b"\n\n# a comment\n:allow\n",
    b'1.2.3.37-39:allow,RELAYCLIENT=""\n',
    b":deny\n",
    b"10.2-3.:deny\n",
    b"1-2.3-4.:allow\n",
    b"-:allow\n",
    b"1.2.3.-5:allow\n",
    b"1.2.3.5-:allow\n",
    b"1.2.3.250-300:allow\n",
    b"05-7:allow\n",
    b"=host-name:allow\n",
    b"joe@10.0.0.1-2:deny\n",
    b"joe@=host.example:allow,A=xbx,B='c'\n",
    b':allow,=""\n',
    b':allow,A,B="c"\n',
    b":allow,A=,b,\n",
    b':deny,RBLSMTPD="-go away",QMAILQUEUE="/bin/false"\n',
    b'127.:allow,RELAYCLIENT=""  \t\n127.:deny\n',
    b"no colon here\n:allow",
    b":allow \t ",
    b' :allow\nA:deny,B="\xe4"\n',
    b'192.168.:allow,X="\t y "\n',
    b"a-b:allow\n",
    b"1.2.3.5-6x:allow\n",
    b":allowed\n",
    b":allow,\n",
    b":allow,A\n",
    b":allow,A=\n",
    b':allow,A="\n',
    b':allow,A="b"c\n',
    b"x:y\n",
    b":ALLOW\n",
    b":allow\r\n",
]
WORDS = st.sampled_from(b"1.,2,37-53,-,9-7,.,=,@,joe,a.b, ,#,0,255,256".split(b","))
LINES = st.builds(
    lambda words, colon, verb, more, end: b"".join((*words, colon, verb, *more, end)),
    st.lists(WORDS, max_size=5),
    st.sampled_from([b":", b":", b":", b""]),
    st.sampled_from([b"allow", b"deny", b"allow", b"x"]),
    st.lists(
        st.sampled_from([b',A="b"', b",C=''", b",", b"=", b'"', b" ", b",D=zyz"]),
        max_size=3,
    ),
    st.sampled_from([b"\n", b"\n", b" \n", b"\t\n", b"\n\n"]),
)


def ours(source: bytes) -> bytes | None:
    """The database, or None where a line cannot be parsed."""
    file = io.BytesIO()
    try:
        fill(file, records(io.BytesIO(source), "rules"))
    except ConfigError:
        return None
    return file.getvalue()


def theirs(source: bytes, directory: Path) -> bytes | None:
    cdb = directory / "rules.cdb"
    cdb.unlink(missing_ok=True)
    command = ["/usr/bin/tcprules", str(cdb), str(directory / "rules.tmp")]
    done = subprocess.run(command, input=source, capture_output=True, check=False)
    assert done.returncode in (0, 100)
    return cdb.read_bytes() if done.returncode == 0 else None


def records_of(source: bytes) -> list[tuple[bytes, bytes]]:
    return list(records(io.BytesIO(source), "rules"))


@pytest.mark.parametrize("source", SOURCES)
def test_database_is_that_of_tcprules(source: bytes, tmp_path: Path) -> None:
    assert ours(source) == theirs(source, tmp_path)


@settings(max_examples=60, deadline=None)
@given(source=st.lists(LINES, max_size=4).map(b"".join))
def test_any_source_gives_what_tcprules_gives(
    source: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert ours(source) == theirs(source, tmp_path_factory.mktemp("rules"))


def test_many_rules_are_laid_out_as_tcprules_does(tmp_path: Path) -> None:
    source = b"".join(
        b'10.%d.0-99:allow,RELAYCLIENT="@%d"\n' % (n, n) for n in range(40)
    )
    made = ours(source)
    assert made is not None
    assert made == theirs(source, tmp_path)


@pytest.mark.parametrize(
    ("source", "want"),
    [
        (b"10.0.0.0/8:deny\n", [(b"10.0.0.0/8", b"D\0"), (b"/4", b"8\0")]),
        (b"192.0.2.1/32:allow\n", [(b"192.0.2.1", b"")]),
        (b"[192.0.2.1]:allow\n", [(b"192.0.2.1", b"")]),
        (b"[2001:DB8::0:1]:allow\n", [(b"2001:db8::1", b"")]),
        (b"[2001:db8::1/128]:allow\n", [(b"2001:db8::1", b"")]),
        (b"[::ffff:192.0.2.1]:allow\n", [(b"192.0.2.1", b"")]),
        (b"joe@[2001:db8::1]:deny\n", [(b"joe@2001:db8::1", b"D\0")]),
        (
            b'[fc00::/7]:allow,A="b"\n[2001:db8::/32]:deny\n0.0.0.0/0:deny\n',
            [
                (b"fc00::/7", b"+A=b\0"),
                (b"2001:db8::/32", b"D\0"),
                (b"0.0.0.0/0", b"D\0"),
                (b"/4", b"0\0"),
                (b"/6", b"32\x007\0"),
            ],
        ),
    ],
)
def test_networks_and_ipv6_are_added(
    source: bytes, want: list[tuple[bytes, bytes]]
) -> None:
    assert records_of(source) == want


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"10.1.0.0/8:allow", "rules:2: 10.1.0.0/8 has host bits set"),
        (b"10.0.0.0/33:allow", "expected address/length, found 10.0.0.0/33"),
        (b"10./8:allow", "expected address/length"),
        (b"[2001:db8::x]:allow", "expected an IP address, found [2001:db8::x]"),
        (b"[2001:db8::/129]:allow", "expected address/length"),
        (b"a-b:allow", "expected a number in the range, found 'a'"),
        (b":alow", "rules:2: expected allow or deny, found 'alow'"),
        (b":allow,RELAYCLIENT", "expected ,NAME=\"value\", found ',RELAYCLIENT'"),
        (b':allow,A="\0"', "found a NUL byte"),
        (b"a\0:allow", "found a NUL byte"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(line: bytes, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        records_of(b"# first\n" + line + b"\n")
    assert problem in str(caught.value)
    assert str(caught.value).startswith("rules:2: ")


def test_what_tcprules_ignores_is_told() -> None:
    told: list[tuple[int, str]] = []
    source = b"127.0.0.1 allow\n:deny\n1.2.3.9-4:allow\n"
    found = list(records(io.BytesIO(source), "rules", lambda *args: told.append(args)))
    assert found == [(b"", b"D\0")]
    assert [number for number, _ in told] == [1, 3]


RULES = [
    (b"", Rule(is_allowed=False)),
    (b"10.", Rule(is_allowed=True, variables=((b"A", b""), (b"A", b"2")))),
    (b"joe@=h.example", Rule(is_allowed=True, variables=((b"Q", b'"'),))),
    (b"2001:db8::1", Rule(is_allowed=True)),
    (b"joe@2001:db8::1", Rule(is_allowed=False, variables=((b"B", b"a=b"),))),
    (b"10.0.0.0/8", Rule(is_allowed=True)),
    (b"2001:db8::/32", Rule(is_allowed=True)),
]


@pytest.mark.parametrize(("key", "rule"), RULES)
def test_rule_survives_both_forms(key: bytes, rule: Rule) -> None:
    assert parse_rule(render_rule(rule)) == rule
    assert records_of(render_line(key, rule) + b"\n")[0] == (key, render_rule(rule))


@pytest.mark.parametrize("key", [b"#x", b"a\nb", b"a=b@c:d", b"#"])
def test_address_that_no_line_gives_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="no rule"):
        render_line(key, Rule(is_allowed=True))


def test_value_that_no_line_gives_is_refused() -> None:
    for text in (b"a\nb", bytes(range(33, 127))):
        with pytest.raises(ValueError, match="cannot be written"):
            render_line(b"", Rule(is_allowed=True, variables=((b"A", text),)))


@pytest.mark.parametrize(
    ("value", "version", "want"),
    [(None, 4, ()), (b"8\0", 4, (8,)), (b"127\x0010\0", 6, (127, 10))],
)
def test_lengths(value: bytes | None, version: int, want: tuple[int, ...]) -> None:
    assert parse_lengths(value, version, "rules") == want


@pytest.mark.parametrize("value", [b"", b"x\0", b"32\0", b"8\0\0", b"1\0" * 40])
def test_damaged_lengths(value: bytes) -> None:
    with pytest.raises(ConfigError, match="lists no prefix lengths"):
        parse_lengths(value, 4, "rules")
