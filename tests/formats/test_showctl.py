"""What qmail-showctl says of each control file."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from qsend.formats.control import KNOWN
from qsend.formats.showctl import TABLE, Facts, control_lines

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
    assert set(TABLE) >= KNOWN


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
        ("databytes", b"5000x\n", "SMTP DATA limit is 5000 bytes."),
        ("databytes", b"none\n", "(Default.) SMTP DATA limit is 0 bytes."),
        ("smtpgreeting", b"h\xff\x1bhi", "SMTP greeting: 220 h??hi."),
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
        ("databytes", None, "Oops! Trouble reading this file."),
        ("strange", b"x", "I have no idea what this file does."),
        ("str\nange", b"x", "I have no idea what this file does."),
    ],
)  # fmt: skip
def test_content_is_said(name: str, content: bytes | None, want: str) -> None:
    output = said({name: content})
    shown = name.replace("\n", "?")
    assert f"\n{shown}: {want}\n\n" in output + "\n"


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
            "\nNo rcpthosts; doesn't matter that morercpthosts has a.",
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
            "(Default.) No rcpthosts; morercpthosts is irrelevant.",
            "Oops! morercpthosts.cdb exists but morercpthosts doesn't.",
        ),
    ],
)  # fmt: skip
def test_more_hosts_and_their_database(
    files: Mapping[str, bytes], mtimes: Mapping[str, float], text: str, cdb: str
) -> None:
    output = said(files, mtimes)
    assert f"\nmorercpthosts: {text}\n\nmorercpthosts.cdb: {cdb}\n" in output
