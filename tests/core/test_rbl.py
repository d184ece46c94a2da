"""What listings mean; the cases of rblsmtpd are in tests/sysio/test_rbl.py."""

from __future__ import annotations

import pytest

from qsend.core.rbl import (
    LOOKUP_ERROR,
    PASSED,
    TEXT_MAX,
    Action,
    Answers,
    Finding,
    Found,
    Judgement,
    Source,
    counts,
    judge,
    judge_late,
    override,
    question,
    reason,
)

PASS, DEFER, REJECT, NOTE = Action.PASS, Action.DEFER, Action.REJECT, Action.NOTE
LISTED = Found(finding=Finding.LISTED, text=b"why")
ABSENT = Found(finding=Finding.ABSENT)
FAILED = Found(finding=Finding.FAILED)


def source(action: Action, *, closed: bool = False) -> Source:
    return Source(
        zone=action.value.encode() + b".example", action=action, fails_closed=closed
    )


@pytest.mark.parametrize(
    ("sources", "found", "action", "text"),
    [
        ([], [], PASS, b""),
        ([source(DEFER)], [ABSENT], PASS, b""),
        ([source(DEFER)], [LISTED], DEFER, b"why"),
        ([source(REJECT)], [LISTED], REJECT, b"why"),
        ([source(NOTE)], [LISTED], PASS, b""),
        ([source(PASS), source(REJECT)], [LISTED, LISTED], PASS, b""),
        ([source(PASS), source(REJECT)], [ABSENT, LISTED], REJECT, b"why"),
        ([source(REJECT), source(PASS)], [LISTED, LISTED], REJECT, b"why"),
        ([source(REJECT), source(DEFER)], [ABSENT, LISTED], DEFER, b"why"),
        # Fail open: a list that fails is passed over, an allow list lets in.
        ([source(REJECT)], [FAILED], PASS, b""),
        ([source(PASS), source(REJECT)], [FAILED, LISTED], PASS, b""),
        # Fail closed, and no bounce once anything has failed.
        ([source(REJECT, closed=True)], [FAILED], DEFER, LOOKUP_ERROR),
        ([source(PASS, closed=True), source(REJECT)], [FAILED, LISTED], DEFER, b"why"),
        ([source(PASS, closed=True), source(REJECT)], [FAILED, ABSENT], PASS, b""),
        ([source(REJECT), source(REJECT)], [FAILED, LISTED], DEFER, b"why"),
        # A list on trial changes nothing, whatever it says.
        ([source(NOTE, closed=True), source(REJECT)], [FAILED, LISTED], REJECT, b"why"),
        ([source(NOTE), source(REJECT)], [LISTED, LISTED], REJECT, b"why"),
    ],
)
def test_first_source_that_decides_does(
    sources: list[Source], found: list[Found], action: Action, text: bytes
) -> None:
    judgement = judge(sources, found)
    assert judgement is not None
    assert (judgement.action, judgement.text) == (action, text)
    assert judgement.is_blocked == (action is not PASS)


def test_later_answers_are_not_waited_for() -> None:
    sources = [source(PASS), source(REJECT), source(DEFER)]
    assert judge(sources, [None, LISTED, LISTED]) is None
    decided = judge(sources, [ABSENT, LISTED, None])
    assert decided is not None
    assert decided.zone == b"reject.example"
    late = judge_late(sources, [ABSENT, None, LISTED])
    assert (late.action, late.notes) == (DEFER, (b"reject.example did not answer",))


def test_notes_say_who_listed_it_in_vain() -> None:
    judgement = judge([source(NOTE), source(DEFER)], [LISTED, FAILED])
    assert judgement is not None
    assert judgement.notes == (
        b"log.example lists it: why",
        b"defer.example did not answer",
    )


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (None, None),
        (b"", Judgement(action=PASS, zone=b"")),
        (b"text", Judgement(action=DEFER, text=b"text", zone=b"")),
        (b"-text", Judgement(action=REJECT, text=b"text", zone=b"")),
        (b"-", Judgement(action=REJECT, zone=b"")),
        (b"--x", Judgement(action=REJECT, text=b"-x", zone=b"")),
    ],
)
def test_override(value: bytes | None, want: Judgement | None) -> None:
    variables = {} if value is None else {b"RBLSMTPD": value}
    assert override(variables) == want


def test_reply_and_log_line_are_those_of_rblsmtpd() -> None:
    judgement = override({b"RBLSMTPD": b"-go\r\n\xe4way" + b"x" * TEXT_MAX})
    assert judgement is not None
    assert judgement.reply == b"553 go???way" + b"x" * (TEXT_MAX - 8)
    line = judgement.log_line("192.0.2.1", 7)
    assert line == b"rblsmtpd: 192.0.2.1 pid 7: " + judgement.reply + b"\n"
    assert not PASSED.is_blocked


@pytest.mark.parametrize(
    ("address", "want"),
    [
        ("192.0.2.1", b"1.2.0.192.bl"),
        ("2001:db8::1", b"1" + b".0" * 23 + b".8.b.d.0.1.0.0.2.bl"),
    ],
)
def test_question(address: str, want: bytes) -> None:
    assert question(address, b"bl") == want


@pytest.mark.parametrize(
    ("answers", "addresses", "want"),
    [
        ((), [], False),
        ((), ["10.0.0.1"], True),
        (((2, 2),), ["127.0.0.2"], True),
        (((4, 4), (2, 2)), ["127.0.0.2"], True),
        (((2, 2),), ["127.0.0.1", "127.0.0.3"], False),
        (((4, 11),), ["127.0.0.4"], True),
        (((4, 11),), ["127.0.0.11"], True),
        (((4, 11),), ["127.0.0.12"], False),
        (((4, 11),), ["2001:db8::1"], False),
    ],
)
def test_answers_that_count(
    answers: tuple[tuple[int, int], ...], addresses: list[str], want: bool
) -> None:
    base = 127 << 24
    ranges = tuple(
        Answers(first=base + first, last=base + last) for first, last in answers
    )
    asked = Source(zone=b"bl", action=DEFER, answers=ranges)
    assert counts(asked, addresses) == want


def test_reason_is_ours_or_theirs_or_the_name() -> None:
    own = Source(zone=b"bl", action=DEFER, text=b"see http://x/%IP%")
    assert reason(own, [b"theirs"], "192.0.2.1") == b"see http://x/192.0.2.1"
    assert reason(source(DEFER), [b"a", b"b"], "::1") == b"a b"
    assert reason(source(DEFER), [], "::1") == b"listed by defer.example"


def test_which_record_is_asked_for() -> None:
    assert not source(REJECT).asks_address
    assert source(PASS).asks_address
    assert Source(zone=b"bl", action=DEFER, text=b"x").asks_address
