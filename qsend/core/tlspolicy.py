"""What a destination's sessions owe to TLS: how much is asked for, and of whom.

The destination is the relay that smtproutes names, else the domain. Without a
line for it the level is MAY: whoever listens reads nothing, and no mail is held up
for it. A relay that is given a password is never left at MAY, for whoever stands
in between could take STARTTLS out of the conversation.
The names of VERIFY are what the operator or the sender of the mail wrote, never
what an MX record says: that can be forged as easily as an address.
Must not: read certificates.
Source: RFC 3207, 8314 3.2, 9525 6.3; Postfix TLS_README (levels).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from qsend.core.mx import canonical, relay_literal, route


class Level(Enum):
    """How much is asked for; the value is the word in control/tlspolicy."""

    NONE = "none"
    """STARTTLS is not used."""
    MAY = "may"
    """Used where it works; any certificate; otherwise in clear."""
    ENCRYPT = "encrypt"
    """Always; any certificate."""
    VERIFY = "verify"
    """Always; the certificate must be good and carry one of the names."""

    @property
    def is_must(self) -> bool:
        """Whether nothing may be sent in clear."""
        return self in (Level.ENCRYPT, Level.VERIFY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of control/tlspolicy; `names` replace the usual ones of VERIFY."""

    level: Level
    names: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a relay is told by AUTH."""

    user: bytes
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a new session must come to before mail goes over it.

    `names` are lower case: a host name, `.suffix` for all names below it, or an
    IP address; used by VERIFY alone.
    """

    level: Level = Level.NONE
    names: tuple[bytes, ...] = ()
    login: Login | None = None


Names = Iterable[tuple[str, str]]
"""Subject alternative names: ("DNS", name) or ("IP Address", address)."""

_MAY = Rule(level=Level.MAY)


def demand(
    destination: bytes, policies: Mapping[bytes, Rule], login: Login | None = None
) -> Demand:
    """What control/tlspolicy asks of a destination's sessions.

    Args:
        destination: a relay's name or address, or a domain, in any case.
        policies: keys as in control/smtproutes, without brackets.
        login: what the relay is to be told, if anything.
    """
    name = _bare(destination.lower())
    rule = route(name, policies) or _MAY
    level = rule.level
    if login is not None and level is Level.MAY:
        level = Level.ENCRYPT
    names = rule.names
    if level is Level.VERIFY and not names:
        names = (name,) if relay_literal(name) else (name, b"." + name)
    return Demand(level=level, names=names, login=login)


def _bare(name: bytes) -> bytes:
    inner = name[1:-1] if name[:1] == b"[" and name[-1:] == b"]" else name
    return inner.removeprefix(b"ipv6:")


def is_named(found: Names, wanted: Sequence[bytes]) -> bool:
    """Whether a certificate with these names is for one of the wanted ones.

    `*` stands for one whole label, the first, and not below a top-level domain.
    """
    texts = [name.decode("ascii", "replace") for name in wanted]
    return any(_matches(kind, name, text) for kind, name in found for text in texts)


def _matches(kind: str, name: str, wanted: str) -> bool:
    if kind == "IP Address":
        return _address(name) is not None and _address(name) == _address(wanted)
    name = name.lower().removesuffix(".")
    if kind != "DNS" or not name or _address(wanted) is not None:
        return False
    if wanted[:1] == ".":
        return name.endswith(wanted) and name != wanted
    if name[:2] == "*.":
        _label, _, parent = wanted.partition(".")
        return name[2:] == parent and "." in parent
    return name == wanted


def _address(text: str) -> str | None:
    try:
        return canonical(text.strip())
    except ValueError:
        return None
