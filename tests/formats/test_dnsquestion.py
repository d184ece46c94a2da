"""Questions are what dnspython would write; replies are cut only where it is safe."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsend.formats.dnsquestion import (
    answers_alone,
    has_number_of,
    render_question,
    repeats,
)

MX = 15


def ask(name: str = "d.example.") -> dns.message.Message:
    return dns.message.make_query(name, "MX")


def reply(query: dns.message.Message) -> dns.message.Message:
    made = dns.message.make_response(query)
    name = query.question[0].name
    made.answer = [dns.rrset.from_text(name, 60, "IN", "MX", "10 mx.example.")]
    made.authority = [dns.rrset.from_text("example.", 60, "IN", "NS", "ns.example.")]
    made.additional = [dns.rrset.from_text("mx.example.", 60, "IN", "A", "192.0.2.1")]
    return made


@given(st.lists(st.binary(min_size=1, max_size=70), min_size=1, max_size=6))
def test_question_is_what_dnspython_writes(labels: list[bytes]) -> None:
    labels = [label.replace(b".", b"x") for label in labels]
    made = render_question(7, b".".join(labels), MX)
    try:
        query = dns.message.make_query(dns.name.Name((*labels, b"")), "MX", id=7)
    except dns.exception.DNSException:
        assert made is None
    else:
        assert made == query.to_wire()


@pytest.mark.parametrize("name", [b"", b".", b"a..b", b".a", b"a" * 64, b"a." * 128])
def test_name_that_cannot_be_is_not_asked_for(name: bytes) -> None:
    assert render_question(7, name, MX) is None


def test_only_a_response_with_the_number_is_looked_at() -> None:
    query = ask()
    question, wire = query.to_wire(), reply(query).to_wire()
    assert has_number_of(wire, question)
    assert not has_number_of(question, question)
    assert not has_number_of(bytes([wire[0] ^ 1]) + wire[1:], question)
    assert not has_number_of(wire[:2] + bytes([wire[2] | 0x10]) + wire[3:], question)
    assert not any(has_number_of(wire[:size], question) for size in range(12))


def test_reply_repeats_its_question_byte_for_byte() -> None:
    query = ask()
    question, wire = query.to_wire(), reply(query).to_wire()
    assert repeats(wire, question)
    assert not repeats(reply(ask("D.example.")).to_wire(), question)
    assert not repeats(wire[:5] + b"\2" + wire[6:], question)
    assert not any(repeats(wire[:size], question) for size in range(12, len(question)))


def test_answers_are_read_without_what_follows() -> None:
    made = reply(ask())
    cut = answers_alone(made.to_wire())
    assert cut is not None
    found = dns.message.from_wire(cut, ignore_trailing=True)
    assert found.question == made.question
    assert found.answer == made.answer
    assert (found.authority, found.additional) == ([], [])


def test_reply_whose_answers_do_not_say_all_is_read_whole() -> None:
    wrong, cut, empty = reply(ask()), reply(ask()), reply(ask())
    wrong.set_rcode(dns.rcode.NXDOMAIN)
    cut.flags |= dns.flags.TC
    empty.answer = []
    for each in (wrong, cut, empty):
        assert answers_alone(each.to_wire()) is None
