"""The family of processes that start keeps: who they are and what each is given.

A role is one process ("remote3"), its kind what code it runs ("remote").
Source: docs/ARCHITECTURE.md; qmail-start(8) (classic ones).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

SEND = "send"
ENQUEUE = "enqueue"
CLASSIC = "classic-"
"""Prefix of the programs that stand in for ours: --lspawn, --rspawn, --clean."""
ISOLATED = "isolated"
"""How send calls a remote of its own; the roles are isolated1, isolated2 ..."""

RUNNER = "runner"
"""Not in a plan until a listener asks for it."""

NAMES: Mapping[str, str] = {
    "enqueue": "qmail-queue",
    "lookup": "qmail-lookup",
    "clean": "qmail-clean",
    "lspawn": "qmail-lspawn",
    "remote": "qmail-remote",
    "send": "qmail-send",
    "login": "qmail-login",
    "pop3d": "qmail-pop3d",
    "smtpd": "qmail-smtpd",
    "qmtpd": "qmail-qmtpd",
    RUNNER: "qmail-runner",
    "classic-lspawn": "qmail-lspawn",
    "classic-rspawn": "qmail-rspawn",
    "classic-clean": "qmail-clean",
}
"""What the log calls each kind."""

_LINKS = (
    ("send", "enqueue"),
    ("send", "clean"),
    ("send", "lspawn"),
    ("send", "remote"),
    ("send", "classic-lspawn"),
    ("send", "classic-rspawn"),
    ("send", "classic-clean"),
    ("lspawn", "lookup"),
    ("send", "lookup"),
    ("login", "lookup"),
    ("pop3d", "login"),
    ("smtpd", "enqueue"),
    ("smtpd", "lookup"),
    ("smtpd", "login"),
    ("qmtpd", "enqueue"),
    ("qmtpd", "lookup"),
    ("smtpd", RUNNER),
    ("qmtpd", RUNNER),
)
"""The kinds that have a socket between them."""

# me and locals go to all: the rules for defaults need them, and they are no secret.
_ALL = ("me", "locals")
CONTROL_FILES: Mapping[str, frozenset[str]] = {
    "enqueue": frozenset({*_ALL, "durability", "queueminfree"}),
    "lookup": frozenset(
        {
            *_ALL,
            "envnoathost",
            "magicforwarding",
            "percenthack",
            "sqlblankalias",
            "sqllog",
            "sqlminuid",
            "sqlpatterns",
            "sqlqueries",
            "sqlserver",
            "virtualdomains",
        }
    ),
    "clean": frozenset({*_ALL, "durability"}),
    "lspawn": frozenset({*_ALL, "concurrencyperuser", "durability", "patrn"}),
    "remote": frozenset(
        {
            *_ALL,
            "clientcert.pem",
            "helohost",
            "resolvers",
            "smtpauth",
            "timeoutconnect",
            "timeoutremote",
            "tlscafile",
            "tlspolicy",
        }
    ),
    "send": frozenset(
        {
            *_ALL,
            "bouncefrom",
            "bouncehost",
            "concurrencylocal",
            "concurrencyperhost",
            "concurrencyremote",
            "doublebouncehost",
            "doublebounceto",
            "durability",
            "envnoathost",
            "percenthack",
            "queuelifetime",
            "smtproutes",
            "timeoutterm",
            "virtualdomains",
        }
    ),
    "login": frozenset({*_ALL, "loglogins", "systemlogins"}),
    "pop3d": frozenset(
        {
            *_ALL,
            "concurrencypop3d",
            "concurrencypop3dperip",
            "pop3listen",
            "pop3plain",
            "servercert.pem",
            "timeoutpop3d",
        }
    ),
    "smtpd": frozenset(
        {
            *_ALL,
            "badmailfrom",
            "concurrencysmtpd",
            "concurrencysmtpdperip",
            "databytes",
            "envnoathost",
            "localiphost",
            "maxrecipients",
            "maxsmtperrors",
            "milters",
            "percenthack",
            "rbl",
            "rcpthosts",
            "recipientcheck",
            "resolvers",
            "servercert.pem",
            "smtpgreeting",
            "smtplisten",
            "smtpnames",
            "smtpproxies",
            "timeoutrbl",
            "timeoutsmtpd",
        }
    ),
    "qmtpd": frozenset(
        {
            *_ALL,
            "concurrencyqmtpd",
            "concurrencyqmtpdperip",
            "databytes",
            "envnoathost",
            "percenthack",
            "qmqplisten",
            "qmtplisten",
            "rcpthosts",
            "timeoutqmtpd",
        }
    ),
    RUNNER: frozenset({*_ALL, "concurrencyrunner", "timeoutrunner"}),
}
"""The control files each kind may know."""

_SQLSERVER = "sqlserver"
SECRETS = frozenset({_SQLSERVER, "servercert.pem", "clientcert.pem", "smtpauth"})
"""Controls that nobody but root may read: start passes them on without reading them,
to the kinds that may know them."""
_TOLD_SQL = (SEND, "smtpd", "qmtpd")
SQL_MARK = ".sqlserver"
"""Tells send, smtpd and qmtpd that there is a database, and nothing of it. No file
that an operator makes is ever read under a name with a dot in front."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The roles of one tree, in the order in which they are forked."""

    roles: tuple[str, ...]

    def peers(self, role: str) -> tuple[str, ...]:
        """The roles that `role`, one of the plan or not, has a socket to."""
        return tuple(other for other in self.roles if _linked(kind(role), kind(other)))

    def grown(self, role: str) -> Plan:
        """The same with one role more, the last to be forked."""
        return Plan(roles=(*self.roles, role))

    def unit(self, role: str) -> tuple[str, ...]:
        """`role` and what is started again only together with it, in fork order."""
        if kind(role) in _PAIR:
            return tuple(other for other in self.roles if kind(other) in _PAIR)
        return (role,)

    def followers(self, role: str) -> tuple[str, ...]:
        """Those who cannot be given a new socket and so end when `role` does.

        A classic spawner has its commands on descriptor 0, from one send.
        """
        if kind(role) not in _PAIR:
            return ()
        return tuple(other for other in self.roles if kind(other) in _FOLLOWERS)


