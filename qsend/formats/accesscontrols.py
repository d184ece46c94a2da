"""The control files that say whose mail listeners take, all of them as one value.

control/rbl has a source per line: `ACTION ZONE[=ANSWERS] [open|closed] [TEXT]`.
Source: qmail-control(5); docs/NETWORK.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.rbl import Action, Answers, Source
from qsend.core.relay import RelayRules
from qsend.core.rewrite import Rules
from qsend.formats.control import Controls, number_file
from qsend.formats.controllines import lines, one_line

DEADLINE = "timeoutrbl"
DEADLINE_BOUNDS = (10, 1, 60)
"""Seconds: default, least, most. A client waits 300 s for a greeting (RFC 5321
4.5.3.2.1)."""
ACCESS_FILES = frozenset({"rcpthosts", "badmailfrom", "localiphost", "rbl", DEADLINE})
"""Names of the control files that AccessSettings is made of, besides those of
Controls (me, envnoathost, percenthack)."""

_SOURCES_MAX = 32
_ACTIONS = {action.value.encode(): action for action in Action}
_ZONE_MAX = 180
"""With the 64 bytes of an IPv6 address in front a name has at most 253."""
_ZONE = re.compile(rb"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
_IPV4 = re.compile(rb"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})(-.*)?")
_LINE = re.compile(
    rb"\s*(\S+)\s+([^\s=]+)(?:=(\S+))?(?:\s+(open|closed)(?!\S))?\s*(.*)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """Whose mail is taken; `rbl_deadline_s` is how long lists are waited for."""

    relay: RelayRules
    rbl: tuple[Source, ...] = ()
    rbl_deadline_s: int = DEADLINE_BOUNDS[0]


def parse_access(files: Mapping[str, bytes], controls: Controls) -> AccessSettings:
    """The settings of a snapshot.

    Args:
        files: name of each control file that exists, and its content.
        controls: the same snapshot, parsed.
    Raises: ConfigError with every fault in any of ACCESS_FILES.
    """
    faults: list[ConfigFault] = []
    sources = _sources(files.get("rbl", b""), faults)
    rcpthosts = files.get("rcpthosts")
    localiphost = controls.me
    if "localiphost" in files:
        localiphost = one_line(files["localiphost"])
    settings = AccessSettings(
        relay=RelayRules(
            rewriting=Rules(
                envnoathost=controls.envnoathost, percenthack=controls.percenthack
            ),
            rcpthosts=None if rcpthosts is None else _hosts(rcpthosts, faults),
            badmailfrom=_senders(files.get("badmailfrom", b"")),
            localiphost=localiphost,
        ),
        rbl=sources,
        rbl_deadline_s=number_file(
            DEADLINE, files.get(DEADLINE), DEADLINE_BOUNDS, faults
        ),
    )
    faults += [
        _fault(name, files[name][: files[name].index(b"\0")].count(b"\n") + 1, _NUL)
        for name in sorted(ACCESS_FILES & files.keys())
        if b"\0" in files[name]
    ]
    if faults:
        raise ConfigError(faults)
    return settings


_NUL = "expected text, found a NUL byte"


def _hosts(content: bytes, faults: list[ConfigFault]) -> frozenset[bytes]:
    """What can never match is an error: the operator means something else."""
    found = set()
    for number, line in lines(content):
        if re.search(rb"[\s@*]", line):
            problem = "expected host.example or .example for all hosts below"
            faults.append(
                _fault("rcpthosts", number, f"{problem}, found {_shown(line)}")
            )
        found.add(line.lower())
    return frozenset(found)


def _senders(content: bytes) -> frozenset[bytes]:
    return frozenset(line.lower() for _, line in lines(content))


def _sources(content: bytes, faults: list[ConfigFault]) -> tuple[Source, ...]:
    found = []
    for number, line in lines(content):
        try:
            found.append(_source(line))
        except ValueError as exc:
            faults.append(_fault("rbl", number, str(exc)))
    if len(found) > _SOURCES_MAX:
        faults.append(_fault("rbl", 0, f"more than {_SOURCES_MAX} lists"))
    return tuple(found)


def _source(line: bytes) -> Source:
    """Raises: ValueError with what is wrong."""
    words = _LINE.fullmatch(line)
    if words is None:
        raise ValueError("expected ACTION ZONE[=ANSWERS] [open|closed] [TEXT]")
    action, zone, answers, failing, text = words.groups()
    if action not in _ACTIONS:
        names = ", ".join(name.decode() for name in _ACTIONS)
        raise ValueError(f"expected one of {names}, found {_shown(action)}")
    zone = zone.removesuffix(b".").lower()
    if len(zone) > _ZONE_MAX or not _ZONE.fullmatch(zone):
        raise ValueError(f"expected the name of a list, found {_shown(zone)}")
    return Source(
        zone=zone,
        action=_ACTIONS[action],
        fails_closed=failing == b"closed",
        answers=tuple(map(_answers, answers.split(b","))) if answers else (),
        text=text,
    )


def _answers(text: bytes) -> Answers:
    """`127.0.0.2`, or `127.0.0.4-11` for a range of the last octet."""
    found = _IPV4.fullmatch(text)
    octets = [int(octet) for octet in found.groups()[:4]] if found else [256]
    last = octets[-1]
    if found and found[5]:
        digits = found[5][1:]
        last = int(digits) if re.fullmatch(rb"[0-9]{1,3}", digits) else 256
    if max(*octets, last) > 255 or last < octets[-1]:
        problem = "expected answers as 127.0.0.2 or 127.0.0.4-11"
        raise ValueError(f"{problem}, found {_shown(text)}")
    first = int.from_bytes(octets)
    return Answers(first=first, last=first - octets[-1] + last)


def _fault(name: str, line: int, problem: str) -> ConfigFault:
    return ConfigFault(file=f"control/{name}", line=line, problem=problem)


def _shown(text: bytes) -> str:
    return repr(text[:60].decode("ascii", "backslashreplace"))
