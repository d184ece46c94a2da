"""What qmail-showctl says of every control file.

The lines of qmail's own controls are qmail's, which scripts look for, but where qsend
does otherwise (without rcpthosts); qsend's controls follow in the same form.
Must not: read anything.
Source: qmail-showctl.c; qmail-control(5); formats/control.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from qsend.core.errors import ConfigError, ConfigFault
from qsend.formats.accesscontrols import (
    ACCESS_FILES,
    DEADLINE,
    DEADLINE_BOUNDS,
    parse_access,
)
from qsend.formats.control import KNOWN, Controls, parse_controls
from qsend.formats.controllines import lines, one_line
from qsend.formats.popcontrols import POP_FILES, parse_pop
from qsend.formats.qmtpcontrols import QMTPD_FILES, parse_qmtpd
from qsend.formats.runnercontrols import RUNNER_FILES, parse_runner
from qsend.formats.smtpdcontrols import SMTPD_FILES, parse_smtpd
from qsend.formats.sqlcontrols import SQL_FILES, parse_sql
from qsend.formats.sqlserver import parse_sqlserver
from qsend.formats.tcprules import SERVICES, rules_name
from qsend.formats.tlscontrols import TLS_FILES, parse_tls

OOPS = "Oops! Trouble reading this file."
_PRINTABLE = bytes(byte if 32 <= byte <= 126 else ord("?") for byte in range(256))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of the control directory.

    `files` has the content of those that can be read, None for those that cannot;
    `mtimes` when each was changed.
    """

    files: Mapping[str, bytes | None]
    mtimes: Mapping[str, float]

    @property
    def me(self) -> bytes | None:
        """The host's name, where there is one."""
        content = self.files.get("me")
        return None if content is None else one_line(content)


Sentences = Callable[[Facts, str], Iterator[str]]
"""What follows `name: `, by the name: a line or more, without line ends."""


def text(default: str, before: str, *, by_me: bool = False) -> Sentences:
    """A file of one line; `by_me` makes `me` the default where that exists."""

    def say(facts: Facts, name: str) -> Iterator[str]:
        content = facts.files.get(name)
        if content is not None:
            yield f"{before}{shown(one_line(content))}."
            return
        me = facts.me if by_me else None
        yield f"(Default.) {before}{default if me is None else shown(me)}."

    return say


def number(default: int, before: str, after: str = "") -> Sentences:
    """A file with a number; without digits it counts as absent."""

    def say(facts: Facts, name: str) -> Iterator[str]:
        digits = _digits(one_line(facts.files.get(name) or b""))
        if digits:
            yield f"{before}{int(digits)}{after}."
        else:
            yield f"(Default.) {before}{default}{after}."

    return say


def several(default: str, before: str, after: str) -> Sentences:
    """A file with one thing per line; the first line stays empty."""

    def say(facts: Facts, name: str) -> Iterator[str]:
        content = facts.files.get(name)
        if content is None:
            yield f"(Default.) {default}"
            return
        yield ""
        for _, line in lines(content):
            yield f"{before}{shown(line)}{after}"

    return say


def compiled(source: str) -> Sentences:
    """The database that some program makes of the file `source`."""

    def say(facts: Facts, name: str) -> Iterator[str]:
        text, cdb = facts.mtimes.get(source), facts.mtimes.get(name)
        if text is None and cdb is None:
            yield "(Default.) No effect."
        elif text is None:
            yield f"Oops! {name} exists but {source} doesn't."
        elif cdb is None:
            yield f"Oops! {source} exists but {name} doesn't."
        elif text > cdb:
            yield f"Oops! {name} is older than {source}."
        else:
            yield "Modified recently enough; hopefully up to date."

    return say


def _rules() -> Iterator[tuple[str, Sentences]]:
    """Access rules, and their databases, which are what counts."""
    for service in SERVICES:
        title = service.upper()
        none = f"No {title} client is treated otherwise than others."
        cdb = rules_name(service)
        yield cdb.removesuffix(".cdb"), several(none, f"{title} rule: ", "")
        yield cdb, compiled(cdb.removesuffix(".cdb"))


def _database(facts: Facts, name: str) -> Iterator[str]:
    """Servers and database; the password stays where it is."""
    content = facts.files.get(name)
    if content is None:
        yield "(Default.) No database."
        return
    yield ""
    for server in parse_sqlserver(content):
        place = server.socket or server.host
        yield f"Database server: {shown(f'{place}, database {server.db}'.encode())}."


