from __future__ import annotations

from collections.abc import Mapping

import pytest

from qsend.core.errors import TempFail
from qsend.core.fastforward import (
    COMMAND_MAX,
    Forwarding,
    Lookup,
    ReadList,
    Run,
    Step,
    expand,
    parse_commands,
)

Table = Mapping[bytes, bytes]


def follow(
    table: Table,
    recipient: bytes = b"u@h.org",
    sender: bytes = b"s@t",
    lists: Table | None = None,
) -> tuple[Forwarding, list[Step]]:
    """What comes of it, and the steps that were not look-ups."""
    steps = expand(recipient, sender)
    asked: list[Step] = []
    answer = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            return end.value, asked
        answer = None
        match step:
            case Lookup(key):
                answer = table.get(key)
            case ReadList(path):
                asked.append(step)
                answer = (lists or {})[path]
            case Run():
                asked.append(step)


def recips(table: Table, recipient: bytes = b"u@h.org") -> list[bytes]:
    got, _ = follow(table, recipient)
    assert got.is_found
    return list(got.recips)


@pytest.mark.parametrize(
    ("key", "is_found"),
    [
        (b":u@h.org", True),
        (b":@h.org", True),
        (b":u@", True),
        (b":u", False),
        (b":h.org", False),
        (b"?u@h.org", False),
        (b":U@h.org", False),
    ],
)
def test_recipient_is_found_by_address_host_or_user(key: bytes, is_found: bool) -> None:
    for recipient in (b"u@h.org", b"U@H.ORG"):
        got, _ = follow({key: b"&a@b\0"}, recipient)
        assert got.is_found is is_found
        assert got.recips == ((b"a@b",) if is_found else ())


def test_first_of_the_three_keys_wins() -> None:
    table = {b":u@h.org": b"&1@x\0", b":@h.org": b"&2@x\0", b":u@": b"&3@x\0"}
    assert recips(table) == [b"1@x"]
    assert recips({k: v for k, v in table.items() if k != b":u@h.org"}) == [b"2@x"]
    assert recips(table, b"u@other") == [b"3@x"]
    assert recips({b":a@b@h": b"&q@x\0"}, b"a@b@h") == [b"q@x"]


def test_addresses_are_followed_by_their_exact_key_only() -> None:
    table = {
        b":u@h.org": b"&A@h.org\0&b@h.org\0&c@h.org\0",
        b":a@h.org": b"&d@h.org\0",
        b":b@": b"&never@x\0",
        b":@h.org": b"&never@x\0",
    }
    assert recips(table) == [b"d@h.org", b"b@h.org", b"c@h.org"]


def test_duplicates_count_once_and_circles_end() -> None:
    table = {
        b":u@h.org": b"&p@h.org\0&t@h.org\0&joe@x\0",
        b":p@h.org": b"&joe@x\0&bob@x\0",
        b":t@h.org": b"&joe@x\0&fred@x\0&u@h.org\0",
    }
    assert sorted(recips(table)) == [b"bob@x", b"fred@x", b"joe@x"]
    assert recips({b":u@h.org": b"&v@h.org\0", b":v@h.org": b"&u@h.org\0"}) == []


@pytest.mark.parametrize("key", [b"?u@h.org", b"?@h.org", b"?u@"])
@pytest.mark.parametrize(
    ("sender", "want"), [(b"s@t", b"own@h.org"), (b"", b""), (b"#@[]", b"#@[]")]
)
def test_owner_replaces_the_sender_unless_it_is_a_bounce(
    key: bytes, sender: bytes, want: bytes
) -> None:
    got, _ = follow({key: b"own@h.org", b":u@h.org": b"&a@b\0"}, sender=sender)
    assert got == Forwarding(is_found=True, sender=want, recips=(b"a@b",))


def test_an_address_with_an_owner_of_its_own_is_not_expanded() -> None:
    table = {
        b":u@h.org": b"&list@h.org\0",
        b"?list@h.org": b"owner@h.org",
        b":list@h.org": b"&member@x\0",
    }
    assert recips(table) == [b"list@h.org"]
    assert recips(table, b"list@h.org") == [b"member@x"]


def test_programs_run_in_order_and_lists_are_read_once() -> None:
    table = {
        b":u@h.org": b"|one\0./l\0!two\0/m\0./l\0&v@h.org\0",
        b":v@h.org": b"|three\0",
    }
    lists = {b"./l": b"&a@x\0/m\0", b"/m": b"&b@x\0&u@y\0"}
    got, asked = follow(table, lists=lists)
    runs = [step.command for step in asked if isinstance(step, Run)]
    assert runs == [b"|one", b"!two", b"|three"]
    assert asked.count(ReadList(b"./l")) == asked.count(ReadList(b"/m")) == 1
    assert sorted(got.recips) == [b"a@x", b"b@x", b"u@y"]


@pytest.mark.parametrize(
    "record",
    [
        b"&a@b",
        b"&a@b\0x@y\0",
        b"\0",
        b"&a@b\0\0",
        b"&" + b"a" * COMMAND_MAX + b"\0",
    ],
)
def test_damaged_record_defers(record: bytes) -> None:
    with pytest.raises(TempFail):
        parse_commands(record)
    with pytest.raises(TempFail):
        follow({b":u@h.org": record})


def test_list_file_cannot_run_programs() -> None:
    with pytest.raises(TempFail):
        follow({b":u@": b"./l\0"}, lists={b"./l": b"|rm -rf /\0"})


def test_commands_are_cut_at_their_nuls() -> None:
    assert parse_commands(b"") == []
    longest = b"&" + b"a" * (COMMAND_MAX - 2)
    assert parse_commands(longest + b"\0|x y\0") == [longest, b"|x y"]
