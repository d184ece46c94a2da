"""From the password file to users/assign, as users/include and its sisters say.

Must not: look at homes; who calls does. Source: qmail-pw2u(8); qmail-pw2u.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from qsend.formats.controllines import lines

ALIAS = b"alias"


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswdLine:
    """An account of the password file; numbers as they were written."""

    name: bytes
    uid: bytes
    gid: bytes
    home: bytes

    @property
    def middle(self) -> bytes:
        """What every line of the account has behind its address."""
        return b":".join((b"", self.name, self.uid, self.gid, self.home, b""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the options and files say; names of accounts are lower case here.

    `include` is None when there is no such file. `brk` is the break character, or
    b"" for no extension addresses. `dash` is b"-", or b"-/" for `-/`.
    """

    include: frozenset[bytes] | None = None
    exclude: frozenset[bytes] = frozenset()
    mailnames: Mapping[bytes, tuple[bytes, ...]]
    brk: bytes = b"-"
    dash: bytes = b"-"
    with_uppercase: bool = False


def parse_passwd(line: bytes) -> PasswdLine | None:
    """The account of one line; None for root and for what is no account.

    An account needs seven fields and numbers: qmail copies numbers that are none,
    and lspawn then refuses all mail for the account.
    """
    fields = line.rstrip(b"\n").split(b":")
    if len(fields) < 7 or b"\0" in line:
        return None
    name, _, uid, gid, _, home, *_ = fields
    # isdigit of bytes is ASCII only.
    if not name or not uid.isdigit() or not gid.isdigit() or not uid.strip(b"0"):
        return None
    return PasswdLine(name=name, uid=uid, gid=gid, home=home)


def parse_names(content: bytes) -> frozenset[bytes]:
    """users/include or users/exclude: one account per line."""
    return frozenset(line.lower() for _, line in lines(content))


def parse_mailnames(content: bytes) -> dict[bytes, tuple[bytes, ...]]:
    """users/mailnames: `account:name:name...` per line; the last line counts."""
    found = {}
    for _, line in lines(content):
        account, colon, names = line.partition(b":")
        if colon:
            found[account.lower()] = tuple(filter(None, names.split(b":")))
    return found


def parse_subusers(content: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """users/subusers: (sub, account, pre) of each `sub:account:pre:` line."""
    for line in content.split(b"\n"):
        fields = line.split(b":")
        if len(fields) > 3:
            yield fields[0], fields[1], fields[2]


def is_wanted(account: PasswdLine, rules: Rules) -> bool:
    """Whether the account gets lines, as far as its name decides."""
    if not rules.with_uppercase and account.name != account.name.lower():
        return False
    name = account.name.lower()
    if rules.include is not None and name not in rules.include:
        return False
    return name not in rules.exclude


def account_lines(account: PasswdLine, rules: Rules) -> Iterator[bytes]:
    """The lines of users/assign for one account."""
    with_ext = b"%b%b::\n" % (account.middle, rules.dash)
    if account.name == ALIAS:
        yield b"+" + with_ext
    for name in rules.mailnames.get(account.name.lower(), (account.name,)):
        yield b"=%b%b::\n" % (name, account.middle)
        if rules.brk:
            yield b"+%b%b%b" % (name, rules.brk, with_ext)


def subuser_lines(
    sub: bytes, account: PasswdLine, pre: bytes, rules: Rules
) -> Iterator[bytes]:
    """The lines for one address that is an extension of an account."""
    head = account.middle + rules.dash
    yield b"=%b%b:%b:\n" % (sub, head, pre)
    if rules.brk:
        yield b"+%b%b%b:%b-:\n" % (sub, rules.brk, head, pre)


def appended(content: bytes) -> Iterable[bytes]:
    """users/append as it is; a last line without an end gets one."""
    if not content:
        return ()
    return (content,) if content.endswith(b"\n") else (content, b"\n")
