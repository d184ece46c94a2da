"""What qmail-showctl says of each control file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest

import qsend
from qsend.core.family import CONTROL_FILES
from qsend.formats.accesscontrols import ACCESS_FILES
from qsend.formats.control import KNOWN, Controls
from qsend.formats.injectenv import CONTROL_VARIABLES
from qsend.formats.showctl import TABLE, Facts, control_lines
from qsend.formats.sqlcontrols import NUMBERS, SQL_FILES
from qsend.formats.tcprules import SERVICES, rules_name
from qsend.sysio.homecheck import DELIVERING, INJECTING, RECEIVING

PACKAGE = Path(str(qsend.__file__)).parent

ORDER = (
    "badmailfrom bouncefrom bouncehost concurrencylocal concurrencyremote databytes "
    "defaultdomain defaulthost doublebouncehost doublebounceto envnoathost helohost "
    "idhost localiphost locals me percenthack plusdomain qmqpservers queuelifetime "
    "rcpthosts morercpthosts morercpthosts.cdb smtpgreeting smtproutes timeoutconnect "
    "timeoutremote timeoutsmtpd virtualdomains"
)


def said(
    files: Mapping[str, bytes | None], mtimes: Mapping[str, float] | None = None
) -> str:
    return "".join(
        f"{line}\n" for line in control_lines(Facts(files=files, mtimes=mtimes or {}))
    )


def test_every_control_is_told_of_in_the_order_of_qmail() -> None:
    names = [line.split(":")[0] for line in said({}).splitlines() if line]
    assert names == list(TABLE)
    assert " ".join(names).startswith(ORDER)


def test_no_control_that_the_code_knows_is_forgotten() -> None:
    given = {name for names in CONTROL_FILES.values() for name in names}
    read = {*INJECTING, *RECEIVING, *DELIVERING, *CONTROL_VARIABLES, *SQL_FILES}
    read |= {*ACCESS_FILES, *map(rules_name, SERVICES)}
    # Also what no table has: every file that some text of the package names.
    named = {
        name.rstrip(".").removesuffix(".tmp")
        for path in PACKAGE.rglob("*.py")
        for name in re.findall(r"\bcontrol/([a-z0-9.]+)", path.read_text())
    }
    assert len(named) > 20
    assert (KNOWN | given | read | named) - set(TABLE) == set()


def test_default_that_is_said_holds() -> None:
    defaults = {
        **asdict(Controls()),
        **{name: default for name, (default, *_) in NUMBERS.items()},
        "patrn": f"{Controls().patrn:03o}",
        "durability": Controls().durability.value,
    }
    for name, default in defaults.items():
        if name in TABLE and isinstance(default, int | str):
            [line] = [
                row for row in said({}).splitlines() if row.startswith(f"{name}: ")
            ]
            assert re.search(rf"\b{default}\b", line), line


def test_secrets_are_not_shown() -> None:
    account = b"server db.example\nserver localhost\nlogin me\npassword hush\ndb mail\n"
    key = b"-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nhush\n"
    output = said({"sqlserver": account, "servercert.pem": key})
    assert "\nsqlserver: \nDatabase server: db.example, database mail.\n" in output
    assert "\nservercert.pem: There is a certificate for TLS.\n" in output
    login = b"[::1]:ann:hush\nrelay.example:bob:hush\n"
    output += said({"clientcert.pem": key, "tlscafile": key, "smtpauth": login})
    assert "\nclientcert.pem: There is a certificate to show to servers.\n" in output
    assert "\nRelay ::1 is told that I am ann.\nRelay relay.example is told" in output
    assert "hush" not in output
    broken = said({"sqlserver": b"pasword hush\n"})
    assert "\nsqlserver: Oops! " in broken
    broken += said({"smtpauth": b"relay.example:hush\n"})
    assert "\nsmtpauth: Oops! Line 1: expected relay:user:password" in broken
    assert "hush" not in broken


def test_defaults_are_said_of_every_absent_file() -> None:
    for paragraph in said({}).split("\n\n"):
        name, _, rest = paragraph.strip().partition(": ")
        assert rest.startswith("(Default.) "), name
        assert rest.rstrip("\n").count("\n") == 0


@pytest.mark.parametrize(
    ("name", "content", "want"),
    [
        ("bouncefrom", b"ann \nmore\n", "Bounce user name is ann."),
        ("bouncehost", b"x\t", "Bounce host name is x."),
        ("concurrencylocal", b"7\n", "Local concurrency is 7."),
        ("databytes", b"5000\n", "SMTP DATA limit is 5000 bytes."),
        ("databytes", b"none\n", "Oops! Line 1: expected a number from 0 to "
         "9999999999, found 'none'; qsend does not start with this."),
        ("smtpgreeting", b"h\xff\x1bhi", "Oops! Line 1: expected printable text; "
         "qsend does not start with this."),
        ("smtpgreeting", b"", "SMTP greeting: 220 ."),
        ("badmailfrom", b"", ""),
        ("badmailfrom", b"a@b\n#c\n\n@d \n", "\na@b not accepted in MAIL FROM.\n"
         "@d not accepted in MAIL FROM."),
        ("locals", b"a\nB\n", "\nMessages for a are delivered locally.\n"
         "Messages for B are delivered locally."),
        ("virtualdomains", b"a:b\n", "\nVirtual domain: a:b"),
        ("smtproutes", b":[::1]:26\n", "\nSMTP route: :[::1]:26"),
        ("durability", b"none\n", "Durability is none."),
        ("patrn", b"022\n", "Homes and .qmail files must not have the mode bits 022."),
        ("timeoutterm", b"5", "Deliveries under way get 5 seconds at the end."),
        ("queuelifetime", b"1h\n", "Oops! Line 1: expected a number from 0 to "
         "2147483647, found '1h'; qsend does not start with this."),
        ("virtualdomains", b"#\nab\n", "Oops! Line 2: expected key:value, found no "
         "colon; qsend does not start with this."),
        ("rbl", b"reject bl.example\n", "\nBlock list: reject bl.example"),
        ("rbl", b"bl.example\n", "Oops! Line 1: expected ACTION ZONE[=ANSWERS] "
         "[open|closed] [TEXT]; qsend does not start with this."),
        ("timeoutrbl", b"5\n", "Block lists are waited for 5 seconds."),
        ("tcp.smtp", b"#\n:deny\n", "\nSMTP rule: :deny"),
        ("tcp.pop3.cdb", b"", "(Default.) No effect."),
        ("databytes", None, "Oops! Trouble reading this file."),
        ("strange", b"x", "I have no idea what this file does."),
        ("str\nange", b"x", "I have no idea what this file does."),
    ],
)  # fmt: skip
def test_content_is_said(name: str, content: bytes | None, want: str) -> None:
    output = said({name: content})
    shown = name.replace("\n", "?")
    assert f"\n{shown}: {want}\n\n" in output + "\n"


def test_rules_that_were_not_compiled_are_told() -> None:
    output = said({"tcp.qmqp": b":allow\n"}, {"tcp.qmqp": 2.0})
    assert "\ntcp.qmqp.cdb: Oops! tcp.qmqp exists but tcp.qmqp.cdb doesn't.\n" in output


def test_me_is_the_default_of_names() -> None:
    output = said({"me": b"mx.example\n"})
    for name in ("bouncehost", "defaultdomain", "envnoathost", "helohost", "idhost"):
        [line] = [row for row in output.splitlines() if row.startswith(f"{name}: ")]
        assert line.startswith(f"{name}: (Default.) ")
        assert line.endswith("mx.example.")
    assert "\nme: My name is mx.example.\n" in output
    assert "\nme: (Default.) My name is undefined! Uh-oh.\n" in said({})


@pytest.mark.parametrize(
    ("files", "mtimes", "text", "cdb"),
    [
        ({"rcpthosts": b"a\n"}, {}, "(Default.) No effect.", "(Default.) No effect."),
        (
            {"morercpthosts": b"a\n"}, {"morercpthosts": 2.0},
            "\nSMTP clients may send messages to recipients at a.",
            "Oops! morercpthosts exists but morercpthosts.cdb doesn't.",
        ),
        (
            {"rcpthosts": b"", "morercpthosts": b"a\n", "morercpthosts.cdb": b""},
            {"morercpthosts": 2.0, "morercpthosts.cdb": 2.0},
            "\nSMTP clients may send messages to recipients at a.",
            "Modified recently enough; hopefully up to date.",
        ),
        (
            {"rcpthosts": b"", "morercpthosts": b"a\n", "morercpthosts.cdb": b""},
            {"morercpthosts": 2.5, "morercpthosts.cdb": 2.0},
            "\nSMTP clients may send messages to recipients at a.",
            "Oops! morercpthosts.cdb is older than morercpthosts.",
        ),
        (
            {"morercpthosts.cdb": b""}, {"morercpthosts.cdb": 2.0},
            "(Default.) No effect.",
            "Oops! morercpthosts.cdb exists but morercpthosts doesn't.",
        ),
    ],
)  # fmt: skip
def test_more_hosts_and_their_database(
    files: Mapping[str, bytes], mtimes: Mapping[str, float], text: str, cdb: str
) -> None:
    output = said(files, mtimes)
    assert f"\nmorercpthosts: {text}\n\nmorercpthosts.cdb: {cdb}\n" in output
