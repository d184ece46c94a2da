"""Bounces: the paragraph of a failed recipient, and the message that returns it.

The text follows QSBMF, so that every tool that reads qmail's bounces reads ours.
Source: qmail-send.c addbounce and injectbounce; QSBMF (qsbmf.txt).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from qsend.core.address import quote, unverp
from qsend.core.rewrite import strip_prepend

DOUBLE_SENDER = b"#@[]"
"""Envelope sender of a double bounce; a bounce of that is discarded."""

_AFTER_LINE_END = re.compile(rb"(?<=\n)\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who bounces: From address, host named in the text, double-bounce target."""

    bouncefrom: bytes
    bouncehost: bytes
    doublebounceto: bytes
    doublebouncehost: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BounceHead:
    """A bounce ready to queue: envelope, and the text on both sides of the report.

    The message is `before`, the content of bounce/N, `after`, then mess/N.
    """

    sender: bytes
    recip: bytes
    before: bytes
    after: bytes


def paragraph(
    recip: bytes, report: bytes, virtualdomains: Mapping[bytes, bytes]
) -> bytes:
    """The paragraph that records one permanent failure in bounce/N.

    Args:
        recip: the stored address; a virtual domain's prefix is taken off.
        report: text of the delivery, any bytes.
        virtualdomains: the map in force now.
    Returns: `<address>:` LF, the report, and an empty line. Each LF that follows
        another is a `/`, but one that ends the report: no empty line is inside.
    """
    shown = strip_prepend(recip, virtualdomains).replace(b"\n", b"_")
    text = b"<" + shown + b">:\n" + report
    if not text.endswith(b"\n"):
        text += b"\n"
    return _AFTER_LINE_END.sub(b"/", text[:-1]) + b"\n\n"


def compose(
    sender: bytes, who: Identity, date: bytes, program: bytes = b"qmail-send"
) -> BounceHead | None:
    """The bounce for a message from `sender`, or None when it must be discarded.

    Args:
        sender: envelope sender of the failed message, VERP suffix and all.
        who: the controls in force.
        date: RFC 822 date of now, UTC with zone -0000, without line end.
        program: who says it.
    Returns: a single bounce from the null sender, a double bounce from `#@[]`
        for a message that had the null sender, None for a failed double bounce.
    """
    origin = unverp(sender)
    if origin == DOUBLE_SENDER:
        return None
    if origin:
        bounce_sender, recip = b"", origin
        intro = (
            b"Your message could not be delivered to the addresses below.\n"
            b"This is final: no further attempt will be made.\n"
        )
        rule = b"--- Below this line is a copy of the message.\n"
    else:
        bounce_sender = DOUBLE_SENDER
        recip = who.doublebounceto + b"@" + who.doublebouncehost
        intro = b"A bounce could not be delivered to the address below.\n"
        rule = b"--- Below this line is the original bounce.\n"
    before = (
        b"Date: " + date + b"\n"
        b"From: " + _shown(who.bouncefrom + b"@" + who.bouncehost) + b"\n"
        b"To: " + _shown(recip) + b"\n"
        b"Subject: failure notice\n\n"
        b"Hi. This is the "
        + program
        + b" program at "
        + who.bouncehost
        + b".\n"
        + intro
        + b"\n"
    )
    after = rule + b"\nReturn-Path: <" + _shown(origin) + b">\n"
    return BounceHead(sender=bounce_sender, recip=recip, before=before, after=after)


def _shown(address: bytes) -> bytes:
    """An address for a header field: quoted, and in one line whatever it holds."""
    return quote(address).replace(b"\n", b"_")