def _present(default: str, there: str) -> Sentences:
    """Whether the file exists, and nothing of what is in it."""

    def say(facts: Facts, name: str) -> Iterator[str]:
        yield there if name in facts.files else f"(Default.) {default}"

    return say


def _relay_logins(facts: Facts, name: str) -> Iterator[str]:
    """The relays and users; the passwords stay where they are."""
    content = facts.files.get(name)
    if content is None:
        yield "(Default.) No relay is logged in to."
        return
    yield ""
    for relay, login in parse_tls({name: content}).logins.items():
        yield f"Relay {shown(relay)} is told that I am {shown(login.user)}."


TABLE: Mapping[str, Sentences] = {
    "badmailfrom": several(
        "Any MAIL FROM is allowed.", "", " not accepted in MAIL FROM."
    ),
    "bouncefrom": text("MAILER-DAEMON", "Bounce user name is "),
    "bouncehost": text("bouncehost", "Bounce host name is ", by_me=True),
    "concurrencylocal": number(10, "Local concurrency is "),
    "concurrencyremote": number(20, "Remote concurrency is "),
    "databytes": number(0, "SMTP DATA limit is ", " bytes"),
    "defaultdomain": text("defaultdomain", "Default domain name is ", by_me=True),
    "defaulthost": text("defaulthost", "Default host name is ", by_me=True),
    "doublebouncehost": text("doublebouncehost", "2B recipient host: ", by_me=True),
    "doublebounceto": text("postmaster", "2B recipient user: "),
    "envnoathost": text("envnoathost", "Presumed domain name is ", by_me=True),
    "helohost": text("helohost", "SMTP client HELO host name is ", by_me=True),
    "idhost": text("idhost", "Message-ID host name is ", by_me=True),
    "localiphost": text("localiphost", "Local IP address becomes ", by_me=True),
    "locals": several(
        "Messages for me are delivered locally.",
        "Messages for ",
        " are delivered locally.",
    ),
    "me": text("undefined! Uh-oh", "My name is "),
    "percenthack": several(
        "The percent hack is not allowed.",
        "The percent hack is allowed for user%host@",
        ".",
    ),
    "plusdomain": text("plusdomain", "Plus domain name is ", by_me=True),
    "qmqpservers": several("No QMQP servers.", "QMQP server: ", "."),
    "queuelifetime": number(604800, "Message lifetime in the queue is ", " seconds"),
    "rcpthosts": several(
        "Only SMTP clients with RELAYCLIENT or a login may send messages.",
        "SMTP clients may send messages to recipients at ",
        ".",
    ),
    "morercpthosts": several(
        "No effect.", "SMTP clients may send messages to recipients at ", "."
    ),
    "morercpthosts.cdb": compiled("morercpthosts"),
    "smtpgreeting": text("smtpgreeting", "SMTP greeting: 220 ", by_me=True),
    "smtproutes": several("No artificial SMTP routes.", "SMTP route: ", ""),
    "timeoutconnect": number(60, "SMTP client connection timeout is ", " seconds"),
    "timeoutremote": number(1200, "SMTP client data timeout is ", " seconds"),
    "timeoutsmtpd": number(1200, "SMTP server data timeout is ", " seconds"),
    "virtualdomains": several("No virtual domains.", "Virtual domain: ", ""),
    # What follows is qsend's own.
    "concurrencyperhost": number(20, "Attempts at once to one remote destination: "),
    "concurrencyperuser": number(10, "Local deliveries at once to one home: "),
    "durability": text("full", "Durability is "),
    "patrn": text("002", "Homes and .qmail files must not have the mode bits "),
    "queueminfree": number(1 << 20, "Mail is refused when the queue has less than ",
                           " bytes free"),
    "resolvers": several("The system's DNS servers are asked.", "DNS server: ", "."),
    "tlspolicy": several("TLS is used with servers that offer it.",
                         "TLS policy: ", ""),
    "tlscafile": _present("Servers are verified by the authorities of this system.",
                          "Servers are verified by the authorities in this file."),
    "clientcert.pem": _present("Servers are shown no certificate.",
                               "There is a certificate to show to servers."),
    "smtpauth": _relay_logins,
    "timeoutterm": number(60, "Deliveries under way get ", " seconds at the end"),
    "sqlserver": _database,
    "sqlqueries": several("The database is asked as qsend does.", "Query: ", ""),
    "sqlminuid": number(100, "Mailboxes of the database have uids from ", " up"),
    "magicforwarding": number(0, "The user forward sends on (1), or not (0): "),
    "sqlpatterns": number(0, "Virtual users are patterns (1), or not (0): "),
    "sqlblankalias": number(1, "A blank alias takes all others (1), or not (0): "),
    "sqllog": number(0, "Queries are logged (1), or not (0): "),
    "pop3listen": several("No POP3 service.", "POP3 at ", "."),
    "servercert.pem": _present("No TLS.", "There is a certificate for TLS."),
    "timeoutpop3d": number(1200, "A silent POP3 client is kept for ", " seconds"),
    "concurrencypop3d": number(200, "POP3 sessions at once: "),
    "concurrencypop3dperip": number(20, "POP3 sessions at once of one address: "),
    "pop3plain": number(1, "POP3 passwords are taken without TLS (1), or not (0): "),
    "systemlogins": number(0, "System accounts may log in (1), or not (0): "),
    "loglogins": number(1, "Logins are logged (1), or not (0): "),
    "rbl": several("No block lists.", "Block list: ", ""),
    DEADLINE: number(DEADLINE_BOUNDS[0], "Block lists are waited for ",
                     " seconds"),
    **dict(_rules()),
    "smtplisten": several("No SMTP service.", "SMTP at ", "."),
    "concurrencysmtpd": number(500, "SMTP sessions at once: "),
    "concurrencysmtpdperip": number(
        50, "SMTP sessions at once of one address in each process: "
    ),
    "maxrecipients": number(1000, "Recipients of one SMTP message: "),
    "maxsmtperrors": number(20, "Errors of one SMTP session: "),
    "recipientcheck": number(0, "Recipients here must exist (1), or not (0): "),
    "smtpnames": number(0, "Names of clients are looked up (1), or not (0): "),
    "smtpproxies": several("No balancers.", "PROXY protocol from ", "."),
    "milters": several("No mail filters.", "Mail filter: ", ""),
    "qmtplisten": several("No QMTP service.", "QMTP at ", "."),
    "qmqplisten": several("No QMQP service.", "QMQP at ", "."),
    "concurrencyqmtpd": number(200, "QMTP and QMQP sessions at once: "),
    "concurrencyqmtpdperip": number(
        20, "QMTP and QMQP sessions at once of one address: "
    ),
    "timeoutqmtpd": number(1200, "A silent QMTP client is kept for ", " seconds"),
    "timeoutrunner": number(300, "A program for QMAILQUEUE gets ", " seconds"),
    "concurrencyrunner": number(40, "Programs for QMAILQUEUE at once: "),
}  # fmt: skip
"""Name to sentences, in the order of qmail-showctl."""


