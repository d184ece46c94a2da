"""The plain reply says what dnspython finds in it, and nothing else is plain."""

from __future__ import annotations

import dns.message
import dns.name
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsend.formats.dnsreply import Plain, read_plain, render_question
from qsend.sysio.dnsquery import Outcome, read_reply

ASKED = {"MX": ["10 mx.d.example.", "20 Other.test.", "0 ."], "A": ["192.0.2.1"]}

COUNTS = range(8, 12)
"""Where a header says how many other records there are."""


def ask(kind: str) -> dns.message.Message:
    return dns.message.make_query("d.example.", kind)


def reply(query: dns.message.Message, *sections: str) -> bytes:
    """The wire of a reply with these answers."""
    kind = dns.rdatatype.to_text(query.question[0].rdtype)
    lines = [f"d.example. 300 IN {kind} {each}" for each in ASKED[kind]]
    found = dns.message.from_text("\n".join([";ANSWER", *lines, *sections]))
    made = dns.message.make_response(query)
    made.answer, made.authority = found.answer, found.authority
    return made.to_wire()


@pytest.mark.parametrize("kind", ASKED)
def test_plain_reply_is_read_as_dnspython_reads_it(kind: str) -> None:
    query = ask(kind)
    wire = reply(query, ";AUTHORITY", "d.example. 60 IN NS ns.example.")
    plain = read_plain(wire, query.to_wire())
    told = read_reply(dns.message.from_wire(wire))
    assert plain is not None
    assert told.outcome is Outcome.FOUND
    assert (plain.mx, plain.addresses) == (told.mx, told.addresses)
    assert plain.ttl_s == told.ttl_s == 300


def test_other_replies_are_left_to_dnspython() -> None:
    query = ask("A")
    question, wire = query.to_wire(), reply(query)
    assert read_plain(wire, question) is not None
    alias = wire.replace(b"\0\1\0\1\0\0\1\x2c", b"\0\5\0\1\0\0\1\x2c")
    assert alias != wire
    others = [
        alias,
        bytes([wire[0] ^ 1]) + wire[1:],  # another question's number
        wire[:2] + bytes([wire[2] | 2]) + wire[3:],  # cut
        wire[:3] + bytes([wire[3] | 3]) + wire[4:],  # an error
        wire[:2] + bytes([wire[2] & 0x7F]) + wire[3:],  # no response
        wire.replace(b"\1d\7", b"\1e\7"),  # another name
        *(wire[:size] for size in range(len(wire))),
    ]
    for other in others:
        assert read_plain(other, question) is None


def test_name_that_points_forward_or_at_itself_is_not_plain() -> None:
    query = ask("MX")
    head = reply(query)[: len(query.to_wire())]
    at = len(head) + 14
    for target in (at, at + 2, at - 1):
        data = b"\0\x0a" + (0xC000 | target).to_bytes(2, "big")
        record = b"\xc0\x0c\0\x0f\0\1\0\0\0\1" + len(data).to_bytes(2, "big") + data
        wire = head[:6] + b"\0\1\0\0\0\0" + head[12:] + record
        assert read_plain(wire, query.to_wire()) is None


@given(st.data())
def test_changed_reply_is_never_read_otherwise(data: st.DataObject) -> None:
    query = ask(data.draw(st.sampled_from(sorted(ASKED))))
    wire = bytearray(reply(query))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(wire) - 1))
        if at not in COUNTS:  # what is behind the answers is not looked at
            wire[at] = data.draw(st.integers(0, 255))
    plain = read_plain(bytes(wire), query.to_wire())
    if plain is None:
        return
    told = read_reply(dns.message.from_wire(bytes(wire), ignore_trailing=True))
    assert plain == Plain(mx=told.mx, addresses=told.addresses, ttl_s=told.ttl_s)


@pytest.mark.parametrize("name", [b"d.example", b"d.example.", b"\xff." + b"x" * 63])
def test_question_is_the_one_of_dnspython(name: bytes) -> None:
    labels = (*name.removesuffix(b".").split(b"."), b"")
    query = dns.message.make_query(dns.name.Name(labels), "MX", id=7)
    assert render_question(7, name, dns.rdatatype.MX) == query.to_wire()


@pytest.mark.parametrize(
    "name", [b"", b".", b"a..b", b"x" * 64, b".".join([b"a"] * 128)]
)
def test_what_is_no_name_cannot_be_asked_for(name: bytes) -> None:
    assert render_question(7, name, dns.rdatatype.A) is None
