"""control/milters: the mail filters that SMTP clients' messages go through, in order.

One line each: `ADDRESS [WORD ...]`, as `unix:/run/opendkim/opendkim.sock timeout=20`.
Source: qmail-control(5); libmilter's smfi_setconn (the form of the address).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from qsend.core.errors import ConfigFault
from qsend.core.smtpdpath import parse_argument
from qsend.formats.controllines import lines

MILTERS = "milters"
_MOST = 8
_UNIX = re.compile(r"(?:unix|local):(/[^\0]{1,106})")
_INET = re.compile(r"(inet6?):([0-9]{1,5})@(\[?)([A-Za-z0-9.:-]{1,253})(\]?)")
_NUMBERS: Mapping[str, tuple[str, int]] = {
    "connect": ("connect_s", 600),
    "timeout": ("timeout_s", 3600),
    "content": ("content_s", 3600),
}
"""Word, name of the attribute, and most seconds."""


class Down(Enum):
    """What becomes of mail when a filter fails."""

    TEMPFAIL = "tempfail"
    REJECT = "reject"
    ACCEPT = "accept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Milter:
    """One filter: `path` of a unix socket, or `host` and `port`.

    `connect_s`, `timeout_s` and `content_s` are how long it may take to be connected
    to and agreed with, for an answer, and for the answer at the end of a message.
    `submission` is None, or says that only such listeners, or only others, have it.
    `quarantine` is who gets what it wants kept from its recipients.
    """

    name: str
    path: str = ""
    host: str = ""
    port: int = 0
    down: Down = Down.TEMPFAIL
    connect_s: float = 10.0
    timeout_s: float = 30.0
    content_s: float = 300.0
    submission: bool | None = None
    quarantine: bytes | None = None

    def serves(self, *, is_submission: bool) -> bool:
        """Whether clients of such a listener meet it."""
        return self.submission is None or self.submission is is_submission


def parse_milters(content: bytes, faults: list[ConfigFault]) -> tuple[Milter, ...]:
    """The filters of the file, in order; what is wrong goes to `faults`."""
    found: list[Milter] = []
    for number, line in lines(content):
        try:
            milter = _milter(line.decode("utf-8").split())
            if any(milter.name == other.name for other in found):
                raise ValueError("is there twice")
            found.append(milter)
        except ValueError as exc:
            problem = "is no UTF-8" if isinstance(exc, UnicodeDecodeError) else str(exc)
            faults.append(_fault(number, problem))
    if len(found) > _MOST:
        faults.append(_fault(0, f"more than {_MOST} lines"))
    return tuple(found)


def _milter(words: list[str]) -> Milter:
    """Raises: ValueError saying what is wrong."""
    # A line of nothing but what only UTF-8 counts as a blank has no words.
    milter = _address(words[0] if words else "")
    seen = set()
    for word in words[1:]:
        key = word.partition("=")[0]
        kind = "tempfail" if key in _DOWNS else "smtp" if key in _LISTENERS else key
        if kind in seen:
            raise ValueError(f"{word} is one too many")
        seen.add(kind)
        milter = _with_word(milter, word)
    return milter


def _address(word: str) -> Milter:
    if unix := _UNIX.fullmatch(word):
        return Milter(name=word, path=unix[1])
    inet = _INET.fullmatch(word)
    # Brackets are there twice, or not at all.
    if inet is None or len(inet[3]) != len(inet[5]) or not 0 < int(inet[2]) < 65536:
        raise ValueError("expected unix:/path, inet:port@host or inet6:port@host")
    return Milter(name=word, host=inet[4], port=int(inet[2]))


def _with_word(milter: Milter, word: str) -> Milter:
    key, equals, value = word.partition("=")
    if word in _DOWNS:
        return replace(milter, down=Down(word))
    if word in _LISTENERS:
        return replace(milter, submission=_LISTENERS[word])
    if key in _NUMBERS and equals:
        name, most = _NUMBERS[key]
        if not value.isdecimal() or not 0 < int(value[:10]) <= most:
            raise ValueError(f"expected {key}=SECONDS, 1 to {most}")
        return replace(milter, **{name: float(value)})  # type: ignore[arg-type] # by name
    if key == "quarantine" and equals:
        argument = parse_argument(b"<%b>" % value.encode())
        if argument is None or b"@" not in argument.address:
            raise ValueError("expected quarantine=ADDRESS")
        return replace(milter, quarantine=argument.address)
    raise ValueError(f"unknown word {word[:40]}")


_DOWNS = frozenset(each.value for each in Down)
_LISTENERS = {"submission": True, "smtp": False}


def _fault(line: int, problem: str) -> ConfigFault:
    return ConfigFault(file=f"control/{MILTERS}", line=line, problem=problem)