_PAIR = frozenset({"send", "clean", "classic-clean"})
_FOLLOWERS = frozenset({"classic-lspawn", "classic-rspawn"})


def plan(
    remotes: int,
    classic: Sequence[str] = (),
    *,
    pop3: bool = False,
    smtp: int = 0,
    qmtp: bool = False,
) -> Plan:
    """The tree with `remotes` remote children and these classic programs.

    `classic` holds any of "lspawn", "rspawn" and "clean". lookup is there in any
    case: a classic lspawn asks it by qmail-getpw. `pop3`: with listeners for POP3;
    `smtp`: so many processes with listeners for SMTP; `qmtp`: with listeners for
    QMTP or QMQP.
    """
    remote = [f"remote{number}" for number in range(remotes)]
    if "rspawn" in classic:
        remote = ["classic-rspawn"]
    # lspawn is forked first, while start has the least memory: it forks for each
    # account.
    return Plan(
        roles=(
            "classic-lspawn" if "lspawn" in classic else "lspawn",
            ENQUEUE,
            "lookup",
            "classic-clean" if "clean" in classic else "clean",
            *remote,
            SEND,
            *(("login",) if pop3 or smtp else ()),
            *(("pop3d",) if pop3 else ()),
            *(f"smtpd{number}" for number in range(smtp)),
            *(("qmtpd",) if qmtp else ()),
        )
    )


def kind(role: str) -> str:
    """What code a role runs."""
    name = role.rstrip("0123456789")
    return "remote" if name == ISOLATED else name


def peer_name(role: str) -> str:
    """What the role's peers call it in PEER frames and Boot.socks."""
    return ISOLATED if role.startswith(ISOLATED) else role


def is_classic(role: str) -> bool:
    """Whether the role is a program that speaks qmail's own wire."""
    return role.startswith(CLASSIC)


def _linked(one: str, other: str) -> bool:
    return (one, other) in _LINKS or (other, one) in _LINKS


def visible(
    role: str, files: Mapping[str, bytes], secrets: Container[str] = ()
) -> dict[str, bytes]:
    """The part of a snapshot of control files that `role` may know.

    Args:
        files: name to content, of those that are not secret.
        secrets: the names of the secret ones that are there.
    """
    known = CONTROL_FILES[kind(role)]
    seen = {name: content for name, content in files.items() if name in known}
    if kind(role) in _TOLD_SQL and _SQLSERVER in secrets:
        seen[SQL_MARK] = b""
    return seen
