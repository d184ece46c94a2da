"""What lookup is asked and answers.

Every question carries a number of the asker's choice, and its answer brings the
number back; answers may come in any order. Who may ask what is lookup's business.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import assert_never

from qsend.core.errors import RemoteProtocolError
from qsend.core.lookups import (
    Listing,
    Locality,
    Login,
    Proof,
    Stored,
    Verdict,
    Verification,
    YesNo,
)
from qsend.core.model import User
from qsend.core.users import NoUser, Outcome, Trouble
from qsend.formats.frames import FRAME_MAX, Fields, frame, string
from qsend.formats.userfields import parse_user, render_user

USER = b"u"
"""Whose is a local part? Body: u32 number, string local part."""
LOCALITY = b"l"
"""Where does mail for an address go? Body: u32 number, string address, with its
domain, after percenthack."""
RCPTHOST = b"r"
"""Do we take mail for a host? Body: u32 number, string host."""
EXISTS = b"e"
"""Is there such a recipient here? Body: u32 number, string address."""
EXPLAIN = b"x"
"""What will happen to mail for an address? Body: u32 number, string address."""
OWN = b"o"
"""As USER, for a process that is that user: of others it learns nothing. Body: u32
number, string local part."""
VERIFY = b"v"
"""Is a login right? Body: u32 number, u8 proof, strings name, secret, challenge,
client."""

ANSWER = b"U"
"""To USER and OWN. Body: u32 number, u8 status; FOUND: the fields of a user;
otherwise the string text."""
PLACE = b"L"
"""To LOCALITY. Body: u32 number, u8 status, string: the stored address, nothing, or
the text of a trouble."""
VERDICT = b"Y"
"""To RCPTHOST and EXISTS. Body: u32 number, u8 status, string text."""
EXPLAINED = b"X"
"""To EXPLAIN. Body: u32 number, string JSON."""
VERIFIED = b"V"
"""To VERIFY. Body: u32 number, u8 verdict, string text, u8 whether a user comes with
it, the fields of the user."""
STATE = b"s"
"""To send, unasked: whether the database answers. Body: u8 1 or 0, string why not."""
REFUSED = b"!"
"""To a question that this peer may not ask, or one too many. Body: u32 number,
string text."""

LOCAL_MAX = 4096
"""Longest local part asked for: four times what can be injected, since control
files may put something before it. Longer ones are nobody's. Also the longest
address, host, login and secret."""
EXPLANATION_MAX = FRAME_MAX - 8
_TEXT_MAX = 1000

_FOUND, _NONE, _TROUBLE = 0, 1, 2
_STORED, _UNLISTED, _PLACE_TROUBLE, _LISTED_HOST = 0, 1, 2, 3
_NO, _YES, _UNSURE = 0, 1, 2
_NUMBER = struct.Struct("!I")
_HEAD = struct.Struct("!IB")
_FLAG = struct.Struct("!B")

ABOUT = frozenset({USER, OWN, LOCALITY, RCPTHOST, EXISTS, EXPLAIN})
"""The questions that are about one name or address: `Question` in both directions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about `local`: a local part, address or host, as the kind says.

    `number` is the asker's, 0 to 2**32 - 1.
    """

    number: int
    local: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The outcome for the question with that number."""

    number: int
    outcome: Outcome


def render_question(question: Question, kind: bytes = USER) -> bytes:
    """The frame of a question; `kind` is one of ABOUT."""
    return frame(kind, _NUMBER.pack(question.number) + string(question.local))


def parse_question(body: bytes) -> Question:
    """The value of such a body. Raises: RemoteProtocolError."""
    fields = Fields(body)
    (number,) = fields.take(_NUMBER)
    local = fields.string(LOCAL_MAX)
    fields.end()
    return Question(number=number, local=local)


def render_login(number: int, login: Login) -> bytes:
    """The VERIFY frame."""
    texts = (login.name, login.secret, login.challenge, login.client)
    head = _HEAD.pack(number, login.proof)
    return frame(VERIFY, head + b"".join(map(string, texts)))


def parse_login(body: bytes) -> tuple[int, Login]:
    """(number, login) of a VERIFY body. Raises: RemoteProtocolError."""
    fields = Fields(body)
    number, proof = fields.take(_HEAD)
    name, secret, challenge, client = (fields.string(LOCAL_MAX) for _ in range(4))
    fields.end()
    if proof not in set(Proof):
        raise RemoteProtocolError(f"proof {proof}")
    return number, Login(
        proof=Proof(proof),
        name=name,
        secret=secret,
        challenge=challenge,
        client=client,
    )


def render_answer(answer: Answer) -> bytes:
    """The ANSWER frame."""
    match answer.outcome:
        case User() as user:
            status, rest = _FOUND, render_user(user)
        case NoUser(text=text):
            status, rest = _NONE, string(text[:_TEXT_MAX])
        case Trouble(text=text):
            status, rest = _TROUBLE, string(text[:_TEXT_MAX])
        case _:
            assert_never(answer.outcome)
    return frame(ANSWER, _HEAD.pack(answer.number, status) + rest)


def parse_answer(body: bytes) -> Answer:
    """The value of an ANSWER body. Raises: RemoteProtocolError."""
    fields = Fields(body)
    number, status = fields.take(_HEAD)
    outcome: Outcome
    if status == _FOUND:
        outcome = parse_user(fields)
    elif status == _NONE:
        outcome = NoUser(text=fields.string(_TEXT_MAX))
    elif status == _TROUBLE:
        outcome = Trouble(text=fields.string(_TEXT_MAX))
    else:
        raise RemoteProtocolError(f"answer status {status}")
    fields.end()
    return Answer(number=number, outcome=outcome)


