"""lookup's questions and answers survive the wire, and nothing else does."""

from __future__ import annotations

import pytest

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import User
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
    owns_home=True,
)
OUTCOMES: list[Outcome] = [USER, NoUser(text=b"none"), Trouble(text=b"")]


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
