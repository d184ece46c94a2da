"""Block lists: what a client's listings mean, as rblsmtpd judges them.

The sources are asked in any order and judged in theirs: the first that decides, does.
Must not: ask the DNS; sysio/rbl.py does.
Source: ucspi-tcp rblsmtpd.c; rblsmtpd(1); RFC 5782; docs/NETWORK.md.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

TEXT_MAX = 200
"""Bytes of a reason that are shown (rblsmtpd.c)."""
LOOKUP_ERROR = b"temporary RBL lookup error"
OVERRIDE = b"RBLSMTPD"
"""The variable by which an access rule decides in place of all lists."""
ADDRESS_MARK = b"%IP%"
"""Stands for the client's address in a reason."""


class Action(Enum):
    """What a listing does, or all of them together."""

    PASS = "allow"
    """The client is not blocked, whatever later lists say (rblsmtpd -a)."""
    DEFER = "defer"
    """Mail is refused with 451 (rblsmtpd -B -r)."""
    REJECT = "reject"
    """Mail is refused with 553 (rblsmtpd -b -r)."""
    NOTE = "log"
    """The listing is logged and nothing more, to try a list out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The A records that count as a listing, from `first` to `last`, as numbers."""

    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One list.

    `zone` is without final dot, lower case. `fails_closed`: a list that does not
    answer counts as listing the client for a while (rblsmtpd -c). `answers` are the
    addresses that count, all when empty; `text` the reason to give, b"" for the
    list's own TXT record.
    """

    zone: bytes
    action: Action
    fails_closed: bool = False
    answers: tuple[Answers, ...] = ()
    text: bytes = b""

    @property
    def asks_address(self) -> bool:
        """Whether A records tell if a client is listed; otherwise TXT records do.

        rblsmtpd asks -r sources for TXT and -a sources for A.
        """
        return self.action is Action.PASS or bool(self.answers or self.text)


class Finding(Enum):
    """What one source knows of a client."""

    LISTED = "listed"
    ABSENT = "absent"
    FAILED = "failed"
    """It could not be found out in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A source's answer; `text` is the reason it gives, with LISTED."""

    finding: Finding
    text: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What becomes of a client.

    `action` is never NOTE. `text` is the reason when it is blocked, printable and
    not too long; `zone` the list that decided, b"" for the override, None for
    nobody; `notes` are for the log: who listed it without effect, who failed.
    """

    action: Action
    text: bytes = b""
    zone: bytes | None = None
    notes: tuple[bytes, ...] = ()

    @property
    def is_blocked(self) -> bool:
        """Whether the client's mail is refused."""
        return self.action is not Action.PASS

    @property
    def reply(self) -> bytes:
        """The answer to RCPT, DATA and all that rblsmtpd refuses, without line end."""
        return (b"451 " if self.action is Action.DEFER else b"553 ") + self.text

    def log_line(self, address: str, pid: int) -> bytes:
        """rblsmtpd's line, with its end, for a blocked client."""
        return b"rblsmtpd: %b pid %d: %b\n" % (address.encode(), pid, self.reply)


PASSED = Judgement(action=Action.PASS)


def override(variables: Mapping[bytes, bytes]) -> Judgement | None:
    """What RBLSMTPD says in place of all lists, or None when it is not there.

    Empty lets the client in; text blocks it with 451, after a `-` with 553.
    """
    value = variables.get(OVERRIDE)
    if value is None:
        return None
    if not value:
        return Judgement(action=Action.PASS, zone=b"")
    action = Action.REJECT if value[:1] == b"-" else Action.DEFER
    text = clean(value.removeprefix(b"-"))
    return Judgement(action=action, text=text, zone=b"")


def judge(sources: Sequence[Source], found: Sequence[Found | None]) -> Judgement | None:
    """What the answers mean, or None while one that is needed is missing.

    Args:
        found: one for each source in order, None where it has not answered yet.
    """
    notes: list[bytes] = []
    must_not_bounce = False
    for source, answer in zip(sources, found, strict=True):
        if answer is None:
            return None
        if answer.finding is Finding.FAILED:
            notes.append(b"%b did not answer" % source.zone)
            must_not_bounce = must_not_bounce or source.action is not Action.NOTE
        decided = _decision(source, answer)
        if decided is Action.NOTE:
            notes.append(b"%b lists it: %b" % (source.zone, clean(answer.text)))
        elif decided is not None:
            soften = must_not_bounce and decided is Action.REJECT
            text = LOOKUP_ERROR if answer.finding is Finding.FAILED else answer.text
            return Judgement(
                action=Action.DEFER if soften else decided,
                text=b"" if decided is Action.PASS else clean(text),
                zone=source.zone,
                notes=tuple(notes),
            )
    return Judgement(action=Action.PASS, notes=tuple(notes))


def judge_late(sources: Sequence[Source], found: Sequence[Found | None]) -> Judgement:
    """The same when the deadline has passed: who has not answered has failed."""
    failed = Found(finding=Finding.FAILED)
    decided = judge(sources, [answer or failed for answer in found])
    assert decided is not None  # no answer is missing
    return decided


def _decision(source: Source, answer: Found) -> Action | None:
    """What one answer decides; None when the next source is to be heard."""
    match answer.finding:
        case Finding.ABSENT:
            return None
        case Finding.LISTED:
            return source.action
        case Finding.FAILED:
            if source.action is Action.PASS:
                return None if source.fails_closed else Action.PASS
            if source.action is Action.NOTE or not source.fails_closed:
                return None
            return Action.DEFER


def question(address: str, zone: bytes) -> bytes:
    """The name under which a list has an address: octets or nibbles backwards.

    Source: RFC 5782 2.1, 2.4.
    """
    name, _, _ = ipaddress.ip_address(address).reverse_pointer.rpartition(".")
    reversed_, _, _ = name.rpartition(".")
    return b"%b.%b" % (reversed_.encode(), zone)


def counts(source: Source, addresses: Sequence[str]) -> bool:
    """Whether the A records of an answer are a listing."""
    if not source.answers:
        return bool(addresses)
    return any(
        each.first <= number <= each.last
        for number in _numbers(addresses)
        for each in source.answers
    )


def _numbers(addresses: Sequence[str]) -> Iterator[int]:
    for address in addresses:
        parsed = ipaddress.ip_address(address)
        if parsed.version == 4:
            yield int(parsed)


def reason(source: Source, texts: Sequence[bytes], address: str) -> bytes:
    """Why a listed client is blocked: our text, the list's, or just the list's name."""
    text = source.text or b" ".join(texts) or b"listed by " + source.zone
    return text.replace(ADDRESS_MARK, address.encode())


def clean(text: bytes) -> bytes:
    """At most TEXT_MAX bytes, each printable."""
    return bytes(byte if 32 <= byte <= 126 else 0x3F for byte in text[:TEXT_MAX])
