"""What smtpd asks others: block lists, the database, the rules file that changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qsend.formats.control import Resolver
from tests.dnsserver import SOA, running_dns
from tests.mariadb import Database, MariaDb
from tests.rblserver import running_rbldnsd
from tests.smtpdtree import Raw, SmtpTree, tcpserver

pytestmark = pytest.mark.root

MAIL = b"MAIL FROM:<a@far.example>"
ZONES = {
    "0.0.127.in-addr.arpa": f"""{SOA}
4 300 IN PTR wrong.good.example.
4 300 IN PTR mx.Good.example.
5 300 IN PTR mx.good.example.
""",
    "good.example": f"{SOA}mx 300 IN A 127.0.0.4\nwrong 300 IN A 127.0.0.9\n",
}
"""127.0.0.5 claims a name that is not its own; 127.0.0.6 has none."""
RCPT = b"RCPT TO:<box@here.example>"


@pytest.fixture(scope="module")
def lists() -> Iterator[Resolver]:
    with running_rbldnsd() as server:
        yield server


def put_sqlserver(smtp: SmtpTree, database: Database) -> None:
    path = smtp.tree.home / "control/sqlserver"
    path.write_bytes(database.sqlserver)
    path.chmod(0o600)


def test_block_lists_are_heard_at_rcpt_unless_the_rules_say_otherwise(
    unstarted: SmtpTree, lists: Resolver
) -> None:
    tree = unstarted.tree
    tree.control("resolvers", f"{lists.host}:{lists.port}\n")
    tree.control("rbl", "reject bl.example\n")
    tree.control("smtpproxies", "127.0.0.1\n")
    unstarted.rules(
        '192.0.2.9:allow,RBLSMTPD="-Go away"\n192.0.2.3:allow,RBLSMTPD=""\n'
    )
    unstarted.start()

    def replies(address: str, port: int) -> list[int]:
        header = f"PROXY TCP4 {address} 127.0.0.1 4444 25\r\n".encode()
        with Raw(port, header=header) as raw:
            assert raw.greeting.startswith(b"220")
            talk = b"EHLO x\r\n" + MAIL + b"\r\n" + RCPT + b"\r\nDATA\r\n"
            raw.send(talk)
            raw.half_close()
            lines = raw.rest().splitlines()
        return [int(line[:3]) for line in lines if line[3:4] == b" "]

    assert replies("192.0.2.1", unstarted.port) == [250, 250, 553, 553]
    line = rb"rblsmtpd: 192\.0\.2\.1 pid \d+: 553 Blocked, see http://bl\.example/"
    tree.find(line)
    assert replies("192.0.2.9", unstarted.port) == [250, 250, 553, 553]
    assert replies("192.0.2.3", unstarted.port) == [250, 250, 250, 354]
    assert replies("192.0.2.77", unstarted.port) == [250, 250, 250, 354]
    # Who has to log in is not asked about.
    assert replies("192.0.2.1", unstarted.submission) == [250, 530, 503, 503]


def test_changed_rules_hold_for_the_next_client(unstarted: SmtpTree) -> None:
    unstarted.rules(":allow\n")
    unstarted.start()
    for text, want in (
        ('127.:allow,RELAYCLIENT=""\n', b"250"),
        (":allow\n", b"553"),
        ("127.:deny\n", b""),
    ):
        unstarted.rules(text)
        with Raw(unstarted.port) as raw:
            if want:
                raw.ask(MAIL)
                assert raw.ask(b"RCPT TO:<a@far.example>").startswith(want)
            else:
                assert raw.greeting.startswith(b"554")
                assert raw.line() == b""


@pytest.mark.parametrize("kind", ["listener", "tcpserver"])
def test_the_database_lists_hosts_and_trouble_is_temporary(
    unstarted: SmtpTree, own_mariadb: MariaDb, own_database: Database, kind: str
) -> None:
    own_database.insert("rcpthosts", ["table.example"], [".below.example"])
    put_sqlserver(unstarted, own_database)
    unstarted.rules('127.0.0.4:allow,RELAYCLIENT=""\n')
    unstarted.start()
    if kind == "listener":
        check_hosts(unstarted, unstarted.port, own_mariadb)
    else:
        rules = str(unstarted.tree.home / "control/tcp.smtp.cdb")
        with tcpserver(unstarted, "-x", rules) as port:
            check_hosts(unstarted, port, own_mariadb)


def check_hosts(smtp: SmtpTree, port: int, mariadb: MariaDb) -> None:
    with Raw(port) as raw:
        assert raw.ask(MAIL).startswith(b"250")
        for recip, code in (
            (b"x@table.example", b"250"),
            (b"x@TABLE.example", b"250"),
            (b"x@a.below.example", b"250"),
            (b"x@below.example", b"553"),
            (b"x@far.example", b"553"),
            (b"box@here.example", b"250"),
        ):
            assert raw.ask(b"RCPT TO:<%b>" % recip).startswith(code), recip
        mariadb.stop()
        assert raw.ask(b"RCPT TO:<x@fresh.example>").startswith(b"451 4.3.0")
        assert raw.ask(RCPT).startswith(b"250")
    with Raw(port, "127.0.0.4") as raw:
        assert raw.ask(MAIL).startswith(b"250")
        assert raw.ask(b"RCPT TO:<x@fresh.example>").startswith(b"250")


def test_names_are_looked_up_and_must_fit(unstarted: SmtpTree) -> None:
    tree = unstarted.tree
    with running_dns(ZONES) as server:
        tree.control("resolvers", server.control)
        tree.control("smtpnames", "1\n")
        unstarted.rules('=.good.example:allow,RELAYCLIENT=""\n')
        unstarted.start()
        for source, code in (
            ("127.0.0.4", b"250"),
            ("127.0.0.5", b"553"),
            ("127.0.0.6", b"553"),
        ):
            with Raw(unstarted.port, source) as raw:
                raw.ask(MAIL)
                assert raw.ask(b"RCPT TO:<x@far.example>").startswith(code), source
                if code == b"250":
                    raw.ask(b"DATA")
                    assert raw.ask(b"x\r\n.").startswith(b"250")
    tree.wait_for(rb"new msg")
    [queued] = unstarted.queued()
    assert b"\nReceived: from mx.good.example (127.0.0.4)\n" in queued.read_bytes()