def render_place(number: int, locality: Locality) -> bytes:
    """The PLACE frame."""
    match locality:
        case Stored(address=address):
            status, text = _STORED, address
        case Listing.NONE:
            status, text = _UNLISTED, b""
        case Listing.HOST:
            status, text = _LISTED_HOST, b""
        case Trouble(text=reason):
            status, text = _PLACE_TROUBLE, reason[:_TEXT_MAX]
        case _:
            assert_never(locality)
    return frame(PLACE, _HEAD.pack(number, status) + string(text))


def parse_place(body: bytes) -> tuple[int, Locality]:
    """(number, locality) of a PLACE body. Raises: RemoteProtocolError."""
    number, status, text = _parse_text(body)
    locality: Locality
    if status == _STORED:
        locality = Stored(address=text)
    elif status == _PLACE_TROUBLE:
        locality = Trouble(text=text)
    elif text or status not in (_UNLISTED, _LISTED_HOST):
        raise RemoteProtocolError(f"place status {status}")
    else:
        locality = Listing.HOST if status == _LISTED_HOST else Listing.NONE
    return number, locality


def render_verdict(number: int, verdict: YesNo) -> bytes:
    """The VERDICT frame."""
    if isinstance(verdict, Trouble):
        rest = string(verdict.text[:_TEXT_MAX])
        return frame(VERDICT, _HEAD.pack(number, _UNSURE) + rest)
    return frame(VERDICT, _HEAD.pack(number, _YES if verdict else _NO) + string(b""))


def parse_verdict(body: bytes) -> tuple[int, YesNo]:
    """(number, verdict) of a VERDICT body. Raises: RemoteProtocolError."""
    number, status, text = _parse_text(body)
    if status == _UNSURE:
        return number, Trouble(text=text)
    if text or status not in (_NO, _YES):
        raise RemoteProtocolError(f"verdict status {status}")
    return number, status == _YES


def render_verified(number: int, verification: Verification) -> bytes:
    """The VERIFIED frame."""
    user = verification.user
    parts = [
        _HEAD.pack(number, verification.verdict),
        string(verification.text[:_TEXT_MAX]),
        _FLAG.pack(user is not None),
    ]
    if user is not None:
        parts.append(render_user(user))
    return frame(VERIFIED, b"".join(parts))


def parse_verified(body: bytes) -> tuple[int, Verification]:
    """(number, verification) of a VERIFIED body. Raises: RemoteProtocolError."""
    fields = Fields(body)
    number, verdict = fields.take(_HEAD)
    text = fields.string(_TEXT_MAX)
    (has_user,) = fields.take(_FLAG)
    if verdict not in set(Verdict) or has_user > 1:
        raise RemoteProtocolError(f"verdict {verdict}, {has_user}")
    user = parse_user(fields) if has_user else None
    fields.end()
    if user is not None and verdict != Verdict.OK:
        raise RemoteProtocolError("a user with a refusal")
    return number, Verification(verdict=Verdict(verdict), text=text, user=user)


def render_explained(number: int, trace: bytes) -> bytes:
    """The EXPLAINED frame; `trace` is JSON of at most EXPLANATION_MAX bytes."""
    return frame(EXPLAINED, _NUMBER.pack(number) + string(trace))


def parse_explained(body: bytes) -> tuple[int, bytes]:
    """(number, JSON) of an EXPLAINED body. Raises: RemoteProtocolError."""
    fields = Fields(body)
    (number,) = fields.take(_NUMBER)
    trace = fields.string(EXPLANATION_MAX)
    fields.end()
    return number, trace


def render_refused(number: int, text: bytes) -> bytes:
    """The REFUSED frame."""
    return frame(REFUSED, _NUMBER.pack(number) + string(text[:_TEXT_MAX]))


def parse_refused(body: bytes) -> tuple[int, bytes]:
    """(number, reason) of a REFUSED body. Raises: RemoteProtocolError."""
    fields = Fields(body)
    (number,) = fields.take(_NUMBER)
    text = fields.string(_TEXT_MAX)
    fields.end()
    return number, text


def render_state(trouble: bytes | None) -> bytes:
    """The STATE frame; `trouble` is why the database does not answer, or None."""
    text = string((trouble or b"")[:_TEXT_MAX])
    return frame(STATE, _FLAG.pack(trouble is None) + text)


def parse_state(body: bytes) -> bytes | None:
    """The trouble of a STATE body, None when there is none.

    Raises: RemoteProtocolError.
    """
    fields = Fields(body)
    (answers,) = fields.take(_FLAG)
    text = fields.string(_TEXT_MAX)
    fields.end()
    if answers > 1:
        raise RemoteProtocolError(f"state {answers}")
    return None if answers else text


def parse_number(body: bytes) -> int:
    """The number of any question. Raises: RemoteProtocolError."""
    (number,) = Fields(body).take(_NUMBER)
    return number


def _parse_text(body: bytes) -> tuple[int, int, bytes]:
    """(number, status, text) of a body with that and no more."""
    fields = Fields(body)
    number, status = fields.take(_HEAD)
    text = fields.string(LOCAL_MAX * 2)
    fields.end()
    return number, status, text
