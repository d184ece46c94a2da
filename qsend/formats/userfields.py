"""A user as fields of a frame: what lookup finds, lspawn and its children get."""

from __future__ import annotations

import struct

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import INSTRUCTIONS_MAX, Ownership, User
from qsend.formats.frames import Fields, string

FIELD_MAX = 8192
"""Longest field of a user: a record of users/cdb and a local part together."""

_IDS = struct.Struct("!BBII")


def render_user(user: User) -> bytes:
    """u8 ownership, u8 whether there are instructions, u32 uid, u32 gid; the strings
    name, home, dash, ext, and the instructions if there are any.
    """
    texts = [user.name, user.home, user.dash, user.ext]
    if user.instructions is not None:
        texts.append(user.instructions)
    head = _IDS.pack(user.ownership, user.instructions is not None, user.uid, user.gid)
    return head + b"".join(map(string, texts))


def parse_user(fields: Fields) -> User:
    """The next fields as a user. Raises: RemoteProtocolError."""
    ownership, is_instructed, uid, gid = fields.take(_IDS)
    if ownership not in set(Ownership) or is_instructed > 1:
        raise RemoteProtocolError(f"user flags {ownership}, {is_instructed}")
    name, home, dash, ext = (fields.string(FIELD_MAX) for _ in range(4))
    return User(
        name=name,
        uid=uid,
        gid=gid,
        home=home,
        dash=dash,
        ext=ext,
        ownership=Ownership(ownership),
        instructions=fields.string(INSTRUCTIONS_MAX) if is_instructed else None,
    )
