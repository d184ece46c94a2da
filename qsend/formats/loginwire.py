"""What a listener and login say to each other.

The listener asks with the VERIFY frame of lookupwire.py. login answers with OUTCOME,
maybe half a minute later; with OPEN comes the descriptor of a stream that leads to a
session of that mailbox, whose first line answers the client.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from qsend.core.errors import RemoteProtocolError
from qsend.formats.frames import Fields, frame

OUTCOME = b"o"
"""Body: u32 number, u8 outcome; with OPEN one descriptor, but to smtpd, which only
wants to know."""
CANCEL = b"c"
"""The listener's client has left. Body: u32 number; no OUTCOME is wanted."""

_NUMBER = struct.Struct("!I")
_HEAD = struct.Struct("!IB")


class LoginOutcome(IntEnum):
    """What a login came to."""

    OPEN = 0
    REFUSED = 1
    """Wrong, unknown or suspended: the client is not told which."""
    TEMPORARY = 2
    TOO_SOON = 3
    """Too many failures from there, or on that user."""


def render_outcome(number: int, outcome: LoginOutcome) -> bytes:
    """The OUTCOME frame."""
    return frame(OUTCOME, _HEAD.pack(number, outcome))


def parse_outcome(body: bytes) -> tuple[int, LoginOutcome]:
    """(number, outcome) of an OUTCOME body. Raises: RemoteProtocolError."""
    fields = Fields(body)
    number, outcome = fields.take(_HEAD)
    fields.end()
    if outcome not in set(LoginOutcome):
        raise RemoteProtocolError(f"outcome {outcome}")
    return number, LoginOutcome(outcome)


def render_cancel(number: int) -> bytes:
    """The CANCEL frame."""
    return frame(CANCEL, _NUMBER.pack(number))


def parse_cancel(body: bytes) -> int:
    """The number of a CANCEL body. Raises: RemoteProtocolError."""
    fields = Fields(body)
    (number,) = fields.take(_NUMBER)
    fields.end()
    return number
