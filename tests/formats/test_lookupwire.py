"""lookup's questions and answers survive the wire, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from qsend.core.errors import RemoteProtocolError
from qsend.core.lookups import (
    Listing,
    Login,
    Proof,
    Stored,
    Verdict,
    Verification,
)
from qsend.core.model import INSTRUCTIONS_MAX, Ownership, User
from qsend.core.users import NoUser, Outcome, Trouble
from qsend.formats import lookupwire
from qsend.formats.frames import split
from qsend.formats.lookupwire import Answer, Question

USER = User(
    name=b"joe",
    uid=4294967294,
    gid=78,
    home=b"/home/joe",
    dash=b"-",
    ext=b"L\0\xff",
    ownership=Ownership.UID,
)
LISTED = replace(
    USER, ownership=Ownership.UID_GID, instructions=b"&a@b\n" * (INSTRUCTIONS_MAX // 5)
)
OUTCOMES: list[Outcome] = [
    USER,
    replace(USER, instructions=b""),
    NoUser(text=b"none"),
    Trouble(text=b""),
]


@pytest.mark.parametrize("local", [b"", b"joe", b"\xff\n\0", b"x" * 4096])
def test_question_round_trip(local: bytes) -> None:
    question = Question(number=2**32 - 1, local=local)
    ((kind, body),) = split(lookupwire.render_question(question))
    assert kind == lookupwire.USER
    assert lookupwire.parse_question(body) == question


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_answer_round_trip(outcome: Outcome) -> None:
    answer = Answer(number=7, outcome=outcome)
    ((kind, body),) = split(lookupwire.render_answer(answer))
    assert kind == lookupwire.ANSWER
    assert lookupwire.parse_answer(body) == answer


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_answer_cut_anywhere_or_with_more_is_refused(outcome: Outcome) -> None:
    ((_, body),) = split(lookupwire.render_answer(Answer(number=7, outcome=outcome)))
    for damaged in [body[:at] for at in range(len(body))] + [body + b"x"]:
        with pytest.raises(RemoteProtocolError):
            lookupwire.parse_answer(damaged)


def test_answer_with_an_unknown_status_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="status 3"):
        lookupwire.parse_answer(b"\0\0\0\x07\x03\0\0\0\0")


def test_question_too_long_or_with_more_is_refused() -> None:
    ((_, body),) = split(
        lookupwire.render_question(Question(number=1, local=b"x" * 4097))
    )
    for damaged in (body, body[:3], body[:20], b"\0\0\0\1\0\0\0\1ab"):
        with pytest.raises(RemoteProtocolError):
            lookupwire.parse_question(damaged)


def test_answer_text_is_cut_to_what_the_reader_takes() -> None:
    long = Answer(number=1, outcome=Trouble(text=b"t" * 5000))
    ((_, body),) = split(lookupwire.render_answer(long))
    outcome = lookupwire.parse_answer(body).outcome
    assert outcome == Trouble(text=b"t" * 1000)


def test_answer_with_long_instructions_fits_whatever_the_other_fields_are() -> None:
    widest = replace(LISTED, name=b"n" * 4096, ext=b"x" * 8192, home=b"/" * 4096)
    for user in (LISTED, widest):
        answer = Answer(number=1, outcome=user)
        ((_, body),) = split(lookupwire.render_answer(answer))
        assert lookupwire.parse_answer(body) == answer
    longer = replace(LISTED, instructions=b"x" * (INSTRUCTIONS_MAX + 1))
    ((_, body),) = split(lookupwire.render_answer(Answer(number=1, outcome=longer)))
    with pytest.raises(RemoteProtocolError, match="string field"):
        lookupwire.parse_answer(body)


@pytest.mark.parametrize("kind", sorted(lookupwire.ABOUT))
def test_question_keeps_its_kind(kind: bytes) -> None:
    question = Question(number=3, local=b"a@b")
    ((found, body),) = split(lookupwire.render_question(question, kind))
    assert found == kind
    assert lookupwire.parse_question(body) == question


OK = Verification(verdict=Verdict.OK)
ANSWERS = [
    *(
        (
            lookupwire.PLACE,
            lookupwire.render_place(5, each),
            lookupwire.parse_place,
            each,
        )
        for each in (
            Stored(address=b"iain-legacy@babasse.com"),
            *Listing,
            Trouble(text=b"down"),
        )
    ),
    *(
        (
            lookupwire.VERDICT,
            lookupwire.render_verdict(5, each),
            lookupwire.parse_verdict,
            each,
        )
        for each in (True, False, Trouble(text=b"down"))
    ),
    *(
        (
            lookupwire.VERIFIED,
            lookupwire.render_verified(5, each),
            lookupwire.parse_verified,
            each,
        )
        for each in (
            OK,
            replace(OK, user=USER),
            *(
                Verification(verdict=verdict, text=b"why")
                for verdict in Verdict
                if verdict is not Verdict.OK
            ),
        )
    ),
    (
        lookupwire.EXPLAINED,
        lookupwire.render_explained(5, b"[]"),
        lookupwire.parse_explained,
        b"[]",
    ),
    (
        lookupwire.REFUSED,
        lookupwire.render_refused(5, b"no"),
        lookupwire.parse_refused,
        b"no",
    ),
]


@pytest.mark.parametrize(("kind", "packet", "parse", "want"), ANSWERS)
def test_other_answers_round_trip_and_no_piece_of_them_does(
    kind: bytes, packet: bytes, parse: Callable[[bytes], object], want: object
) -> None:
    ((found, body),) = split(packet)
    assert found == kind
    assert parse(body) == (5, want)
    for damaged in [body[:at] for at in range(len(body))] + [body + b"x"]:
        with pytest.raises(RemoteProtocolError):
            parse(damaged)


def test_login_round_trip_and_hides_its_secret() -> None:
    login = Login(
        proof=Proof.APOP,
        name=b"dmp",
        secret=b"flibble",
        challenge=b"<1@h>",
        client=b"127.0.0.1",
    )
    ((kind, body),) = split(lookupwire.render_login(9, login))
    assert kind == lookupwire.VERIFY
    assert lookupwire.parse_login(body) == (9, login)
    assert "flibble" not in repr(login)
    for damaged in [body[:at] for at in range(len(body))] + [body + b"x"]:
        with pytest.raises(RemoteProtocolError):
            lookupwire.parse_login(damaged)


def test_unknown_numbers_in_answers_are_refused() -> None:
    text = b"\0\0\0\0"
    for parse, body in (
        (lookupwire.parse_place, b"\0\0\0\1\x09" + text),
        (lookupwire.parse_verdict, b"\0\0\0\1\x09" + text),
        (lookupwire.parse_verified, b"\0\0\0\1\x09" + text + b"\0"),
        (lookupwire.parse_login, b"\0\0\0\1\x09" + text * 4),
        (lookupwire.parse_answer, b"\0\0\0\1\0\x09\0" + text * 6),
    ):
        with pytest.raises(RemoteProtocolError):
            parse(body)
    wrong = Verification(verdict=Verdict.WRONG, user=USER)
    ((_, body),) = split(lookupwire.render_verified(1, wrong))
    with pytest.raises(RemoteProtocolError, match="refusal"):
        lookupwire.parse_verified(body)
