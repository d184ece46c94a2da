"""What lookup is asked and answers: whose mail is a local part?

USER carries a number of the asker's choice and the local part; ANSWER brings the
number back with the user found, or the text of why there is none.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import assert_never

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import User
from qsend.core.users import NoUser, Outcome, Trouble
from qsend.formats.frames import Fields, frame, string

USER = b"u"
"""Body: u32 number, string local part."""
ANSWER = b"U"
"""Body: u32 number, u8 status; FOUND: u8 owns_home, u32 uid, u32 gid, and the
strings name, home, dash, ext; otherwise the string text."""

LOCAL_MAX = 4096
"""Longest local part asked for: four times what can be injected, since control
files may put something before it. Longer ones are nobody's."""
_FIELD_MAX = 8192
"""Longest field of a user: a record of users/cdb and a local part together."""
_TEXT_MAX = 1000

_FOUND, _NONE, _TROUBLE = 0, 1, 2
_NUMBER = struct.Struct("!I")
_HEAD = struct.Struct("!IB")
_IDS = struct.Struct("!BII")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Whose is `local`? `number` is the asker's, 0 to 2**32 - 1."""

    number: int
    local: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The outcome for the question with that number."""

    number: int
    outcome: Outcome


def render_question(question: Question) -> bytes:
    """The USER frame."""
    return frame(USER, _NUMBER.pack(question.number) + string(question.local))


def parse_question(body: bytes) -> Question:
    """The value of a USER body. Raises: RemoteProtocolError."""
    fields = Fields(body)
    (number,) = fields.take(_NUMBER)
    local = fields.string(LOCAL_MAX)
    fields.end()
    return Question(number=number, local=local)


def render_answer(answer: Answer) -> bytes:
    """The ANSWER frame."""
    match answer.outcome:
        case User() as user:
            status, rest = _FOUND, _user_fields(user)
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
        outcome = _parse_user(fields)
    elif status == _NONE:
        outcome = NoUser(text=fields.string(_TEXT_MAX))
    elif status == _TROUBLE:
        outcome = Trouble(text=fields.string(_TEXT_MAX))
    else:
        raise RemoteProtocolError(f"answer status {status}")
    fields.end()
    return Answer(number=number, outcome=outcome)


def _user_fields(user: User) -> bytes:
    texts = (user.name, user.home, user.dash, user.ext)
    head = _IDS.pack(user.owns_home, user.uid, user.gid)
    return head + b"".join(map(string, texts))


def _parse_user(fields: Fields) -> User:
    owns_home, uid, gid = fields.take(_IDS)
    name, home, dash, ext = (fields.string(_FIELD_MAX) for _ in range(4))
    return User(
        name=name,
        uid=uid,
        gid=gid,
        home=home,
        dash=dash,
        ext=ext,
        owns_home=bool(owns_home),
    )
