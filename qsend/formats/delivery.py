"""Delivery commands and reports on qsend's own wires.

send gives remote a transaction with the message's descriptor, lspawn a delivery
with the message's path; lspawn gives a local child the resolved user and a
descriptor. All answer with one report per delivery.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import Cause, DelId, Letter, User
from qsend.formats.frames import Fields, frame, string
from qsend.formats.userfields import parse_user, render_user

TRANSACTION = b"T"
"""send to remote; one descriptor of mess/N comes with each, in order."""
LOCAL = b"L"
"""send to lspawn; no descriptor."""
CHILD = b"C"
"""lspawn to a local child; one descriptor of mess/N comes with each, in order."""
REPORT = b"R"
"""The answer to one delivery, once."""
FORGET = b"F"
"""send to remote; no body. An operator wants hosts that did not answer tried again."""

RECIPS_MAX = 100
"""Recipients of one transaction (RFC 5321 4.5.3.1.8: every server takes 100)."""
REPORT_MAX = 10000
"""Longest report text kept (qmail-send.c REPORTMAX)."""
REPORT_LOCAL_MAX = 3000
"""Longest report text of a local delivery (qmail-lspawn.c truncreport)."""

_ADDRESS_MAX = 8192
_TRANSACTION = struct.Struct("!BQHH")
_DELID = struct.Struct("!I")
_LOCAL = struct.Struct("!BI")
_REPORT = struct.Struct("!IBB")
_LETTERS = {letter.value[0]: letter for letter in Letter}
_CAUSES = {cause.value: cause for cause in Cause}


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """One message for recipients that share destination and sender.

    `domain` is the recipients' domain; `relay` the routed host (b"" = by MX) and
    `port` its port. `size` counts the bytes of mess/N. `recips` pairs each
    delivery with its recipient, 1 to RECIPS_MAX, in queue order. `alone` marks a
    suspect: nothing else may share the child.
    """

    domain: bytes
    relay: bytes
    port: int
    size: int
    sender: bytes
    recips: tuple[tuple[DelId, bytes], ...]
    alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalDelivery:
    """One message for one local recipient, as send asks lspawn.

    `path` is `<N mod 23>/<N>` below mess/; `sender` is VERP-expanded; `recip`
    is the stored (rewritten) address.
    """

    delid: DelId
    path: bytes
    sender: bytes
    recip: bytes
    alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildDelivery:
    """One message for one user, as lspawn hands it to that user's child.

    `local` and `domain` are the recipient's two sides.
    """

    delid: DelId
    user: User
    local: bytes
    domain: bytes
    sender: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of one delivery; `text` goes to the log and the bounce."""

    delid: DelId
    letter: Letter
    text: bytes
    cause: Cause = Cause.NORMAL


def render_transaction(transaction: Transaction) -> bytes:
    """The TRANSACTION frame."""
    parts = [
        _TRANSACTION.pack(
            transaction.alone,
            transaction.size,
            transaction.port,
            len(transaction.recips),
        ),
        string(transaction.domain),
        string(transaction.relay),
        string(transaction.sender),
    ]
    for delid, recip in transaction.recips:
        parts += (_DELID.pack(delid), string(recip))
    return frame(TRANSACTION, b"".join(parts))


def parse_transaction(body: bytes) -> Transaction:
    """The value of a TRANSACTION body. Raises: RemoteProtocolError."""
    fields = Fields(body)
    alone, size, port, count = fields.take(_TRANSACTION)
    if not 1 <= count <= RECIPS_MAX:
        raise RemoteProtocolError(f"transaction of {count} recipients")
    domain, relay, sender = (fields.string(_ADDRESS_MAX) for _ in range(3))
    recips = tuple(
        (DelId(fields.take(_DELID)[0]), fields.string(_ADDRESS_MAX))
        for _ in range(count)
    )
    fields.end()
    return Transaction(
        domain=domain,
        relay=relay,
        port=port,
        size=size,
        sender=sender,
        recips=recips,
        alone=bool(alone),
    )


def render_local(delivery: LocalDelivery) -> bytes:
    """The LOCAL frame."""
    return frame(
        LOCAL,
        _LOCAL.pack(delivery.alone, delivery.delid)
        + string(delivery.path)
        + string(delivery.sender)
        + string(delivery.recip),
    )


def parse_local(body: bytes) -> LocalDelivery:
    """The value of a LOCAL body. Raises: RemoteProtocolError."""
    fields = Fields(body)
    alone, delid = fields.take(_LOCAL)
    path, sender, recip = (fields.string(_ADDRESS_MAX) for _ in range(3))
    fields.end()
    return LocalDelivery(
        delid=DelId(delid), path=path, sender=sender, recip=recip, alone=bool(alone)
    )


def render_child(delivery: ChildDelivery) -> bytes:
    """The CHILD frame."""
    return frame(
        CHILD,
        _DELID.pack(delivery.delid)
        + render_user(delivery.user)
        + string(delivery.local)
        + string(delivery.domain)
        + string(delivery.sender),
    )


def parse_child(body: bytes) -> ChildDelivery:
    """The value of a CHILD body. Raises: RemoteProtocolError."""
    fields = Fields(body)
    (delid,) = fields.take(_DELID)
    user = parse_user(fields)
    local, domain, sender = (fields.string(_ADDRESS_MAX) for _ in range(3))
    fields.end()
    return ChildDelivery(
        delid=DelId(delid), user=user, local=local, domain=domain, sender=sender
    )


def render_report(report: Report, limit: int = REPORT_MAX) -> bytes:
    """The REPORT frame; text past `limit` bytes is cut."""
    return frame(
        REPORT,
        _REPORT.pack(report.delid, report.letter.value[0], report.cause)
        + report.text[:limit],
    )


def parse_report(body: bytes) -> Report:
    """The value of a REPORT body.

    Raises: RemoteProtocolError on a short body, an unknown letter or cause.
    """
    fields = Fields(body)
    delid, letter, cause = fields.take(_REPORT)
    text = fields.rest()
    try:
        return Report(
            delid=DelId(delid),
            letter=_LETTERS[letter],
            text=text[:REPORT_MAX],
            cause=_CAUSES[cause],
        )
    except KeyError as exc:
        raise RemoteProtocolError(f"report letter {letter}, cause {cause}") from exc
