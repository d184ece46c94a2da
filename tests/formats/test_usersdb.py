"""users/cdb: keys in order, wildcards, records."""

from __future__ import annotations

import pytest

from qsend.core.errors import ConfigError
from qsend.core.model import Ownership
from qsend.formats import usersdb

KEYS = [
    # local, wildcard ends, want
    (b"joe", b"", [(b"!joe\0", b""), (b"!", b"joe")]),
    (
        b"Joe-Lists",
        b"-",
        [(b"!joe-lists\0", b""), (b"!joe-", b"Lists"), (b"!", b"Joe-Lists")],
    ),
    (
        b"a-B-",
        b"-",
        [(b"!a-b-\0", b""), (b"!a-b-", b""), (b"!a-", b"B-"), (b"!", b"a-B-")],
    ),
    # The set is compared in lower case, whatever case it was written in.
    (b"abX", b"x", [(b"!abx\0", b""), (b"!abx", b""), (b"!", b"abX")]),
    (b"", b"-", [(b"!\0", b""), (b"!", b"")]),
    # A wildcard end that is the `!` itself does not make the bare key come twice.
    (b"a!b", b"!", [(b"!a!b\0", b""), (b"!a!", b"b"), (b"!", b"a!b")]),
    (
        b"+a.b",
        b"+.",
        [(b"!+a.b\0", b""), (b"!+a.", b"b"), (b"!+", b"a.b"), (b"!", b"+a.b")],
    ),
]


@pytest.mark.parametrize(("local", "ends", "want"), KEYS)
def test_keys_exact_then_prefixes_longest_first(
    local: bytes, ends: bytes, want: list[tuple[bytes, bytes]]
) -> None:
    assert list(usersdb.keys(local, usersdb.parse_wildcards(ends))) == want


def test_parse_wildcards_folds_case_of_the_set() -> None:
    assert usersdb.parse_wildcards(b"X-") == frozenset(b"x-")
    assert usersdb.parse_wildcards(b"") == frozenset()


def test_parse_wildcards_without_a_record_is_damage() -> None:
    with pytest.raises(ConfigError, match="empty key"):
        usersdb.parse_wildcards(None)


def test_parse_record_adds_the_rest_to_the_ext() -> None:
    user = usersdb.parse_record(b"joe\x00503\x0078\0/home/joe\0-\0pre-", b"Lists")
    assert (user.name, user.uid, user.gid) == (b"joe", 503, 78)
    assert (user.home, user.dash, user.ext) == (b"/home/joe", b"-", b"pre-Lists")
    assert user.ownership is Ownership.TRUSTED


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"joe\x00503\x0078\0/home/joe\0-",
        b"joe\x00503\x0078\0/home/joe\0-\0\0",
        b"joe\0\x0078\0/home/joe\0\0",
        b"joe\x0050x\x0078\0/home/joe\0\0",
        b"joe\x00-1\x0078\0/home/joe\0\0",
        b"joe\x00503\x004294967295\0/home/joe\0\0",
        b"joe\x0099999999999\x0078\0/home/joe\0\0",
        b"joe\x00503\x0078\0home/joe\0\0",
        b"joe\x00503\x0078\0\0\0",
        b"joe\x00503\x0078\0/" + b"h" * 2048 + b"\0\0",
    ],
)
def test_parse_record_damaged_is_an_error(value: bytes) -> None:
    with pytest.raises(ConfigError, match="users/cdb: "):
        usersdb.parse_record(value, b"")
