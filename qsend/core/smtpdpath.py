"""What stands behind MAIL and RCPT: an address and parameters.

    >>> parse_argument(b"FROM:<joe@here.example> SIZE=12 BODY=8BITMIME")
    Argument(address=b'joe@here.example', parameters={b'SIZE': b'12', ...})

Source: qmail-smtpd.c addrparse(); RFC 5321 4.1.1.2, 4.1.1.11.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from qsend.core import smtpdreplies as replies

ADDRESS_MAX = 899
"""Longest address taken (qmail-smtpd.c: 900 with its NUL)."""

_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\xff]+))?")
_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
_BODIES = (b"7BIT", b"8BITMIME")
_QUOTING = re.compile(rb'[\\"]')


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """`address` is unquoted and without route; keys of `parameters` upper case."""

    address: bytes
    parameters: Mapping[bytes, bytes] = field(default_factory=dict)

    @property
    def words(self) -> tuple[bytes, ...]:
        """The parameters as words."""
        pairs = self.parameters.items()
        return tuple(b"%b=%b" % pair if pair[1] else pair[0] for pair in pairs)


def parse_argument(text: bytes) -> Argument | None:
    """Address and parameters; None when that is no address or it is too long.

    As qmail does, takes an address without brackets, and does not care for the
    words FROM and TO.
    Raises: ValueError for parameters that are none.
    """
    before, bracket, rest = text.partition(b"<")
    end = b">"
    if not bracket:
        rest, end = before.partition(b":")[2].lstrip(b" "), b" "
    if rest[:1] == b"@":
        rest = rest.partition(b":")[2]
    address, after = _unquote(rest, end)
    if len(address) > ADDRESS_MAX or _CONTROLS.search(address):
        return None
    return Argument(address=address, parameters=_parameters(after) if after else {})


def _unquote(text: bytes, end: bytes) -> tuple[bytes, bytes]:
    """The address up to an `end` outside quotes, and what follows that."""
    if _QUOTING.search(text) is None:
        address, _, after = text.partition(end)
        return address, after
    unquoted = bytearray()
    is_escaped = is_quoted = False
    for at, byte in enumerate(text):
        if is_escaped:
            is_escaped = False
        elif byte == end[0] and not is_quoted:
            return bytes(unquoted), text[at + 1 :]
        elif byte == 0x5C:
            is_escaped = True
            continue
        elif byte == 0x22:
            is_quoted = not is_quoted
            continue
        unquoted.append(byte)
    return bytes(unquoted), b""


def _parameters(text: bytes) -> dict[bytes, bytes]:
    found = {}
    for word in text.split():
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise ValueError("no parameter")
        found[match[1].upper()] = match[2] or b""
    return found


def mail_argument(
    text: bytes, *, databytes: int, offers_login: bool
) -> Argument | bytes:
    """What stands behind MAIL, or the reply that refuses it.

    Args:
        text: all of it.
        databytes: largest message taken, 0 for any.
        offers_login: whether AUTH is among the extensions; what its parameter says
            of the sender counts for nothing.
    """
    argument = _argument(text, replies.BAD_SENDER_SYNTAX)
    if isinstance(argument, bytes):
        return argument
    refusal = _mail_refusal(
        argument.parameters, databytes=databytes, offers_login=offers_login
    )
    return argument if refusal is None else refusal


def rcpt_argument(text: bytes) -> Argument | bytes:
    """The same for RCPT."""
    argument = _argument(text, replies.BAD_RECIPIENT_SYNTAX)
    if isinstance(argument, Argument) and argument.parameters:
        return replies.UNKNOWN_PARAMETER
    return argument


def _argument(text: bytes, no_address: bytes) -> Argument | bytes:
    try:
        argument = parse_argument(text)
    except ValueError:
        return replies.SYNTAX
    return no_address if argument is None else argument


def _mail_refusal(
    parameters: Mapping[bytes, bytes], *, databytes: int, offers_login: bool
) -> bytes | None:
    for name, value in parameters.items():
        match name:
            case b"SIZE" if value.isdigit() and len(value) <= 20:
                if 0 < databytes < int(value):
                    return replies.TOO_LARGE
            case b"BODY" if value.upper() in _BODIES:
                pass
            case b"SMTPUTF8" if not value:
                pass
            case b"AUTH" if offers_login and value:
                pass
            case b"SIZE" | b"BODY" | b"SMTPUTF8":
                return replies.SYNTAX
            case _:
                return replies.UNKNOWN_PARAMETER
    return None
