"""What checkpassword and lookup say of attempts to log in: when, and how they end.

Source: core/loginbrake.py, which lookup keeps for programs that live for one attempt.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from qsend.core.errors import RemoteProtocolError
from qsend.formats.frames import Fields, frame, string

TURN = b"t"
"""Body: u32 number, u8 stage, strings name and client."""
PAUSE = b"T"
"""To TURN. Body: u32 number, u32 milliseconds to wait, or _NEVER."""

NAME_MAX = 4096
_NEVER = 2**32 - 1
_HEAD = struct.Struct("!IB")
_PAUSE = struct.Struct("!II")


class Stage(IntEnum):
    """Of one attempt."""

    BEGINS = 0
    """How long has it to wait?"""
    WRONG = 1
    RIGHT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """An attempt of `client` (its address, b"" if nobody knows it) on `name`."""

    number: int
    stage: Stage
    name: bytes
    client: bytes


def render_turn(turn: Turn) -> bytes:
    """The TURN frame."""
    head = _HEAD.pack(turn.number, turn.stage)
    return frame(TURN, head + string(turn.name) + string(turn.client))


def parse_turn(body: bytes) -> Turn:
    """The value of a TURN body. Raises: RemoteProtocolError."""
    fields = Fields(body)
    number, stage = fields.take(_HEAD)
    name, client = fields.string(NAME_MAX), fields.string(NAME_MAX)
    fields.end()
    if stage not in set(Stage):
        raise RemoteProtocolError(f"stage {stage}")
    return Turn(number=number, stage=Stage(stage), name=name, client=client)


def render_pause(number: int, wait_s: float | None) -> bytes:
    """The PAUSE frame; None: the attempt must not be judged."""
    wait_ms = _NEVER if wait_s is None else min(round(wait_s * 1000), _NEVER - 1)
    return frame(PAUSE, _PAUSE.pack(number, wait_ms))


def parse_pause(body: bytes) -> float | None:
    """The seconds of a PAUSE body. Raises: RemoteProtocolError."""
    fields = Fields(body)
    _number, wait_ms = fields.take(_PAUSE)
    fields.end()
    return None if wait_ms == _NEVER else wait_ms / 1000
