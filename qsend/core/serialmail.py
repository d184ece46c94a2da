"""What becomes of a message in a maildir that is pushed to another host.

A run starts the client again and again until no message is left for it; messages
that it could not deliver are not tried twice in one run.
Source: maildirserial(1), maildirserial.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from qsend.core.model import Letter

ROUNDS_MAX = 3
"""Rounds in a row in which no message has a result; then the run is given up."""

TOO_OLD = b"This message is too old. Giving up.\n"
"""The last line about a message that is returned because of its age."""


class Fate(Enum):
    """What to do with a message."""

    REMOVE = auto()
    BOUNCE = auto()
    LEAVE = auto()
    """Until the next run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`words` are for the log; `is_expired`: only its age makes it a failure."""

    fate: Fate
    words: str
    is_expired: bool


def judge(letter: Letter, *, is_too_old: bool, bounces: bool) -> Verdict:
    """What to do about one result.

    Args:
        is_too_old: older than the lifetime; False where there is none.
        bounces: whether failures are returned to their senders, and removed.
    """
    if letter is Letter.SUCCESS:
        return Verdict(fate=Fate.REMOVE, words="succeeded", is_expired=False)
    is_expired = letter is Letter.DEFERRAL and is_too_old
    has_failed = letter is Letter.FAILURE or is_expired
    if has_failed and bounces:
        return Verdict(fate=Fate.BOUNCE, words="bounced", is_expired=is_expired)
    words = "failed" if has_failed else "failed temporarily"
    return Verdict(fate=Fate.LEAVE, words=words, is_expired=is_expired)


@dataclass(slots=True)
class Progress:
    """Counts the rounds that brought nothing."""

    left: int = ROUNDS_MAX

    def note_result(self) -> None:
        """Some message has a result."""
        self.left = ROUNDS_MAX

    def begin_round(self) -> None:
        """A round starts."""
        self.left -= 1

    @property
    def is_hopeless(self) -> bool:
        """After a round: whether there should be no other."""
        return self.left <= 0
