"""Which addresses SMTP can carry, and the report for the others.

Must not do: judge whether an address exists.
Source: RFC 5321 4.1.2; qmail-remote.c sends every byte, a known weakness.
"""

from __future__ import annotations

from qsend.core.address import split
from qsend.core.model import Letter
from qsend.core.smtptypes import Answer

_BREAKS = frozenset(b"\r\n\0")
_NOT_IN_DOMAINS = frozenset(range(33)) | frozenset(b"<>\x7f")


def is_sendable(address: bytes) -> bool:
    """Whether the address fits into one SMTP command and stays one address.

    CR, LF and NUL fit nowhere; blanks, controls and angle brackets not into a
    domain (nor into an address without `@`, which is sent raw): they would end
    the path and start a parameter. qmail sends them all.
    """
    local, domain = split(address)
    if domain is None:
        return _NOT_IN_DOMAINS.isdisjoint(local)
    return _BREAKS.isdisjoint(local) and _NOT_IN_DOMAINS.isdisjoint(domain)


def unsendable_answer(*, is_sender: bool) -> Answer:
    """The report when `is_sendable` says no."""
    whose, code = (b"sender", b"5.1.7") if is_sender else (b"recipient", b"5.1.3")
    text = b"Sorry, the %s address cannot be sent over SMTP. (#%s)\n" % (whose, code)
    return Answer(letter=Letter.FAILURE, text=text)