def control_lines(facts: Facts) -> Iterator[str]:
    """Everything about every control file, and about files that are none."""
    problems = _problems(facts.files)
    for name, sentences in TABLE.items():
        yield ""
        if name in facts.files and facts.files[name] is None:
            yield f"{name}: {OOPS}"
        elif name in problems:
            yield f"{name}: Oops! {problems[name]}"
        else:
            first, *others = sentences(facts, name)
            yield f"{name}: {first}"
            yield from others
    for name in facts.files:
        if name not in TABLE:
            yield ""
            yield f"{shown(name.encode(errors='surrogateescape'))}: {_UNKNOWN}"


_UNKNOWN = "I have no idea what this file does."


_READ = frozenset().union(
    KNOWN,
    SQL_FILES,
    POP_FILES,
    ACCESS_FILES,
    TLS_FILES,
    SMTPD_FILES,
    QMTPD_FILES,
    RUNNER_FILES,
)


def _problems(files: Mapping[str, bytes | None]) -> dict[str, str]:
    """Name to what qsend does not understand in that file; it would not start."""
    known = {
        name: content
        for name, content in files.items()
        if name in _READ and content is not None
    }
    faults = []
    for parse in (
        lambda: parse_controls({"locals": b"", **known}),
        lambda: parse_sql(known, Controls()),
        lambda: parse_pop(known),
        lambda: parse_access(known, Controls()),
        lambda: parse_tls(known),
        lambda: parse_smtpd(known, b"me"),
        lambda: parse_qmtpd(known),
        lambda: parse_runner(known),
    ):
        try:
            parse()
        except ConfigError as exc:
            faults += exc.faults
    return {fault.file.removeprefix("control/"): _oops(fault) for fault in faults}


def _oops(fault: ConfigFault) -> str:
    line = f"Line {fault.line}: " if fault.line else ""
    return f"{line}{fault.problem}; qsend does not start with this."


def _digits(line: bytes) -> bytes:
    rest = line.lstrip(b"0123456789")
    return line[: len(line) - len(rest)]


def shown(value: bytes) -> str:
    """Text without what a terminal would obey, as qmail-showctl prints it."""
    return value.translate(_PRINTABLE).decode("ascii")
